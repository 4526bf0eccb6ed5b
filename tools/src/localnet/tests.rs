//! What a local network is made of, how it goes on, and that nobody else's process is touched.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::Child,
    sync::Barrier,
    thread,
};

use alloy_primitives::B256;
use clap::Parser;
use engine::genesis::ChainSpec;
use serde_json::json;
use tempfile::TempDir;

use super::{
    process::Process,
    record::{Network, Node, Ports},
    *,
};

/// The flags as they are typed.
#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    args: LocalnetArgs,
}

fn typed(home: &TempDir, flags: &str) -> LocalnetArgs {
    let dir = home.path().join("net");
    let words = ["localnet", "--dir"].map(str::to_owned).into_iter().chain([dir.display().to_string()]);
    Typed::try_parse_from(words.chain(flags.split_whitespace().map(str::to_owned))).unwrap().args
}

fn made(flags: &str) -> (TempDir, Folder, Network) {
    let home = tempfile::tempdir().unwrap();
    let folder = typed(&home, flags).run.folder().unwrap();
    let network = folder.read().unwrap();
    (home, folder, network)
}

fn chain(network: &Network) -> ChainSpec {
    crate::genesis::load(&network.genesis).unwrap()
}

fn said<T>(result: eyre::Result<T>) -> String {
    result.map_or_else(|error| format!("{error:#}"), |_| "accepted".to_owned())
}

/// A node that is none: whoever starts it starts a program that sleeps.
pub(super) fn node(name: &str) -> Node {
    Node {
        name: name.to_owned(),
        validator: None,
        identity: Default::default(),
        ports: Ports { rpc: 1, ws: 2, metrics: 3, admin: 4, p2p: 5, quic: 6 },
        rpc: "http://127.0.0.1:1".to_owned(),
        ws: String::new(),
        metrics: String::new(),
        admin: "http://127.0.0.1:4".to_owned(),
        quic: "127.0.0.1:6".to_owned(),
        peer: String::new(),
        datadir: PathBuf::new(),
        log: PathBuf::from("/dev/null"),
        arguments: vec!["1000".to_owned()],
        process: None,
        should_run: false,
    }
}

/// A network of so many programs that sleep, and those who wait for them.
fn sleepers(count: usize) -> (TempDir, Folder, Vec<Child>) {
    let (home, folder, mut network) = made("--validators 1 --base-port 0");
    network.nodes = (0..count).map(|number| node(&format!("sleeper-{number}"))).collect();
    folder.write(&network).unwrap();
    let start = |number| control::start(&folder, "/bin/sleep".as_ref(), number).unwrap().1.unwrap();
    let children = (0..count).map(start).collect();
    (home, folder, children)
}

