//! A node on loopback, and raw clients that may misbehave.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alloy_consensus::{Header, Sealable as _, Sealed, SignableTransaction as _, Transaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, Log, LogData, TxKind, U256, address, hex};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use engine::{
    admission::PoolLimits,
    crypto::bls::{BlsScheme, SecretKey},
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    ordering::event::Identity,
    pipeline::{Config, Node, Ports},
    ports::{BuildSettings, BuildTime, CallError, Candidates, ExecutionError, Executor, Recovered, StateView},
    query::{AccessListOutcome, CallOutcome, CallRequest, CallResult},
    testing::{MemoryJournal, MemoryStore, ToyExecutor},
    types::{Block, BuiltBlock, Envelope, ExecutedBlock},
};
use net::{
    Solitary,
    rpc::{DevAccounts, RpcConfig, RpcNode, RpcServer, serve},
    rpc_client::{ClientError, RpcClient},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Chain id of every test chain.
pub(crate) const CHAIN_ID: u64 = 31_337;

/// An account with code and a slot.
pub(crate) const CONTRACT: Address = address!("00000000000000000000000000000000000000cc");

/// The toy with calls and logs: what a call does is told by the first byte of its input, and a
/// transaction with input emits one log that carries it.
struct Puppet(ToyExecutor);

fn outcome(result: CallResult, output: Bytes) -> CallOutcome {
    CallOutcome { result, output, gas_used: 21_000, logs: Vec::new() }
}

/// `Error("no")`.
pub(crate) fn revert_data() -> Bytes {
    let mut data = hex!("08c379a0").to_vec();
    for word in [U256::from(32), U256::from(2)] {
        data.extend(word.to_be_bytes::<32>());
    }
    data.extend(*b"no");
    data.extend([0; 30]);
    data.into()
}

impl Executor for Puppet {
    fn build(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        settings: &BuildSettings,
        candidates: &mut dyn Candidates,
        time: &BuildTime<'_>,
    ) -> Result<BuiltBlock, ExecutionError> {
        let BuiltBlock(built) = self.0.build(view, parent, settings, candidates, time)?;
        let mut receipts = Vec::clone(&built.receipts);
        for (receipt, signed) in receipts.iter_mut().zip(&built.block.body.transactions) {
            let input = signed.envelope().input();
            if let Some(first) = input.first() {
                let data = LogData::new_unchecked(vec![B256::repeat_byte(*first)], input.clone());
                receipt.logs.push(Log { address: signed.envelope().to().unwrap_or_default(), data });
            }
        }
        let logs_bloom = alloy_primitives::logs_bloom(receipts.iter().flat_map(|receipt| &receipt.logs));
        let header = Header { logs_bloom, ..built.block.header.inner().clone() }.seal_slow();
        let mut consensus = built.block.consensus.clone();
        consensus.block_hash = header.seal();
        let block = Arc::new(Block { consensus, header, body: built.block.body.clone() });
        Ok(BuiltBlock(ExecutedBlock { block, receipts: Arc::new(receipts), ..built }))
    }

    fn execute(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
    ) -> Result<ExecutedBlock, ExecutionError> {
        self.0.execute(view, parent, block)
    }

    fn call(&self, _: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<CallOutcome, CallError> {
        match request.input.first() {
            Some(2) => Ok(outcome(CallResult::Revert, revert_data())),
            Some(3) => loop {
                if cancel.load(Ordering::Relaxed) {
                    return Err(CallError::Cancelled);
                }
                std::thread::yield_now();
            },
            Some(4) => Ok(outcome(CallResult::Halt("out of gas".to_owned()), Bytes::new())),
            Some(5) => panic!("a fault in the executor"),
            Some(6) => Ok(outcome(CallResult::Success, vec![0; 100_000].into())),
            Some(7) => Ok(outcome(CallResult::Success, request.block.header.number.to_be_bytes().to_vec().into())),
            _ => Ok(outcome(CallResult::Success, request.input.clone())),
        }
    }

    fn estimate_gas(&self, view: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<u64, CallError> {
        let outcome = self.call(view, request, cancel)?;
        if outcome.result == CallResult::Success { Ok(25_000) } else { Err(CallError::Failed(Box::new(outcome))) }
    }

    fn access_list(
        &self,
        _: &dyn StateView,
        request: &CallRequest,
        _: &AtomicBool,
    ) -> Result<AccessListOutcome, CallError> {
        Ok(AccessListOutcome { access_list: request.access_list.clone(), gas_used: 21_000, error: None })
    }
}

/// A running node and its server.
pub(crate) struct World {
    /// Stops the stages when it is dropped.
    _node: Node,
    pub(crate) server: RpcServer,
    pub(crate) client: RpcClient,
    pub(crate) signer: PrivateKeySigner,
}

/// A configuration that opens both doors on free ports.
pub(crate) fn open() -> RpcConfig {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    RpcConfig { http: Some(any), ws: Some(any), txpool: true, ..RpcConfig::default() }
}

/// A node with the well-known accounts, serving as told.
pub(crate) async fn world(config: RpcConfig) -> World {
    let dev = DevAccounts::well_known();
    let (_, key) = dev.keys().next().unwrap();
    let node = node(dev.addresses());
    let server = serve(config, rpc_node(&node, Some(dev))).await.unwrap();
    let address = server.http_addr().or_else(|| server.ws_addr()).unwrap();
    let client = RpcClient::new(&format!("http://{address}")).unwrap();
    World { _node: node, server, client, signer: PrivateKeySigner::from_bytes(&key).unwrap() }
}

/// What the server is given.
pub(crate) fn rpc_node(node: &Node, dev: Option<DevAccounts>) -> RpcNode {
    RpcNode {
        query: node.query.clone(),
        admission: node.admission.clone(),
        events: node.events.clone(),
        network: Arc::new(Solitary),
        transport: None,
        dev,
    }
}

/// A pipeline that makes a block whenever there is a transaction.
pub(crate) fn node(funded: &[Address]) -> Node {
    let rich = || GenesisAccount { balance: U256::from(10).pow(U256::from(22)), ..GenesisAccount::default() };
    let mut alloc: BTreeMap<_, _> = funded.iter().map(|address| (*address, rich())).collect();
    let storage = BTreeMap::from([(U256::from(1), U256::from(0x2a))]);
    let code = Bytes::from_static(&[0x60, 0x00]);
    alloc.insert(CONTRACT, GenesisAccount { nonce: 1, code, storage, ..GenesisAccount::default() });
    let chain = ChainSpec {
        chain_id: CHAIN_ID,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::SLUICE,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header: Header {
            gas_limit: 300_000_000,
            base_fee_per_gas: Some(10_000_000),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            ..Header::default()
        },
        alloc,
    };
    let store = Arc::new(MemoryStore::new(Arc::new(chain)));
    let config = Config {
        slot_time: Duration::ZERO,
        build_time: Duration::from_secs(1),
        idle_interval: None,
        identity: Some(Identity::new(SecretKey::development())),
        scheme: Arc::new(BlsScheme),
        beneficiary: Address::ZERO,
        extra_data: Bytes::new(),
        admission_workers: 2,
        pool: PoolLimits::default(),
        hint_percent: 0,
        give_way: || {},
    };
    let ports = Ports {
        store,
        journal: Arc::new(MemoryJournal::default()),
        executor: Arc::new(Puppet(ToyExecutor::default())),
        network: Arc::new(Solitary),
    };
    Node::start(config, ports, Recovered::default()).unwrap()
}

impl World {
    /// A signed transaction to the contract.
    pub(crate) fn signed(&self, nonce: u64, input: &[u8]) -> Bytes {
        let transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            // The floor of EIP-7623 is 40 gas for a byte that is not zero.
            gas_limit: 1_000_000 + 40 * u64::try_from(input.len()).unwrap(),
            max_fee_per_gas: 1_000_000_000,
            max_priority_fee_per_gas: 1_000_000,
            to: TxKind::Call(CONTRACT),
            value: U256::from(7),
            input: Bytes::copy_from_slice(input),
            ..TxEip1559::default()
        };
        let signature = self.signer.sign_hash_sync(&transaction.signature_hash()).unwrap();
        Envelope::from(transaction.into_signed(signature)).encoded_2718().into()
    }

    /// Sends a transaction and gives its receipt.
    pub(crate) async fn include(&self, nonce: u64, input: &[u8]) -> Value {
        self.call("eth_sendRawTransactionSync", json!([self.signed(nonce, input)])).await
    }

    /// Calls a method that must answer.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        self.client
            .call(method, &params)
            .await
            .unwrap_or_else(|error| panic!("{method} {:.200}: {error}", params.to_string()))
    }

    /// Calls a method that must refuse.
    pub(crate) async fn refusal(&self, method: &str, params: Value) -> (i64, String, Option<Value>) {
        match self.client.call::<Value>(method, &params).await {
            Err(ClientError::Call { code, message, data }) => (code, message, data),
            other => panic!("{method} {:.200}: {other:?}", params.to_string()),
        }
    }

    /// One HTTP request as raw text; the status and the body.
    pub(crate) async fn post(&self, headers: &str, body: &[u8]) -> (u16, String) {
        http(self.server.http_addr().unwrap(), "POST", headers, body).await
    }
}

/// One HTTP exchange; the connection is closed after it.
pub(crate) async fn http(address: SocketAddr, verb: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let (status, head, body) = http_with_head(address, verb, headers, body).await;
    drop(head);
    (status, body)
}

/// One HTTP exchange with the head of the answer.
pub(crate) async fn http_with_head(
    address: SocketAddr,
    verb: &str,
    headers: &str,
    body: &[u8],
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{verb} / HTTP/1.1\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head.to_lowercase(), body.to_owned())
}

