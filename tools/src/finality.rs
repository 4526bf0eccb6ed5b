//! Finality files: what shows somebody who trusts only the chain's validators that a block is final.
//!
//! ```json
//! { "format": "sluice-finality", "version": 1, "chain_id": 1001, "genesis": "0x..",
//!   "set": { "epoch": 0, "validators": [{ "public_key": "0x..", "stake": 1, "operator": "0x.." }] },
//!   "handovers": [{ "header": "0x..", "certificate": "0x..", "next": { "epoch": 1, "validators": [] } }],
//!   "headers": ["0x.."], "certificate": "0x..", "block": "0x.." }
//! ```
//!
//! `genesis` is the id of block 0's consensus header, to which every signature is bound. `set` is where the proof
//! begins; whoever verifies has to know it from elsewhere. Each handover shows the set of the next epoch: the RLP of a
//! consensus header that names it and a Finalization of that header. `headers` go from the header that `certificate`
//! makes final down to the block's own, and `block` is the RLP of its Ethereum header. Unknown fields, formats and
//! versions are refused.

use std::{io::Read as _, io::Write as _, path::Path, process::ExitCode};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U64};
use alloy_rlp::{Decodable, encode};
use engine::{
    crypto::bls::BlsScheme,
    light::{self, FinalityProof, Finalized, Handover, Trust},
    limits,
    ports::{Store, StoreError},
    types::{Certificate, ConsensusHeader, Domain, Epoch, Height, PublicKey, Validator, ValidatorSet},
};
use eyre::{WrapErr, bail, ensure, eyre};
use net::rpc_client::RpcClient;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cli::{ExportFinalityArgs, VerifyFinalityArgs},
    inspect,
};

const FORMAT: &str = "sluice-finality";
const VERSION: u64 = 1;