#[test]
fn a_network_is_what_its_flags_say() {
    let (home, folder, network) = made("--stake 1,2,3 --followers 2 --base-port 0 --slot-time 100ms --delta 20ms");
    let chain = chain(&network);
    let stakes: Vec<_> = chain.ordering.validators.iter().map(|validator| validator.stake).collect();
    assert_eq!(stakes, [1, 2, 3]);
    assert_eq!((chain.ordering.slot_time_ms, chain.ordering.delta_ms, chain.chain_id), (100, 20, 31_337));
    let accounts = net::rpc::DevAccounts::well_known();
    assert!(accounts.addresses().iter().all(|address| !chain.alloc[address].balance.is_zero()));

    let names: Vec<_> = network.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["validator-0", "validator-1", "validator-2", "follower-3", "follower-4"]);
    let ports = network.nodes.iter().map(|node| node.ports);
    let all = |ports: Ports| [ports.rpc, ports.ws, ports.metrics, ports.admin, ports.p2p, ports.quic];
    assert_eq!(ports.flat_map(all).collect::<BTreeSet<_>>().len(), 30);
    for (number, node) in network.nodes.iter().enumerate() {
        assert_eq!(crate::keys::identity(&node.datadir).unwrap().public_key(), node.identity.0);
        assert!(node.peer.ends_with(&format!("@127.0.0.1:{}", node.ports.p2p)), "{}", node.peer);
        assert_eq!(node.arguments[0], "node");
        let Some(validator) = chain.ordering.validators.get(number) else {
            assert!(!node.arguments.iter().any(|argument| argument.contains("validator")));
            continue;
        };
        assert_eq!(validator.identity[..], node.identity[..]);
        assert_eq!(validator.addresses, [format!("127.0.0.1:{}", node.ports.p2p)]);
        let keys = folder.dir.join(format!("node-{number}/keys"));
        assert_eq!(std::fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
        let args = crate::keys::ValidatorArgs {
            validator_keys: Some(keys),
            validator_password_file: Some(folder.dir.join("password")),
        };
        let role = crate::keys::role(&args, &chain).unwrap();
        assert!(
            role.line.starts_with(&format!("validator  {number} of 3, stake {}, key ", number + 1)),
            "{}",
            role.line
        );
        assert_eq!(role.operator, validator.fee_recipient);
    }
    let dir = home.path().display().to_string();
    assert!(network.nodes.iter().all(|node| node.arguments.iter().filter(|word| word.starts_with(&dir)).count() >= 2));
}

#[test]
fn a_network_goes_on_with_what_it_was_made_of() {
    let (home, folder, network) = made("--validators 2 --followers 1 --base-port 0 --slot-time 100ms -- --log debug");
    for flags in ["", "--validators 2", "--stake 1,1 --base-port 0", "--followers 1 --slot-time 100ms"] {
        assert_eq!(typed(&home, flags).run.folder().unwrap().read().unwrap(), network, "{flags}");
    }
    for (flags, words) in [
        ("--validators 3", "was made with other settings: validators is 2, not 3"),
        ("--stake 1,2", "was made with other settings: stake is [1,1], not [1,2]"),
        ("--slot-time 200ms --chain-id 5", "chain_id is 31337, not 5, slot_time_ms is 100, not 200"),
    ] {
        let said = said(typed(&home, flags).run.folder());
        assert!(said.ends_with(words), "{said}");
        assert_eq!(folder.read().unwrap(), network);
    }
    // What is added to the nodes' flags is another matter.
    let changed = typed(&home, "-- --log warn --execution-threads 2").run.folder().unwrap().read().unwrap();
    for (before, after) in network.nodes.iter().zip(&changed.nodes) {
        let (fixed, more) = before.arguments.split_at(before.arguments.len() - 2);
        assert_eq!(more, ["--log", "debug"]);
        assert_eq!(
            after.arguments,
            [fixed, &["--log", "warn", "--execution-threads", "2"].map(str::to_owned)].concat()
        );
    }
}

#[test]
fn a_folder_with_something_else_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("net");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("thesis.tex"), "").unwrap();
    assert!(said(typed(&home, "").run.folder()).ends_with("is not empty and holds no local network"));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn what_makes_no_network_is_refused() {
    let refuse = |flags: &str| said(typed(&tempfile::tempdir().unwrap(), flags).run.folder());
    assert_eq!(refuse("--validators 3 --stake 1,2"), "2 stakes for 3 validators");
    assert!(refuse("--validators 3 --base-port 65510").starts_with("3 nodes need 10 ports each"));
    assert!(refuse("--base-port 0 --chain-id 0").contains("config.chainId"));
    let held = net::ports::free(&[net::ports::Carrier::Tcp]).unwrap()[0];
    let listener = TcpListener::bind(("127.0.0.1", held)).unwrap();
    let said = refuse(&format!("--base-port {held}"));
    assert_eq!(said, format!("port {held} is taken; another --base-port, or 0 for any free ones"));
    drop(listener);
}

