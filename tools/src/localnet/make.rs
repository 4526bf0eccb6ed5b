//! Makes a local network: keys, identities, ports, genesis file, and what each node is started with.
//!
//! ```text
//! D/localnet.json  genesis.json  password          the file named last is written last
//! D/node-0/keys/keystore-KEY.json  data/identity.key  log
//! D/node-1/..
//! ```

use std::path::Path;

use alloy_primitives::{Address, B256, hex, keccak256};
use engine::crypto::bls::SecretKey;
use eyre::{WrapErr, ensure, eyre};
use net::{
    ports::{self, Carrier},
    rpc::DevAccounts,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::record::{Folder, Network, Node, Ports, Settings};
use crate::{
    genesis::{self, ValidatorConfig},
    keys::{self, Kdf, Password},
};

/// Ports that a node has below those of the next one.
const PORTS_STEP: u16 = 10;

/// What nodes of a local network are given unless the caller says otherwise: many of them share a disk.
const USUAL: [&str; 2] = ["--disk.segment-bytes", "16777216"];

/// What goes over the ports of a node, in the order of [`Ports`].
const CARRIERS: [Carrier; 6] = [Carrier::Tcp, Carrier::Tcp, Carrier::Tcp, Carrier::Tcp, Carrier::Udp, Carrier::Udp];

/// Makes the network in an empty folder, which is made if it is not there. Nothing is started.
pub(super) fn make(dir: &Path, settings: Settings, more: &[String]) -> eyre::Result<Folder> {
    std::fs::create_dir_all(dir).wrap_err_with(|| format!("cannot create {}", dir.display()))?;
    let folder = Folder::open(dir)?;
    let dir = folder.dir.clone();
    let is_empty = std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is not empty and holds no local network", dir.display());
    let stakes = settings.stake.len();
    ensure!(stakes == usize::from(settings.validators), "{stakes} stakes for {} validators", settings.validators);
    let ports = choose_ports(&settings)?;
    let password = new_password(&dir.join("password"))?;
    let genesis = dir.join("genesis.json");
    let mut nodes = Vec::new();
    let mut named = Vec::new();
    for (number, ports) in ports.into_iter().enumerate() {
        let index = u16::try_from(number).ok().filter(|index| *index < settings.validators);
        let home = dir.join(format!("node-{number}"));
        let datadir = home.join("data");
        std::fs::create_dir_all(&datadir).wrap_err_with(|| format!("cannot create {}", datadir.display()))?;
        let identity = B256::from(keys::identity(&datadir)?.public_key());
        let mut arguments = fixed_arguments(&genesis, &datadir, ports);
        if let Some(index) = index {
            let folder = home.join("keys");
            keys::create_folder(&folder)?;
            let (_, key) = keys::create(&folder, &password, Kdf::LIGHT)?;
            let stake = settings.stake.get(number).copied().unwrap_or(1);
            named.push(validator(index, &key, identity, ports, stake, settings.chain_id));
            arguments.extend(["--validator-keys".to_owned(), folder.display().to_string()]);
            arguments.extend(["--validator-password-file".to_owned(), dir.join("password").display().to_string()]);
        }
        arguments.extend(variable(more));
        let kind = if index.is_some() { "validator" } else { "follower" };
        let at = |scheme: &str, port: u16| format!("{scheme}127.0.0.1:{port}");
        nodes.push(Node {
            name: format!("{kind}-{number}"),
            validator: index,
            identity,
            ports,
            rpc: at("http://", ports.rpc),
            ws: at("ws://", ports.ws),
            metrics: at("http://", ports.metrics) + "/metrics",
            admin: at("http://", ports.admin),
            quic: at("", ports.quic),
            peer: at(&format!("{}@", hex::encode(identity)), ports.p2p),
            datadir,
            log: home.join("log"),
            arguments,
            process: None,
            should_run: false,
        });
    }
    let text = serde_json::to_string_pretty(&genesis_file(&settings, &named)?)?;
    genesis::parse(&text).wrap_err("these settings make no chain")?;
    std::fs::write(&genesis, text + "\n").wrap_err_with(|| format!("cannot write {}", genesis.display()))?;
    folder.write(&Network::new(dir, genesis, settings, nodes))?;
    Ok(folder)
}

/// What a node is started with, up to what the caller added.
fn fixed_arguments(genesis: &Path, datadir: &Path, ports: Ports) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let flags = [
        ("--chain", path(genesis)),
        ("--datadir", path(datadir)),
        ("--http.port", ports.rpc.to_string()),
        ("--ws.port", ports.ws.to_string()),
        ("--metrics", format!("127.0.0.1:{}", ports.metrics)),
        ("--admin", format!("127.0.0.1:{}", ports.admin)),
        ("--quic", format!("127.0.0.1:{}", ports.quic)),
        ("--p2p.addr", "127.0.0.1".to_owned()),
        ("--p2p.port", ports.p2p.to_string()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    std::iter::once("node".to_owned()).chain(flags).collect()
}

/// Replaces what an earlier caller added to what every node is started with.
pub(super) fn replace_more(network: &mut Network, more: &[String]) {
    for node in &mut network.nodes {
        let fixed = fixed_arguments(Path::new(""), Path::new(""), node.ports).len();
        let keys = if node.validator.is_some() { 4 } else { 0 };
        node.arguments.truncate(fixed.saturating_add(keys));
        node.arguments.extend(variable(more));
    }
}

/// What may be replaced of a node's arguments.
fn variable(more: &[String]) -> impl Iterator<Item = String> {
    USUAL.map(str::to_owned).into_iter().chain(more.iter().cloned())
}

fn validator(index: u16, key: &SecretKey, identity: B256, ports: Ports, stake: u64, chain_id: u64) -> ValidatorConfig {
    // Nobody's account, so that fees change no balance that anybody watches.
    let hash = keccak256(format!("sluice localnet validator {index}"));
    let operator = Address::from_word(hash);
    ValidatorConfig {
        bls_pubkey: key.public_key().0.into(),
        proof_of_possession: key.prove_possession(operator, chain_id).0.into(),
        identity: identity.into(),
        addresses: vec![format!("127.0.0.1:{}", ports.p2p)],
        stake,
        fee_recipient: operator,
    }
}

fn genesis_file(settings: &Settings, validators: &[ValidatorConfig]) -> eyre::Result<Value> {
    let accounts = DevAccounts::well_known();
    let funded = [accounts.addresses(), &settings.fund].concat();
    let mut file = genesis::file(settings.chain_id, settings.gas_limit, &funded);
    genesis::name_validators(&mut file, validators)?;
    let sluice = file.pointer_mut("/config/sluice").and_then(Value::as_object_mut);
    let sluice = sluice.ok_or_else(|| eyre!("a genesis file has no config.sluice"))?;
    for (key, value) in [
        ("slot_time_ms", settings.slot_time_ms),
        ("delta_ms", settings.delta_ms),
        ("epoch_slots", settings.epoch_slots),
    ] {
        if let Some(value) = value {
            sluice.insert(key.to_owned(), json!(value));
        }
    }
    Ok(file)
}

/// Draws the password of all keystores.
fn new_password(path: &Path) -> eyre::Result<Password> {
    let text = Zeroizing::new(hex::encode(keys::draw::<16>()?.as_slice()));
    let line = Zeroizing::new([text.as_bytes(), b"\n"].concat());
    keys::write_new(path, &line)?;
    Password::new(&text).ok_or_else(|| eyre!("the password is empty"))
}

/// Ports of every node.
fn choose_ports(settings: &Settings) -> eyre::Result<Vec<Ports>> {
    let nodes = settings.validators.saturating_add(settings.followers);
    let wanted: Vec<Carrier> = (0..nodes).flat_map(|_| CARRIERS).collect();
    // Those that were free a moment ago may just be looked at by whoever else looks for some.
    let base = settings.base_port;
    let found = if base == 0 { ports::free(&wanted)? } else { named_ports(base, &wanted, nodes)? };
    let of_node = |ports: &[u16]| match *ports {
        [rpc, ws, metrics, admin, p2p, quic] => Some(Ports { rpc, ws, metrics, admin, p2p, quic }),
        _ => None,
    };
    Ok(found.chunks(CARRIERS.len()).filter_map(of_node).collect())
}

/// The ports that somebody named by the first of them, where nobody has one.
fn named_ports(base: u16, wanted: &[Carrier], nodes: u16) -> eyre::Result<Vec<u16>> {
    let named = ports_from(base, nodes)?;
    for (port, carrier) in named.iter().zip(wanted) {
        ensure!(ports::is_free(*port, *carrier), "port {port} is taken; another --base-port, or 0 for any free ones");
    }
    Ok(named)
}

fn ports_from(base: u16, nodes: u16) -> eyre::Result<Vec<u16>> {
    let last = base.checked_add(nodes.saturating_mul(PORTS_STEP));
    ensure!(last.is_some(), "{nodes} nodes need {PORTS_STEP} ports each, which --base-port {base} does not leave");
    let first = (0..nodes).map(|node| base.saturating_add(node.saturating_mul(PORTS_STEP)));
    Ok(first.flat_map(|first| (0..6).map(move |port| first.saturating_add(port))).collect())
}
