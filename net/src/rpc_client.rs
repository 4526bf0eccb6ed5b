//! A small JSON-RPC client over HTTP: what `sluice load` and tests ask a node with.
//!
//! Connections are kept and shared by all clones. One call or one batch is one HTTP request.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

/// Longest wait for an answer; above that of `eth_sendRawTransactionSync`.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

/// Why a call gave no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The node answered with an error.
    #[error("{message} (code {code})")]
    Call {
        /// JSON-RPC error code.
        code: i64,
        /// What the node said.
        message: String,
        /// What it attached.
        data: Option<Value>,
    },
    /// The node was not reached, or hung up.
    #[error("{0}")]
    Transport(String),
    /// The node answered with an HTTP status that carries no JSON-RPC.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The answer is not what was asked for.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

impl ClientError {
    /// The JSON-RPC error code, if the node answered with one.
    #[must_use]
    pub const fn code(&self) -> Option<i64> {
        match self {
            Self::Call { code, .. } => Some(*code),
            Self::Transport(_) | Self::Status(_) | Self::Answer(_) => None,
        }
    }
}

/// A client of one node; cheap to clone.
#[derive(Clone, Debug)]
pub struct RpcClient {
    http: reqwest::Client,
    url: Arc<str>,
    next_id: Arc<AtomicU64>,
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: P,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    message: String,
    #[serde(default)]
    data: Option<Value>,
}

impl RpcClient {
    /// A client for the node at `url`, such as `http://127.0.0.1:8545`; connects when it is used.
    ///
    /// # Errors
    /// The URL is none, or the system lets no client be made.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let parsed = reqwest::Url::parse(url).map_err(|error| ClientError::Transport(format!("{url}: {error}")))?;
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(60))
            .timeout(ANSWER_TIME_MAX)
            .no_proxy()
            .build()
            .map_err(transport)?;
        Ok(Self { http, url: parsed.as_str().into(), next_id: Arc::new(AtomicU64::new(1)) })
    }

    /// Calls one method. `params` is what becomes the array: a tuple, a slice, a list of values.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<T, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = self.post(&Request { jsonrpc: "2.0", id, method, params }).await?;
        let response: Response =
            serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.to_string()))?;
        serde_json::from_str(result(response)?.get()).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Calls several methods in one request; results are in the order of the calls.
    pub async fn batch(&self, calls: Vec<(&str, Value)>) -> Vec<Result<Value, ClientError>> {
        let count = u64::try_from(calls.len()).unwrap_or(u64::MAX);
        let first = self.next_id.fetch_add(count, Ordering::Relaxed);
        let ids = first..first.saturating_add(count);
        let requests: Vec<_> = ids
            .clone()
            .zip(calls)
            .map(|(id, (method, params))| Request { jsonrpc: "2.0", id, method, params })
            .collect();
        if requests.is_empty() {
            return Vec::new();
        }
        match self.batch_answers(&requests).await {
            Ok(mut answers) => ids
                .map(|id| {
                    answers.remove(&id).unwrap_or_else(|| Err(ClientError::Answer("no answer to a call".to_owned())))
                })
                .collect(),
            Err(error) => ids.map(|_| Err(error.clone())).collect(),
        }
    }

    async fn batch_answers(
        &self,
        requests: &[Request<'_, Value>],
    ) -> Result<HashMap<u64, Result<Value, ClientError>>, ClientError> {
        let body = self.post(requests).await?;
        let wrong = |error: serde_json::Error| ClientError::Answer(error.to_string());
        // A batch that is refused as a whole is answered by one error.
        if body.trim_ascii_start().first() == Some(&b'{') {
            let refused = result(serde_json::from_slice(&body).map_err(wrong)?);
            return Err(refused.err().unwrap_or_else(|| ClientError::Answer("one result to many calls".to_owned())));
        }
        let responses: Vec<Response> = serde_json::from_slice(&body).map_err(wrong)?;
        let answer = |response| serde_json::from_str(result(response)?.get()).map_err(wrong);
        Ok(responses.into_iter().filter_map(|response| Some((response.id?, answer(response)))).collect())
    }

    async fn post(&self, body: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Answer(error.to_string()))?;
        let request = self.http.post(&*self.url).header("content-type", "application/json").body(body);
        let response = request.send().await.map_err(transport)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(transport)?;
        // An error of JSON-RPC may come with any status; without one the status is all there is.
        if !status.is_success() && bytes.first() != Some(&b'{') {
            return Err(ClientError::Status(status.as_u16()));
        }
        Ok(bytes.into())
    }
}

fn result(response: Response) -> Result<Box<RawValue>, ClientError> {
    match (response.error, response.result) {
        (Some(ErrorObject { code, message, data }), _) => Err(ClientError::Call { code, message, data }),
        (None, Some(result)) => Ok(result),
        // serde reads a result of null as none.
        (None, None) => Ok(RawValue::NULL.to_owned()),
    }
}

fn transport(error: reqwest::Error) -> ClientError {
    // The outer words say only that sending failed; the innermost say why.
    let mut source: &dyn std::error::Error = &error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    ClientError::Transport(source.to_string())
}