#[test]
fn a_record_that_is_none_of_ours_is_refused() {
    let (home, folder, network) = made("--validators 1 --base-port 0");
    let file = folder.dir.join("localnet.json");
    let text = std::fs::read_to_string(&file).unwrap();
    for (from, to, words) in [
        ("\"version\": 2", "\"version\": 1", "is of another version"),
        ("sluice-localnet", "sluice-something", "is of another version"),
        ("\"nodes\"", "\"notes\"", "is no local network"),
        ("\"name\"", "\"nom\"", "is no local network"),
        ("{", "", "is no local network"),
    ] {
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let said = said(folder.read());
        assert!(said.contains(words), "{said}");
    }
    std::fs::write(&file, &text).unwrap();
    assert_eq!(folder.read().unwrap(), network);
    let moved = home.path().join("moved");
    std::fs::rename(&folder.dir, &moved).unwrap();
    assert!(said(Folder::open(&moved).unwrap().read()).contains("where its files have to be, not in"));
}

/// Whoever reads meanwhile reads one state or the other.
#[test]
fn changes_at_the_same_time_are_all_kept() {
    const CHANGES: usize = 20;
    let (_home, folder, _) = made("--validators 2 --base-port 0");
    let barrier = Barrier::new(3);
    thread::scope(|scope| {
        for number in 0..2 {
            let (folder, barrier) = (&folder, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..CHANGES {
                    let change = |network: &mut Network| network.node(number).map(|node| node.name.push('x'));
                    folder.edit(change).unwrap();
                }
            });
        }
        barrier.wait();
        for _ in 0..CHANGES {
            folder.read().unwrap();
        }
    });
    let lengths = folder.read().unwrap().nodes.iter().map(|node| node.name.len()).collect::<Vec<_>>();
    assert_eq!(lengths, ["validator-0".len() + CHANGES; 2]);
    // An edit that fails changes nothing.
    let before = folder.read().unwrap();
    let failed = folder.edit(|network| {
        network.nodes.clear();
        network.node(7).map(|_| ())
    });
    assert_eq!(said(failed), "there is no node 7: this network has 0 to 0");
    assert_eq!(folder.read().unwrap(), before);
}

#[test]
fn one_runs_a_network_at_a_time() {
    let (_home, folder, _) = made("--validators 1 --base-port 0");
    let first = folder.take().unwrap();
    assert!(said(folder.take()).starts_with("another `sluice localnet` runs the network in "));
    drop(first);
    assert!(folder.take().is_ok());
}

#[test]
fn nodes_are_killed_stopped_and_started_again() {
    let (_home, folder, mut children) = sleepers(3);
    let processes =
        |folder: &Folder| folder.read().unwrap().nodes.into_iter().map(|node| node.process).collect::<Vec<_>>();
    let before = processes(&folder);
    assert!(before.iter().flatten().filter(|process| process.is_alive()).count() == 3);

    let done = control::kill(&folder, &[0, 2]).unwrap();
    let pid = |number: usize| before[number].as_ref().map(|process| process.pid);
    assert_eq!(
        done.iter().map(|done| (done.did, done.pid)).collect::<Vec<_>>(),
        [("killed", pid(0)), ("killed", pid(2))]
    );
    assert_eq!(processes(&folder), [None, before[1].clone(), None]);
    let wanted: Vec<_> = folder.read().unwrap().nodes.iter().map(|node| node.should_run).collect();
    assert_eq!(wanted, [false, true, false]);
    assert!(children[1].try_wait().unwrap().is_none(), "nobody asked for the end of node 1");
    assert_eq!(control::kill(&folder, &[2]).unwrap()[0].did, "was down");

    let done = control::restart(&folder, "/bin/sleep".as_ref(), &[1, 2]).unwrap();
    assert!(done.iter().all(|done| done.did == "started"), "{done:?}");
    let after = processes(&folder);
    assert!(after[0].is_none() && after[1..].iter().flatten().filter(|process| process.is_alive()).count() == 2);
    assert_ne!(after[1], before[1]);
    let (done, child) = control::start(&folder, "/bin/sleep".as_ref(), 1).unwrap();
    assert_eq!((done.did, done.pid, child.is_none()), ("was up", after[1].as_ref().map(|process| process.pid), true));

    assert_eq!(said(control::kill(&folder, &[1, 3])), "there is no node 3: this network has 0 to 2");
    assert!(after[1].as_ref().is_some_and(Process::is_alive), "a command that names no node does nothing");
    let done = control::stop(&folder, &[0, 1, 2]).unwrap();
    assert_eq!(done.iter().map(|done| done.did).collect::<Vec<_>>(), ["was down", "stopped", "stopped"]);
    for child in &mut children {
        child.wait().unwrap();
    }
}

