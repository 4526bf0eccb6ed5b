//! Beginning and end of the server.

use net::rpc::{RpcConfig, RpcError, serve};
use serde_json::json;
use tokio::net::TcpStream;

use crate::kit::{Socket, node, open, rpc_node, world};

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let node = node(&[]);
    let config = RpcConfig { http: Some(address), ..RpcConfig::default() };
    let error = serve(config, rpc_node(&node, None)).await.unwrap_err();
    assert!(matches!(error, RpcError::Listen { protocol: "HTTP", .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen on {address} for HTTP: Address already in use")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_what_is_open_and_frees_the_port() {
    let world = world(open()).await;
    let address = world.server.ws_addr().unwrap();
    let mut socket = Socket::open(address, "").await.ok().unwrap();
    let subscription = socket.call("eth_subscribe", json!(["newHeads"])).await;
    assert!(subscription["result"].is_string());
    let waiting = {
        let (client, raw) = (world.client.clone(), world.signed(0, &[]));
        tokio::spawn(async move { client.call::<serde_json::Value>("eth_sendRawTransactionSync", json!([raw])).await })
    };
    let receipt = waiting.await.unwrap().unwrap();
    assert_eq!(receipt["status"], "0x1");
    world.server.stop().await;
    while socket.receive().await.is_some() {}
    assert!(TcpStream::connect(address).await.is_err());
    drop(std::net::TcpListener::bind(address).unwrap());
}