/// Largest file that is read, in bytes: some hundred epochs of full sets, or thousands of small ones.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    format: String,
    version: u64,
    chain_id: u64,
    genesis: B256,
    set: Set,
    handovers: Vec<Step>,
    headers: Vec<Bytes>,
    certificate: Bytes,
    block: Bytes,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Set {
    epoch: u64,
    validators: Vec<Member>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Member {
    public_key: FixedBytes<48>,
    stake: u64,
    operator: Address,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Step {
    header: Bytes,
    certificate: Bytes,
    next: Set,
}

/// What `sluice_getFinality` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FinalityAnswer {
    chain_id: U64,
    genesis: B256,
    epoch: U64,
    headers: Vec<Bytes>,
    certificate: Bytes,
    block: Bytes,
}

/// What `sluice_getEpoch` answers.
#[derive(Deserialize)]
struct EpochAnswer {
    epoch: U64,
    validators: Vec<MemberAnswer>,
    header: Option<Bytes>,
    certificate: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberAnswer {
    public_key: FixedBytes<48>,
    stake: U64,
    operator: Address,
}

impl EpochAnswer {
    fn set(&self) -> Set {
        let member = |member: &MemberAnswer| Member {
            public_key: member.public_key,
            stake: member.stake.to(),
            operator: member.operator,
        };
        Set { epoch: self.epoch.to(), validators: self.validators.iter().map(member).collect() }
    }
}

impl From<&ValidatorSet> for Set {
    fn from(set: &ValidatorSet) -> Self {
        let member = |member: &Validator| Member {
            public_key: member.public_key.0,
            stake: member.stake,
            operator: member.operator,
        };
        Self { epoch: set.epoch().0, validators: set.validators().iter().map(member).collect() }
    }
}

impl Set {
    fn checked(&self) -> eyre::Result<ValidatorSet> {
        let member = |member: &Member| Validator {
            public_key: PublicKey(member.public_key),
            stake: member.stake,
            operator: member.operator,
        };
        let validators = self.validators.iter().map(member).collect();
        ValidatorSet::new(Epoch(self.epoch), validators).wrap_err_with(|| format!("the set of epoch {}", self.epoch))
    }
}

fn decoded<T: Decodable>(what: &str, bytes: &Bytes) -> eyre::Result<T> {
    let mut rest = bytes.as_ref();
    let value = T::decode(&mut rest).map_err(|error| eyre!("{what} does not decode: {error}"))?;
    ensure!(rest.is_empty(), "{what} has {} bytes behind its end", rest.len());
    Ok(value)
}

impl File {
    /// What a store shows of a block, to whoever trusts the set of an epoch; `None` if it does not hold all of it.
    pub(crate) fn of(store: &dyn Store, height: Height, from_epoch: u64) -> eyre::Result<Option<Self>> {
        let proof = match light::proof_of(store, height) {
            Err(StoreError::Unavailable(_) | StoreError::NotKept { .. }) => return Ok(None),
            proof => proof?.ok_or_else(|| eyre!("block 0 is final by itself: whoever knows the chain knows it"))?,
        };
        let epoch = |number: u64| {
            let begun = light::set_of(store, Epoch(number))?;
            begun.ok_or_else(|| eyre!("the folder does not know the validators of epoch {number}"))
        };
        let last = proof.certificate.epoch.0;
        ensure!(from_epoch <= last, "block {height} is of epoch {last}, before epoch {from_epoch}");
        let set = Set::from(&epoch(from_epoch)?.0);
        let mut handovers = Vec::new();
        for number in from_epoch.saturating_add(1)..=last {
            let (next, handover) = epoch(number)?;
            let (header, certificate) = handover.ok_or_else(|| eyre!("nothing says how epoch {number} began"))?;
            let (header, certificate) = (encode(header).into(), encode(certificate).into());
            handovers.push(Step { header, certificate, next: Set::from(&next) });
        }
        let Domain { chain_id, genesis } = store.chain().domain();
        Ok(Some(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            chain_id,
            genesis,
            set,
            handovers,
            headers: proof.headers.iter().map(|header| encode(header).into()).collect(),
            certificate: encode(proof.certificate).into(),
            block: encode(proof.block).into(),
        }))
    }

    /// The set that it begins with, and the epoch of that.
    pub(crate) fn set(&self) -> eyre::Result<ValidatorSet> {
        self.set.checked()
    }

    /// Whether it is a file that this program reads, of this chain.
    pub(crate) fn check_chain(&self, domain: &Domain) -> eyre::Result<()> {
        ensure!(self.format == FORMAT, "the format is {:?}, not {FORMAT:?}", self.format);
        ensure!(self.version == VERSION, "the version is {}, not {VERSION}", self.version);
        ensure!(self.chain_id == domain.chain_id, "the chain id is {}, not {}", self.chain_id, domain.chain_id);
        ensure!(self.genesis == domain.genesis, "block 0 is {}, not {}", self.genesis, domain.genesis);
        Ok(())
    }

    /// How one set after the other handed over.
    pub(crate) fn handovers(&self) -> eyre::Result<Vec<Handover>> {
        let handover = |step: &Step| {
            let header: ConsensusHeader = decoded("the header of a handover", &step.header)?;
            let certificate: Certificate = decoded("the certificate of a handover", &step.certificate)?;
            Ok(Handover { header, certificate, next: step.next.checked()? })
        };
        self.handovers.iter().map(handover).collect()
    }

    /// What shows that the block is final, to whoever trusts the last of the sets.
    pub(crate) fn proof(&self) -> eyre::Result<FinalityProof> {
        ensure!(self.headers.len() <= limits::FINALITY_HEADERS_MAX, "{} headers are too many", self.headers.len());
        let headers: eyre::Result<_> = self.headers.iter().map(|header| decoded("a header", header)).collect();
        let block: Header = decoded("the block's header", &self.block)?;
        Ok(FinalityProof { headers: headers?, certificate: decoded("the certificate", &self.certificate)?, block })
    }

    fn verify(&self, domain: Domain, trusted: B256) -> eyre::Result<Finalized> {
        self.check_chain(&domain)?;
        let set = self.set.checked()?;
        let found = set.hash();
        ensure!(found == trusted, "the set of epoch {} has hash {found}; trusted is {trusted}", set.epoch());
        let mut trust = Trust::new(domain, set, &BlsScheme);
        for handover in self.handovers()? {
            let (before, after) = (trust.set().epoch(), handover.next.epoch());
            trust.hand_over(&handover).wrap_err_with(|| format!("handover from epoch {before} to {after}"))?;
        }
        Ok(trust.verify(&self.proof()?)?)
    }
}

/// Writes a finality file with what a node answers.
pub(crate) fn export(args: &ExportFinalityArgs) -> eyre::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let file = runtime.block_on(fetch(args))?;
    let text = serde_json::to_string_pretty(&file)?;
    match &args.out {
        Some(path) => std::fs::write(path, text).wrap_err_with(|| format!("cannot write {}", path.display()))?,
        None => writeln!(std::io::stdout(), "{text}")?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(args: &ExportFinalityArgs) -> eyre::Result<File> {
    let client = RpcClient::new(&args.rpc)?;
    let height = format!("{:#x}", args.height);
    let shown: FinalityAnswer = client.call("sluice_getFinality", [height]).await?;
    let last: u64 = shown.epoch.to();
    if args.from_epoch > last {
        bail!("block {} is of epoch {last}, before epoch {}", args.height, args.from_epoch);
    }
    let epoch = |number: u64| {
        let client = &client;
        async move { client.call::<EpochAnswer>("sluice_getEpoch", [format!("{number:#x}")]).await }
    };
    let set = epoch(args.from_epoch).await?.set();
    let mut handovers = Vec::new();
    for number in args.from_epoch.saturating_add(1)..=last {
        let answer = epoch(number).await?;
        let next = answer.set();
        let (Some(header), Some(certificate)) = (answer.header, answer.certificate) else {
            bail!("the node does not say how epoch {number} began");
        };
        handovers.push(Step { header, certificate, next });
    }
    let FinalityAnswer { chain_id, genesis, headers, certificate, block, .. } = shown;
    let (format, chain_id) = (FORMAT.to_owned(), chain_id.to());
    Ok(File { format, version: VERSION, chain_id, genesis, set, handovers, headers, certificate, block })
}

fn read(path: &Path) -> eyre::Result<File> {
    let failed = || format!("cannot read {}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).wrap_err_with(failed)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut text).wrap_err_with(failed)?;
    ensure!(u64::try_from(text.len())? <= FILE_BYTES_MAX, "{} is larger than {FILE_BYTES_MAX} bytes", path.display());
    serde_json::from_slice(&text).wrap_err_with(|| format!("{} is no finality file", path.display()))
}

/// Verifies a finality file and prints what it shows.
pub(crate) fn verify(args: &VerifyFinalityArgs) -> eyre::Result<ExitCode> {
    let chain = inspect::chain(&args.chain)?;
    let trusted = match args.trust_set {
        Some(hash) => hash,
        None => chain.validator_set()?.hash(),
    };
    let shown = read(&args.file)?.verify(chain.domain(), trusted).wrap_err("this file does not show finality")?;
    let Finalized { height, hash, state_root, epoch } = shown;
    let report: Value = json!({
        "final": true, "height": height.0, "hash": hash, "state_root": state_root, "epoch": epoch.0,
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