/// A record from before the machine was switched off, or of processes long gone, hits nobody.
#[test]
fn a_stale_record_touches_no_process() {
    let (_home, folder, mut children) = sleepers(1);
    let text = std::fs::read_to_string(folder.dir.join("localnet.json")).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let stale = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    assert_ne!(stale, text);
    std::fs::write(folder.dir.join("localnet.json"), stale).unwrap();
    for done in [control::kill(&folder, &[0]), control::stop(&folder, &[0]), control::partition(&folder, &[0], false)] {
        assert!(["was down", "is down"].contains(&done.unwrap()[0].did));
    }
    assert!(children[0].try_wait().unwrap().is_none(), "it is another's");
    // It goes on with a process of its own.
    let (done, child) = control::start(&folder, "/bin/sleep".as_ref(), 0).unwrap();
    assert_eq!(done.did, "started");
    assert_eq!(control::stop(&folder, &[0]).unwrap()[0].pid, child.as_ref().map(Child::id));
    for mut child in children.drain(..).chain(child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Answers so many requests over HTTP, each with its text, and gives what was asked.
fn answering(results: Vec<String>) -> (String, thread::JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let mut asked = Vec::new();
        while asked.len() < results.len() {
            let mut connection = BufReader::new(listener.accept().unwrap().0);
            while let Some(request) = results.get(asked.len()).and_then(|_| request(&mut connection)) {
                let (id, result) = (&request["id"], &results[asked.len()]);
                let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                connection.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
                asked.push(request);
            }
        }
        asked
    };
    (url, thread::spawn(serve))
}

/// The next request of a connection; `None` at its end.
fn request(connection: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).ok()?;
        match line.trim_end().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None if line.is_empty() => return None,
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    Some(serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_cut_is_told_to_both_sides() {
    let (_home, folder, mut children) = sleepers(4);
    let identity = |number: u8| B256::with_last_byte(number);
    let expected: [&[u8]; 4] = [&[2, 3], &[2, 3], &[0, 1], &[0, 1]];
    for (heal, method, did) in [(false, "admin_block", "cut"), (true, "admin_unblock", "healed")] {
        let (urls, servers): (Vec<_>, Vec<_>) = (0..4).map(|_| answering(vec!["true".to_owned(); 2])).unzip();
        let name = |network: &mut Network| {
            for ((number, node), url) in (0..).zip(&mut network.nodes).zip(&urls) {
                (node.identity, node.admin) = (identity(number), url.clone());
            }
            Ok(())
        };
        folder.edit(name).unwrap();
        let done = control::partition(&folder, &[2, 3], heal).unwrap();
        assert_eq!(
            done.iter().map(|done| (done.node, done.did)).collect::<Vec<_>>(),
            [0, 1, 2, 3].map(|node| (node, did))
        );
        for (server, beyond) in servers.into_iter().zip(expected) {
            let asked = server.join().unwrap();
            assert!(asked.iter().all(|request| request["method"] == method), "{asked:?}");
            let told: Vec<_> = asked.iter().map(|request| request["params"].clone()).collect();
            assert_eq!(told, beyond.iter().map(|number| json!([identity(*number)])).collect::<Vec<_>>());
        }
    }
    assert_eq!(said(control::partition(&folder, &[4], false)), "there is no node 4: this network has 0 to 3");
    control::kill(&folder, &[0, 1, 2, 3]).unwrap();
    for child in &mut children {
        child.wait().unwrap();
    }
}

/// Each look is one request to each node that has a process.
#[test]
fn the_table_shows_what_nodes_answer() {
    let (_home, folder, mut children) = sleepers(2);
    let answer = |transactions: &str| {
        format!(
            r#"{{"height":"0x7","epoch":"0x0","slot":"0x9","peers":"0x1","validator":true,"finality":null,
                "transactions":"{transactions}"}}"#
        )
    };
    let (url, server) = answering(vec![answer("0x10"), answer("0x30")]);
    folder.edit(|network| network.node(0).map(|node| node.rpc.clone_from(&url))).unwrap();
    let network = folder.read().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut watched = Vec::new();
    runtime.block_on(watch::look(&network, &mut watched));
    runtime.block_on(watch::look(&network, &mut watched));
    let asked = server.join().unwrap();
    assert!(asked.iter().all(|request| request["method"] == "sluice_status" && request["params"] == json!([])));
    let rows: Vec<_> = network.nodes.iter().zip(&watched).map(|(node, watched)| watched.row(node)).collect();
    assert_eq!((rows[0].state, rows[0].height, rows[0].slot, rows[0].peers), ("up", Some(7), Some(9), Some(1)));
    assert!(rows[0].rate.is_some_and(|rate| rate > 0.0) && rows[0].finality_p50.is_none());
    // Nobody listens there.
    assert_eq!((rows[1].state, rows[1].height), ("starting", None));
    let summary = serde_json::to_value(watched[0].summary(&network.nodes[0], 2.0)).unwrap();
    assert_eq!((&summary["transactions"], &summary["transactions_per_second"]), (&json!(0x20), &json!(16.0)));

    control::kill(&folder, &[0, 1]).unwrap();
    let network = folder.read().unwrap();
    runtime.block_on(watch::look(&network, &mut watched));
    assert!(network.nodes.iter().zip(&watched).all(|(node, watched)| watched.row(node).state == "down"));
    for child in &mut children {
        child.wait().unwrap();
    }
}

