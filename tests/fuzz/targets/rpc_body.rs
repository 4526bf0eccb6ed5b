//! Bodies of JSON-RPC requests against a real server on loopback: always an answer, never a panic.

#![no_main]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, LazyLock},
    time::Duration,
};

use engine::{
    admission::PoolLimits,
    crypto::bls::{BlsScheme, SecretKey},
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, OrderingParams},
    ordering::event::Identity,
    pipeline::{Config, Node, Ports},
    ports::Recovered,
    testing::{MemoryJournal, MemoryStore, ToyExecutor},
};
use libfuzzer_sys::fuzz_target;
use net::rpc::{DevAccounts, RpcConfig, RpcNode, RpcServer};

struct Server {
    _runtime: tokio::runtime::Runtime,
    _node: Node,
    server: RpcServer,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let chain = ChainSpec {
        chain_id: 31_337,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::SLUICE,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header: alloy_consensus::Header { gas_limit: 30_000_000, ..Default::default() },
        alloc: BTreeMap::new(),
    };
    let config = Config {
        slot_time: Duration::ZERO,
        build_time: Duration::from_millis(200),
        idle_interval: None,
        identity: Some(Identity::new(SecretKey::development())),
        scheme: Arc::new(BlsScheme),
        beneficiary: Default::default(),
        extra_data: Default::default(),
        admission_workers: 1,
        pool: PoolLimits::default(),
        hint_percent: 0,
        give_way: || {},
    };
    let network: Arc<net::Solitary> = Arc::new(net::Solitary);
    let store = Arc::new(MemoryStore::new(Arc::new(chain)));
    let ports = Ports {
        store,
        journal: Arc::new(MemoryJournal::default()),
        executor: Arc::new(ToyExecutor::default()),
        network: network.clone(),
    };
    let node = Node::start(config, ports, Recovered::default()).expect("it starts");
    let rpc_node = RpcNode {
        query: node.query.clone(),
        admission: node.admission.clone(),
        events: node.events.clone(),
        network,
        transport: None,
        dev: Some(DevAccounts::well_known()),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("it starts");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = RpcConfig { http: Some(address), txpool: true, ..RpcConfig::default() };
    let server = runtime.block_on(net::rpc::serve(config, rpc_node)).expect("it serves");
    Server { _runtime: runtime, _node: node, server }
});

thread_local! {
    static SOCKET: RefCell<Option<BufReader<TcpStream>>> = const { RefCell::new(None) };
}

/// Posts one body over a kept connection; `None` if the server closed it.
fn post(body: &[u8]) -> Option<Vec<u8>> {
    SOCKET.with_borrow_mut(|socket| {
        let address = SERVER.server.http_addr().expect("HTTP is on");
        if socket.is_none() {
            let fresh = TcpStream::connect(address).expect("it listens");
            fresh.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            fresh.set_nodelay(true).expect("a socket");
            *socket = Some(BufReader::new(fresh));
        }
        let stream = socket.as_mut()?;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = (|| {
            stream.get_mut().write_all(&[head.as_bytes(), body].concat()).ok()?;
            let mut length = 0;
            loop {
                let mut line = String::new();
                (stream.read_line(&mut line).ok()? > 0).then_some(())?;
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut answer = vec![0; length];
            stream.read_exact(&mut answer).ok()?;
            Some(answer)
        })();
        if answer.is_none() {
            *socket = None;
        }
        answer
    })
}

fuzz_target!(|data: &[u8]| {
    if let Some(answer) = post(data)
        && !answer.is_empty()
    {
        // A notification has no answer; everything else is JSON, or plain words of the HTTP layer.
        let text = String::from_utf8(answer).expect("answers are text");
        assert!(!text.contains("panicked"), "{text}");
    }
    let alive = post(br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#);
    let alive = alive.or_else(|| post(br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#));
    assert!(alive.is_some_and(|text| text.ends_with(br#""result":"0x7a69"}"#)), "the server is gone");
});
