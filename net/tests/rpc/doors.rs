//! Who gets in: hosts, origins, CORS, bodies, connections, defaults.

use net::rpc::{CorsPolicy, RpcConfig, serve};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::kit::{Socket, http_with_head, node, open, rpc_node, world};

const CALL: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn foreign_host_names_are_turned_away() {
    let mut config = open();
    config.hosts = vec!["node.example".to_owned()];
    let world = world(config).await;
    for (host, status) in [
        ("host: localhost:8545\r\n", 200),
        ("host: 127.0.0.1\r\n", 200),
        ("host: node.example\r\n", 200),
        ("host: evil.example\r\n", 403),
        ("host: localhost.evil.example\r\n", 403),
    ] {
        assert_eq!(world.post(host, CALL).await.0, status, "{host}");
    }
    let ws = world.server.ws_addr().unwrap();
    assert!(Socket::open(ws, "").await.is_ok());
    assert!(Socket::open(ws, "origin: http://localhost:3000\r\n").await.is_ok());
    assert_eq!(Socket::open(ws, "origin: https://evil.example\r\n").await.err(), Some(403));
    // The port for HTTP speaks nothing else, the one for WebSocket both.
    assert_eq!(Socket::open(world.server.http_addr().unwrap(), "").await.err(), Some(403));
    assert_eq!(http_with_head(ws, "POST", "host: localhost\r\n", CALL).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_nothing_unless_asked_for() {
    let headers = "host: localhost\r\norigin: https://app.example\r\naccess-control-request-method: POST\r\n";
    let closed = world(open()).await;
    let (_, head, _) = http_with_head(closed.server.http_addr().unwrap(), "OPTIONS", headers, b"").await;
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    let (_, head, _) = http_with_head(closed.server.http_addr().unwrap(), "POST", headers, CALL).await;
    assert!(!head.contains("access-control-allow-origin"), "{head}");

    let open = world(RpcConfig { cors: CorsPolicy::Any, ..open() }).await;
    let address = open.server.http_addr().unwrap();
    let (status, head, _) = http_with_head(address, "OPTIONS", headers, b"").await;
    assert_eq!(status, 204);
    assert!(head.contains("access-control-allow-origin: *") && head.contains("allow-headers: *"), "{head}");
    let (status, head, body) = http_with_head(address, "POST", headers, CALL).await;
    assert!(
        status == 200 && head.contains("access-control-allow-origin: *") && body.contains("0x7a69"),
        "{head} {body}"
    );
    assert!(Socket::open(open.server.ws_addr().unwrap(), "origin: https://app.example\r\n").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_and_must_be_json() {
    let mut config = open();
    config.limits.request_bytes_max = 10_000;
    let world = world(config).await;
    let large = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"web3_sha3","params":["0x{}"]}}"#, "0".repeat(10_000));
    let (status, body) = world.post("host: localhost\r\n", large.as_bytes()).await;
    assert!(status == 413 && body.contains("-32007"), "{status} {body}");
    let mut socket = Socket::open(world.server.ws_addr().unwrap(), "").await.ok().unwrap();
    socket.send(&large).await;
    assert_eq!(socket.receive().await.unwrap()["error"]["code"], -32007);
    let address = world.server.http_addr().unwrap();
    assert_eq!(http_with_head(address, "GET", "host: localhost\r\n", b"").await.0, 405);
    assert_eq!(world.post("host: localhost\r\ncontent-type: text/plain\r\n", CALL).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_room_for_so_many_connections() {
    let mut config = open();
    config.limits.connections_max = 2;
    let world = world(config).await;
    let ws = world.server.ws_addr().unwrap();
    let mut first = Socket::open(ws, "").await.ok().unwrap();
    let second = Socket::open(ws, "").await.ok().unwrap();
    let mut third = TcpStream::connect(ws).await.unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(first.call("eth_chainId", json!([])).await["result"], "0x7a69");
    drop(second);
    // The place is free as soon as the server has seen the end of the connection.
    while Socket::open(ws, "").await.is_err() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_nobody_is_served_and_little_is_shown() {
    let node = node(&[]);
    let server = serve(RpcConfig::default(), rpc_node(&node, None)).await.unwrap();
    assert_eq!((server.http_addr(), server.ws_addr()), (None, None));
    server.stop().await;

    let config = RpcConfig { txpool: false, ..open() };
    let server = serve(config, rpc_node(&node, None)).await.unwrap();
    let client = net::rpc_client::RpcClient::new(&format!("http://{}", server.http_addr().unwrap())).unwrap();
    for method in
        ["txpool_status", "txpool_content", "personal_sign", "eth_signTypedData_v4", "admin_peers", "debug_traceBlock"]
    {
        let error = client.call::<serde_json::Value>(method, json!([])).await.unwrap_err();
        assert_eq!(error.code(), Some(-32601), "{method}");
    }
    assert_eq!(client.call::<Vec<String>>("eth_accounts", json!([])).await.unwrap(), Vec::<String>::new());
    let params = json!([{"from": "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"}]);
    let error = client.call::<serde_json::Value>("eth_sendTransaction", params).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown account (code -32000)");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_can_speak_both() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = node(&[]);
    let config = RpcConfig { http: Some(free), ws: Some(free), ..RpcConfig::default() };
    let server = serve(config, rpc_node(&node, None)).await.unwrap();
    assert_eq!((server.http_addr(), server.ws_addr()), (Some(free), Some(free)));
    assert_eq!(http_with_head(free, "POST", "host: localhost\r\n", CALL).await.0, 200);
    assert!(Socket::open(free, "").await.is_ok());
}
