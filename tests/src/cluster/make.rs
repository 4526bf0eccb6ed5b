//! Keys, folders and the genesis file of a cluster, by the commands that operators have.

use std::{
    fs::{OpenOptions, create_dir},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use alloy_primitives::Address;
use serde_json::{Value, json};

use super::{Between, Plan};
use crate::{
    node::binary,
    wallet::{CHAIN_ID, account},
};

/// Accounts that hold something in block 0: the payer of `sluice load`, and one for each node.
const FUNDED: u32 = 33;

/// Ten million ether, in wei.
const FUNDS: &str = "0x84595161401484a000000";

/// What belongs to a node.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) datadir: PathBuf,
    /// Keystores and the file of their password, of a validator.
    pub(super) keys: Option<(PathBuf, PathBuf)>,
    /// Identity, hex.
    pub(super) identity: String,
}

/// Runs a `sluice` command that prints JSON.
fn sluice(line: &[&str], paths: &[(&str, &Path)]) -> Value {
    let mut command = Command::new(binary());
    command.args(line);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Draws an identity for every node and a key for every validator, writes a genesis file with both, and gives the file,
/// what it says, and where everything is.
pub(super) fn make(folder: &Path, plan: &Plan, addresses: &[SocketAddr]) -> (PathBuf, Value, Vec<Home>) {
    let password = folder.join("password");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&password);
    file.and_then(|mut file| file.write_all(b"of no worth\n")).expect("written");
    let (mut homes, mut validators) = (Vec::new(), Vec::new());
    for (index, address) in addresses.iter().enumerate() {
        let datadir = folder.join(format!("node{index}"));
        create_dir(&datadir).expect("a folder");
        let shown = sluice(&["keys", "identity"], &[("--datadir", &datadir)]);
        let identity = shown["identity"].as_str().expect("hex").trim_start_matches("0x").to_owned();
        let keys = plan.stakes.get(index).map(|stake| {
            let keys = folder.join(format!("keys{index}"));
            let flags = [("--out", &*keys), ("--password-file", &*password)];
            let made = sluice(&["keys", "new", "--kdf", "light"], &flags);
            let keystore = made["file"].as_str().expect("a path");
            let proven = [("--operator", operator(index).to_string()), ("--identity", identity.clone())];
            let placed = [("--address", address.to_string()), ("--stake", stake.to_string())];
            let chain_id = CHAIN_ID.to_string();
            let mut line = vec!["keys", "prove", keystore, "--chain-id", &chain_id];
            line.extend(proven.iter().chain(&placed).flat_map(|(flag, value)| [*flag, value]));
            validators.push(sluice(&line, &[("--password-file", &password)]));
            (keys, password.clone())
        });
        homes.push(Home { datadir, keys, identity });
    }
    let chain = genesis(plan, validators);
    let file = folder.join("genesis.json");
    std::fs::write(&file, chain.to_string()).expect("written");
    (file, chain, homes)
}

/// Who receives the fees of a validator.
fn operator(index: usize) -> Address {
    Address::left_padding_from(&[0x0f, u8::try_from(index).expect("few nodes")])
}

/// A genesis file with these validators, the plan's parameters and funded accounts.
fn genesis(plan: &Plan, mut validators: Vec<Value>) -> Value {
    let mut chain = sluice(&["genesis", "--chain-id", &CHAIN_ID.to_string()], &[]);
    for index in 0..FUNDED {
        chain["alloc"][account(index).address().to_string()] = json!({"balance": FUNDS});
    }
    if let Between::Relay(..) = plan.between {
        // Behind a relay nobody is to be found at a place of its own.
        validators.iter_mut().for_each(|validator| validator["addresses"] = json!([]));
    }
    let sluice = &mut chain["config"]["sluice"];
    sluice["validators"] = Value::from(validators);
    for (name, value) in plan.sluice.as_object().expect("an object") {
        sluice[name] = value.clone();
    }
    chain
}
