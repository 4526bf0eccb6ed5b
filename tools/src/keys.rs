//! Keys of a node: the BLS key that a validator votes with, and the identity that the network knows a node by.
//!
//! A secret comes from a file that nobody else can read and leaves by no door: it is never printed, stands in no error,
//! is wiped after use, and is in no core dump.

mod files;
mod keystore;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256, Bytes, hex};
use clap::{Args, Subcommand, ValueEnum};
use engine::{crypto::bls::SecretKey, genesis::ChainSpec, ordering::event::Identity};
use eyre::{WrapErr, ensure, eyre};
use net::NodeKey;
use serde::Serialize;
use zeroize::Zeroizing;

use self::{
    files::{check_folder_of, only_keystore, password, read_bounded, read_secret},
    keystore::{Drawn, KEYSTORE_BYTES_MAX, Keystore},
};
pub(crate) use self::{
    files::{create_folder, draw, write_new},
    keystore::{Kdf, Password},
};
use crate::genesis::ValidatorConfig;

/// What `keys` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Draw keys and write a keystore (EIP-2335) for each.
    ///
    /// Prints a line of JSON for each: `{"file":"..","bls_pubkey":"0x.."}`, and with --operator also `fee_recipient`,
    /// `chain_id` and `proof_of_possession`, as genesis files name them.
    New(NewArgs),
    /// Show what a keystore says without its password.
    ///
    /// Prints a line of JSON: `{"bls_pubkey":"0x..","path":"..","uuid":"..","kdf":".."}`; `null` for a key it does not
    /// state.
    Inspect(InspectArgs),
    /// Prove that the key of a keystore is in the hands of an operator, for a genesis file.
    ///
    /// Prints a line of JSON, a validator as `config.sluice.validators` of a genesis file has it:
    /// `{"bls_pubkey":"0x..","proof_of_possession":"0x..","identity":"0x..","addresses":[".."],"stake":1,
    /// "fee_recipient":"0x.."}`.
    Prove(ProveArgs),
    /// Show the network identity of a data folder, which is drawn if there is none.
    ///
    /// Prints a line of JSON: `{"file":"..","identity":"0x.."}`. A node draws its identity when it first starts; this is
    /// for the genesis file that has to name it before.
    Identity(IdentityArgs),
}

/// How a password becomes the key that a keystore is sealed with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KdfChoice {
    /// 256 MiB and about a second.
    Scrypt,
    /// Little memory and a fraction of a second.
    Pbkdf2,
    /// Some milliseconds: for networks whose keys are worth nothing.
    Light,
}

impl From<KdfChoice> for Kdf {
    fn from(choice: KdfChoice) -> Self {
        match choice {
            KdfChoice::Scrypt => Self::SCRYPT,
            KdfChoice::Pbkdf2 => Self::PBKDF2,
            KdfChoice::Light => Self::LIGHT,
        }
    }
}

/// Flags of `keys new`.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Folder of the keystores; made with mode 0700, and refused if others have access to it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// File with the password, UTF-8, of mode 0600; the end of its line is no part of it.
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// How many; a node takes a folder with exactly one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000), value_name = "N")]
    count: u16,
    /// Prove possession of each key to this address, which receives the fees of its blocks.
    #[arg(long, requires = "chain_id", value_name = "ADDRESS")]
    operator: Option<Address>,
    /// Chain that the proof is for.
    #[arg(long, requires = "operator", value_name = "ID")]
    chain_id: Option<u64>,
    /// What guessing a password costs, and each start of a node.
    #[arg(long, value_enum, default_value_t = KdfChoice::Scrypt)]
    kdf: KdfChoice,
}

/// Flags of `keys inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Keystore.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Flags of `keys prove`.
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Keystore, of mode 0600 in a folder of mode 0700.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// File with the password, UTF-8, of mode 0600; the end of its line is no part of it.
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// Who operates the validator, and receives the fees of its blocks.
    #[arg(long, value_name = "ADDRESS")]
    operator: Address,
    /// Chain that the proof is for.
    #[arg(long, value_name = "ID")]
    chain_id: u64,
    /// Identity of its node, as `keys identity` prints it.
    #[arg(long, value_name = "HEX")]
    identity: B256,
    /// Where its peers dial it; may be given several times.
    #[arg(long, required = true, value_name = "HOST:PORT")]
    address: Vec<String>,
    /// Its stake.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    stake: u64,
}