/// A WebSocket client that does only what it is told.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    next_id: u64,
    /// Notifications that came while an answer was awaited.
    news: Vec<Value>,
}

impl Socket {
    /// Connects; `headers` are sent with the upgrade. The status if it was refused.
    pub(crate) async fn open(address: SocketAddr, headers: &str) -> Result<Self, u16> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(|_| 0_u16)?);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 101 {
            return Err(status);
        }
        Ok(Self { stream, buffer: Vec::new(), next_id: 1, news: Vec::new() })
    }

    /// Sends one text message, masked with zeros.
    pub(crate) async fn send(&mut self, text: &str) {
        let length = text.len();
        let mut frame = vec![0x81];
        match length {
            0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next text message; `None` once the server has closed.
    pub(crate) async fn receive(&mut self) -> Option<Value> {
        loop {
            if let Some((opcode, payload)) = self.frame() {
                match opcode {
                    1 => return Some(serde_json::from_slice(&payload).unwrap()),
                    8 => return None,
                    _ => continue,
                }
            }
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.buffer.first()?, *self.buffer.get(1)?);
        let (length, start) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap())), 4),
            127 => (usize::try_from(u64::from_be_bytes(self.buffer.get(2..10)?.try_into().unwrap())).unwrap(), 10),
            short => (usize::from(short), 2),
        };
        let payload = self.buffer.get(start..start + length)?.to_vec();
        self.buffer.drain(..start + length);
        Some((first & 0x0f, payload))
    }

    /// Calls a method and gives the whole answer.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
        loop {
            let message = self.receive().await.expect("the server is there");
            if message["id"] == id {
                return message;
            }
            self.news.push(message);
        }
    }

    /// The next notification of a subscription.
    pub(crate) async fn notified(&mut self, subscription: &Value) -> Value {
        loop {
            let place = self.news.iter().position(|message| message["params"]["subscription"] == *subscription);
            if let Some(place) = place {
                return self.news.remove(place)["params"]["result"].take();
            }
            let message = self.receive().await.expect("the server is there");
            self.news.push(message);
        }
    }
}
