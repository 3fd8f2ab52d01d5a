//! What this node asks of others over HTTP: bounded in time and size, and no redirect is ever followed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::KeyError;

/// Why there is no answer. It holds no part of the URL, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer in time")]
    TooSlow,
    #[error("it can't be reached")]
    Unreachable,
    #[error("it answered {0}")]
    OnlineStatus(StatusCode),
    #[error("its answer is too large or broke off")]
    Body,
}

/// A client for one server.
pub(super) struct Outgoing {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    max_bytes: usize,
}

impl Outgoing {
    /// For `http` and `https`; whom to trust is what the system trusts. An answer may take `timeout` in all, and its body
    /// have `max_bytes`.
    pub fn new(uri: &Uri, timeout: Duration, max_bytes: usize) -> Result<Self, KeyError> {
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let secure = uri.scheme_str() == Some("https");
        let connector = if secure {
            let no_roots = |error: std::io::Error| KeyError::NoRoots(error.to_string());
            builder
                .with_provider_and_native_roots(provider)
                .map_err(no_roots)?
                .https_only()
                .enable_http1()
                .build()
        } else {
            let config = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(|error| KeyError::NoRoots(error.to_string()))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder
                .with_tls_config(config)
                .https_or_http()
                .enable_http1()
                .build()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Ok(Self {
            client,
            timeout,
            max_bytes,
        })
    }

    pub async fn get(&self, uri: &Uri) -> Result<Bytes, FetchError> {
        self.ask(Request::get(uri.clone()), Bytes::new()).await
    }

    /// `bearer` is the whole value of the header.
    pub async fn post(
        &self,
        uri: &Uri,
        bearer: Option<&HeaderValue>,
        json: Vec<u8>,
    ) -> Result<Bytes, FetchError> {
        let mut request = Request::post(uri.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        self.ask(request, json.into()).await
    }

    /// Any status but 2xx is a fault, redirects among them: where one is sent to is nobody's but the configuration's to say.
    async fn ask(&self, request: http::request::Builder, body: Bytes) -> Result<Bytes, FetchError> {
        let request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("hubbub/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|_| FetchError::Unreachable)?;
        let answer = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|_| FetchError::Unreachable)?;
            if !answer.status().is_success() {
                return Err(FetchError::OnlineStatus(answer.status()));
            }
            let body = Limited::new(answer.into_body(), self.max_bytes)
                .collect()
                .await;
            Ok(body.map_err(|_| FetchError::Body)?.to_bytes())
        };
        tokio::time::timeout(self.timeout, answer)
            .await
            .map_err(|_| FetchError::TooSlow)?
    }
}