/// Flags of `keys identity`.
#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    /// Data folder.
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
}

/// Runs a `keys` command.
pub(crate) fn run(command: &KeysCommand) -> eyre::Result<()> {
    match command {
        KeysCommand::New(args) => new(args),
        KeysCommand::Inspect(args) => inspect(args),
        KeysCommand::Prove(args) => prove(args),
        KeysCommand::Identity(args) => show_identity(args),
    }
}

fn print(line: &impl Serialize) -> eyre::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(line)?)?)
}

#[derive(Serialize)]
struct NewLine {
    file: String,
    bls_pubkey: Bytes,
    #[serde(flatten)]
    proof: Option<ProofFields>,
}

#[derive(Serialize)]
struct ProofFields {
    fee_recipient: Address,
    chain_id: u64,
    proof_of_possession: Bytes,
}

fn new(args: &NewArgs) -> eyre::Result<()> {
    let password = password(&args.password_file)?;
    create_folder(&args.out)?;
    for _ in 0..args.count {
        let (file, key) = create(&args.out, &password, args.kdf.into())?;
        let proof = args.operator.zip(args.chain_id).map(|(operator, chain_id)| ProofFields {
            fee_recipient: operator,
            chain_id,
            proof_of_possession: key.prove_possession(operator, chain_id).0.into(),
        });
        print(&NewLine { file: file.display().to_string(), bls_pubkey: key.public_key().0.into(), proof })?;
    }
    Ok(())
}

/// Draws a key and writes its keystore into a folder.
pub(crate) fn create(folder: &Path, password: &Password, kdf: Kdf) -> eyre::Result<(PathBuf, SecretKey)> {
    let (secret, key) = draw_key()?;
    let public_key = key.public_key();
    let drawn = Drawn { salt: *draw()?, iv: *draw()?, uuid: *draw()? };
    let keystore = Keystore::seal(&secret, public_key, password, kdf, &drawn)?;
    let file = folder.join(format!("keystore-{}.json", hex::encode(public_key.0)));
    write_new(&file, keystore.text().as_bytes())?;
    Ok((file, key))
}

/// A number below the order of the group, every one as likely: some half of all draws are.
fn draw_key() -> eyre::Result<(Zeroizing<[u8; 32]>, SecretKey)> {
    loop {
        let secret = draw::<32>()?;
        if let Some(key) = SecretKey::from_bytes(&mut secret.clone()) {
            return Ok((secret, key));
        }
    }
}

#[derive(Serialize)]
struct InspectLine {
    bls_pubkey: Option<Bytes>,
    path: String,
    uuid: String,
    kdf: &'static str,
}

/// What is shown is no secret, so it is shown whoever has access to the file.
fn inspect(args: &InspectArgs) -> eyre::Result<()> {
    let shown = args.file.display();
    let file = File::open(&args.file).wrap_err_with(|| format!("cannot read {shown}"))?;
    let bytes = read_bounded(&args.file, file, KEYSTORE_BYTES_MAX)?;
    let keystore = Keystore::parse(&bytes).wrap_err_with(|| format!("{shown} is no keystore"))?;
    let kdf = match keystore.kdf {
        Kdf::Scrypt { .. } => "scrypt",
        Kdf::Pbkdf2 { .. } => "pbkdf2",
    };
    let bls_pubkey = keystore.public_key.map(|key| key.0.into());
    print(&InspectLine { bls_pubkey, path: keystore.path, uuid: keystore.uuid, kdf })
}

fn prove(args: &ProveArgs) -> eyre::Result<()> {
    let key = open(&args.file, &args.password_file)?;
    print(&ValidatorConfig {
        bls_pubkey: key.public_key().0.into(),
        proof_of_possession: key.prove_possession(args.operator, args.chain_id).0.into(),
        identity: args.identity.into(),
        addresses: args.address.clone(),
        stake: args.stake,
        fee_recipient: args.operator,
    })
}

/// Opens a keystore that nobody but its owner has access to.
fn open(file: &Path, password_file: &Path) -> eyre::Result<SecretKey> {
    check_folder_of(file)?;
    let bytes = read_secret(file, KEYSTORE_BYTES_MAX)?;
    let shown = file.display();
    let keystore = Keystore::parse(&bytes).wrap_err_with(|| format!("{shown} is no keystore"))?;
    keystore.open(&password(password_file)?).wrap_err_with(|| format!("cannot open {shown}"))
}

