//! temporary
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use crate::kit::{open, world, Socket};

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let _ = stat;
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path().join("schedstat");
        if let Ok(text) = std::fs::read_to_string(path) {
            total += text.split(' ').next().unwrap().parse::<f64>().unwrap();
        }
    }
    total / 1000.0
}

async fn pipelined(address: std::net::SocketAddr, body: &str, count: usize, marker: &str) -> f64 {
    let request = format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let all = request.repeat(count);
    let before = cpu();
    let writer = tokio::spawn(async move { write.write_all(all.as_bytes()).await.unwrap(); write });
    let mut seen = 0;
    let mut buffer = vec![0; 1 << 20];
    let m = marker.as_bytes();
    while seen < count {
        let n = read.read(&mut buffer).await.unwrap();
        assert!(n > 0);
        seen += buffer[..n].windows(m.len()).filter(|w| *w == m).count();
    }
    let after = cpu();
    drop(writer.await);
    after - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perf() {
    let world = world(open()).await;
    let address = world.server.http_addr().unwrap();
    let chain = json!({"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}).to_string();
    let raw = world.signed(9, &[1; 68]);
    world.call("eth_sendRawTransaction", json!([raw])).await;
    let send = json!({"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction","params":[raw]}).to_string();
    let batch: Vec<_> = (0..100).map(|i| json!({"jsonrpc":"2.0","id":i,"method":"eth_sendRawTransaction","params":[raw]})).collect();
    let batch = serde_json::to_string(&batch).unwrap();
    let balance = json!({"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":[crate::kit::CONTRACT]}).to_string();
    for _ in 0..3 {
        println!("chainId   {:.2} us", pipelined(address, &chain, 20000, "HTTP/1.1 200").await / 20000.0);
        println!("balance   {:.2} us", pipelined(address, &balance, 20000, "HTTP/1.1 200").await / 20000.0);
        println!("send      {:.2} us", pipelined(address, &send, 20000, "HTTP/1.1 200").await / 20000.0);
        println!("batch/100 {:.2} us per tx", pipelined(address, &batch, 200, "HTTP/1.1 200").await / 20000.0);
    }
    for (name, body) in [("chainId", &chain), ("balance", &balance), ("send", &send)] {
        let before = cpu();
        let start = std::time::Instant::now();
        let all: Vec<_> = (0..64).map(|_| { let body = body.clone(); tokio::spawn(async move { pipelined(address, &body, 500, "HTTP/1.1 200").await }) }).collect();
        for one in all { one.await.unwrap(); }
        println!("64 connections {name} {:.2} us cpu, {:.2} us wall", (cpu() - before) / 32000.0, start.elapsed().as_secs_f64() * 1e6 / 32000.0);
    }
    let mut socket = Socket::open(world.server.ws_addr().unwrap(), "").await.ok().unwrap();
    let before = cpu();
    for _ in 0..50 { for _ in 0..100 { socket.send(&send).await; } for _ in 0..100 { socket.receive().await.unwrap(); } }
    println!("ws send {:.2} us", (cpu() - before) / 5000.0);
}