/// A node that does not answer is named, and the others have been told.
#[test]
fn a_cut_that_nobody_hears_of_fails_by_name() {
    let (_home, folder, mut children) = sleepers(2);
    let said = said(control::partition(&folder, &[1], false));
    assert!(said.starts_with("node 0 (sleeper-0) at http://127.0.0.1:4: admin_block 0x00"), "{said}");
    control::kill(&folder, &[0, 1]).unwrap();
    for child in &mut children {
        child.wait().unwrap();
    }
}

#[test]
fn a_node_that_ends_at_once_ends_the_run() {
    let (_home, folder, mut network) = made("--validators 1 --base-port 0");
    let log = folder.dir.join("log");
    network.nodes = vec![node("sleeper-0"), node("sleeper-1")];
    network.nodes[1].arguments = vec!["no time".to_owned()];
    network.nodes[1].log = log;
    folder.write(&network).unwrap();
    let options = Options { quiet: true, seconds: Some(600) };
    let said = said(supervise::run(&folder, "/bin/sleep".as_ref(), options));
    assert!(said.starts_with("node 1 (sleeper-1) ended by itself; its log ends with\n"), "{said}");
    assert!(said.contains("no time"), "{said}");
    assert_eq!(folder.read().unwrap().nodes.iter().filter(|node| node.process.is_some()).count(), 1);
    let left = folder.read().unwrap().nodes.into_iter().filter_map(|node| node.process);
    assert_eq!(left.filter(Process::is_alive).count(), 0, "nothing is left running");
}