#[derive(Serialize)]
struct IdentityLine {
    file: String,
    identity: B256,
}

fn show_identity(args: &IdentityArgs) -> eyre::Result<()> {
    std::fs::create_dir_all(&args.datadir).wrap_err_with(|| format!("cannot create {}", args.datadir.display()))?;
    let identity = identity(&args.datadir)?.public_key().into();
    print(&IdentityLine { file: identity_file(&args.datadir).display().to_string(), identity })
}

fn identity_file(datadir: &Path) -> PathBuf {
    datadir.join("identity.key")
}

/// The identity of a data folder, which must be there; drawn if it has none.
pub(crate) fn identity(datadir: &Path) -> eyre::Result<NodeKey> {
    let file = identity_file(datadir);
    let mut seed = Zeroizing::new([0; 32]);
    if file.try_exists().wrap_err_with(|| format!("cannot look at {}", file.display()))? {
        let text = read_secret(&file, 80)?;
        let digits = text.strip_suffix(b"\n").unwrap_or(&text);
        ensure!(
            digits.len() == 64 && hex::decode_to_slice(digits, seed.as_mut_slice()).is_ok(),
            "{} must hold 64 digits of hex and the end of a line",
            file.display()
        );
    } else {
        seed = draw()?;
        let mut text = Zeroizing::new([b'\n'; 65]);
        let (digits, _) = text.split_at_mut(64);
        hex::encode_to_slice(seed.as_slice(), digits)?;
        write_new(&file, text.as_slice())?;
    }
    NodeKey::from_seed(&seed).wrap_err_with(|| format!("cannot use {}", file.display()))
}

/// Where a node stands in its chain.
pub(crate) struct Role {
    /// The key that it votes with; `None` if it only follows.
    pub(crate) identity: Option<Identity>,
    /// Who receives the fees of its blocks unless a flag says otherwise.
    pub(crate) operator: Address,
    /// The same for a person who reads.
    pub(crate) line: String,
}

/// Files by which a node becomes a validator.
#[derive(Debug, Args)]
pub(crate) struct ValidatorArgs {
    /// Folder of mode 0700 with one keystore (EIP-2335): the key that this node votes with.
    #[arg(long, requires = "validator_password_file", conflicts_with = "dev", value_name = "DIR")]
    pub(crate) validator_keys: Option<PathBuf>,
    /// File of mode 0600 with the keystore's password, UTF-8; the end of its line is no part of it.
    #[arg(long, requires = "validator_keys", value_name = "FILE")]
    pub(crate) validator_password_file: Option<PathBuf>,
}

/// Loads the key that the arguments name and finds its place among the chain's validators.
pub(crate) fn role(args: &ValidatorArgs, chain: &ChainSpec) -> eyre::Result<Role> {
    let set = chain.validator_set()?;
    let Some((folder, password)) = args.validator_keys.as_ref().zip(args.validator_password_file.as_ref()) else {
        if chain.ordering.validators.is_empty() {
            let line =
                "validator  this node alone; its genesis file names none, so its key is the one that everybody has";
            let identity = Some(Identity::new(SecretKey::development()));
            return Ok(Role { identity, operator: Address::ZERO, line: line.to_owned() });
        }
        let line = format!("follower   of {} validators, stake {} in all", set.size(), set.total().0);
        return Ok(Role { identity: None, operator: Address::ZERO, line });
    };
    keep_out_of_core_dumps();
    let file = only_keystore(folder)?;
    let key = open(&file, password)?;
    let public_key = key.public_key();
    let found = set.index_of(&public_key).and_then(|index| Some((index, set.get(index)?)));
    let (index, validator) = found.ok_or_else(|| {
        let key = public_key.0;
        eyre!("{} holds key {key}, which is none of the chain's {} validators", file.display(), set.size())
    })?;
    let (size, stake) = (set.size(), validator.stake);
    let line = format!("validator  {} of {size}, stake {stake}, key {}", index.0, public_key.0);
    Ok(Role { identity: Some(Identity::new(key)), operator: validator.operator, line })
}

/// A limit of one byte is the one at which Linux writes no core file and starts no program that takes it.
fn keep_out_of_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) }) {
        tracing::warn!(%error, "core dumps cannot be switched off; one would hold the validator's key");
    }
}
