//! A blocking JSON-RPC client for tests.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Talks to one HTTP endpoint.
#[derive(Debug)]
pub struct Rpc {
    url: String,
    client: reqwest::Client,
    runtime: Runtime,
}

/// An error object of JSON-RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// Code.
    pub code: i64,
    /// Message.
    pub message: String,
    /// Data, null if absent.
    pub data: Value,
}

impl Rpc {
    /// A client of `url`.
    ///
    /// # Panics
    /// If the machine cannot start a runtime.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        Self { url: url.to_owned(), client, runtime }
    }

    /// Where the node answers.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Posts a body as it is and returns status and text; `None` if the connection broke.
    #[must_use]
    pub fn post(&self, body: impl Into<reqwest::Body>) -> Option<(u16, String)> {
        self.post_with(body, &[])
    }

    /// Gets the page; `None` if the connection broke.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.runtime.block_on(async { self.client.get(&self.url).send().await.ok()?.text().await.ok() })
    }

    /// A number of a page of metrics, if it is there.
    ///
    /// # Panics
    /// If the connection broke.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get().expect("it answers");
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Posts a body with extra headers.
    #[must_use]
    pub fn post_with(&self, body: impl Into<reqwest::Body>, headers: &[(&str, &str)]) -> Option<(u16, String)> {
        let mut request = self.client.post(&self.url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            Some((status, response.text().await.ok()?))
        })
    }

    /// Calls a method; `None` if the connection broke.
    #[must_use]
    pub fn try_call(&self, method: &str, params: &Value) -> Option<Result<Value, RpcError>> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let (_, text) = self.post(body)?;
        let mut answer: Value = serde_json::from_str(&text).ok()?;
        if let Some(error) = answer.get("error") {
            return Some(Err(RpcError {
                code: error["code"].as_i64().unwrap_or_default(),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
                data: error["data"].clone(),
            }));
        }
        Some(Ok(answer["result"].take()))
    }

    /// Calls a method that must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn call(&self, method: &str, params: Value) -> Value {
        match self.try_call(method, &params) {
            Some(Ok(value)) => value,
            Some(Err(error)) => panic!("{method} {params}: {error:?}"),
            None => panic!("{method} {params}: the connection broke"),
        }
    }

    /// Calls a method that must be refused.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn refusal(&self, method: &str, params: Value) -> RpcError {
        match self.try_call(method, &params) {
            Some(Err(error)) => error,
            other => panic!("{method} {params} should have been refused: {other:?}"),
        }
    }
}

/// Reads a quantity of JSON-RPC.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no quantity"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{value} is no quantity"))
}
