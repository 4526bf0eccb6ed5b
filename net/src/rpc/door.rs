//! Who may ask at all: host names, origins of browsers, and what a browser is told about itself.
//!
//! A page that a browser loaded from elsewhere can send requests to loopback. Three checks stop it:
//! the `Host` header must name an address, loopback or an allowed name (a rebound DNS name is none of
//! them); a WebSocket's `Origin`, which the browser's own rules do not guard, must be loopback or
//! allowed; and without CORS headers the browser keeps answers from the page. Programs send no
//! `Origin` and are not concerned.

use std::{
    future::ready,
    net::{Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::metrics::counter;
use jsonrpsee::{
    core::BoxError,
    server::{HttpBody, HttpRequest, HttpResponse, ws::is_upgrade_request},
};
use tower::{Layer, Service};

use super::connection::{Connection, NoAnswer, Transport};
use crate::metrics;

/// Which pages may read answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CorsPolicy {
    /// Those served from loopback under this node's eyes: none.
    #[default]
    None,
    /// All.
    Any,
}

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Pages.
    pub(super) cors: CorsPolicy,
    /// Host names besides loopback and addresses; `*` is all.
    pub(super) hosts: Vec<String>,
}

impl Rules {
    /// Whether a `Host` header may name this node. A missing one is fine: browsers always send it.
    fn admits_host(&self, header: Option<&str>) -> bool {
        let Some(host) = header.map(host_name).filter(|host| !host.is_empty()) else { return true };
        is_loopback_name(host)
            || host.parse::<Ipv4Addr>().is_ok()
            || host.parse::<Ipv6Addr>().is_ok()
            || self.hosts.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(host))
    }

    /// Whether a page of this origin may open a WebSocket.
    fn admits_origin(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let name = origin.split_once("://").map_or("", |(_, authority)| host_name(authority));
        self.cors == CorsPolicy::Any
            || is_loopback_name(name)
            || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
            || name.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
    }
}

fn is_loopback_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

/// The name in `name`, `name:port`, `[v6]` or `[v6]:port`.
fn host_name(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or("", |(name, _)| name);
    }
    match authority.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name,
        Some(_) => authority,
        None => authority,
    }
}

/// Puts a [`Door`] before a service.
#[derive(Clone, Debug)]
pub(super) struct DoorLayer {
    /// Who may ask.
    pub(super) rules: Arc<Rules>,
    /// The connection behind the door.
    pub(super) connection: Arc<Connection>,
}

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { inner, rules: Arc::clone(&self.rules), connection: Arc::clone(&self.connection) }
    }
}

/// Checks requests, marks them with their connection, and adds CORS headers to answers.
#[derive(Clone, Debug)]
pub(super) struct Door<S> {
    inner: S,
    rules: Arc<Rules>,
    connection: Arc<Connection>,
}

type Answer = Result<HttpResponse, BoxError>;

impl<S, B> Service<HttpRequest<B>> for Door<S>
where
    S: Service<HttpRequest<B>, Response = HttpResponse, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: HttpRequest<B>) -> Self::Future {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        // HTTP/2 has the host in the address instead.
        let host = header("host").or_else(|| request.uri().host());
        if !self.rules.admits_host(host) {
            return turned_away("host", "invalid host specified\n");
        }
        let upgrade = is_upgrade_request(&request);
        if upgrade && !self.rules.admits_origin(header("origin")) {
            return turned_away("origin", "origin not allowed\n");
        }
        if self.rules.cors == CorsPolicy::Any && request.method().as_str() == "OPTIONS" {
            return Box::pin(ready(Ok(with_cors(status(204, "")))));
        }
        let transport = if upgrade { Transport::WebSocket } else { Transport::Http };
        request.extensions_mut().insert(transport);
        request.extensions_mut().insert(Arc::clone(&self.connection));
        let answer = self.inner.call(request);
        let cors = self.rules.cors;
        Box::pin(async move {
            let mut response = answer.await?;
            if response.extensions().get::<NoAnswer>().is_some() {
                *response.body_mut() = HttpBody::empty();
            }
            Ok(if cors == CorsPolicy::Any { with_cors(response) } else { response })
        })
    }
}

fn turned_away(reason: &'static str, text: &'static str) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    counter!(metrics::RPC_TURNED_AWAY, "reason" => reason).increment(1);
    Box::pin(ready(Ok(status(403, text))))
}

fn status(code: u16, text: &'static str) -> HttpResponse {
    let mut response = HttpResponse::new(HttpBody::from(text));
    if let Ok(code) = code.try_into() {
        *response.status_mut() = code;
    }
    response
}

fn with_cors(mut response: HttpResponse) -> HttpResponse {
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "POST, GET, OPTIONS"),
        ("access-control-allow-headers", "*"),
        ("access-control-max-age", "600"),
    ] {
        if let Ok(value) = value.try_into() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_must_be_loopback_addresses_or_allowed_names() {
        let rules = Rules { hosts: vec!["node.example".to_owned()], ..Rules::default() };
        for host in [
            "localhost",
            "LocalHost:8545",
            "127.0.0.1",
            "127.0.0.1:8545",
            "[::1]:8545",
            "10.0.0.7:1",
            "node.example:80",
        ] {
            assert!(rules.admits_host(Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8545",
            "localhost.evil.example",
            "node.example.evil",
            "127.0.0.1.evil.example",
            "[evil]",
        ] {
            assert!(!rules.admits_host(Some(host)), "{host}");
        }
        assert!(rules.admits_host(None));
        let all = Rules { hosts: vec!["*".to_owned()], ..Rules::default() };
        assert!(all.admits_host(Some("evil.example")));
    }

    #[test]
    fn websocket_origins_must_be_loopback() {
        let rules = Rules::default();
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:80"] {
            assert!(rules.admits_origin(Some(origin)), "{origin}");
        }
        for origin in ["null", "https://evil.example", "http://localhost.evil.example", "http://10.0.0.7", "localhost"]
        {
            assert!(!rules.admits_origin(Some(origin)), "{origin}");
        }
        assert!(rules.admits_origin(None));
        let any = Rules { cors: CorsPolicy::Any, ..Rules::default() };
        assert!(any.admits_origin(Some("https://evil.example")));
    }
}
