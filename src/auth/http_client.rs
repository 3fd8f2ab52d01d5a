//! The HTTP client for requests to other servers, with limits on time and size. It never follows a
//! redirect.

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

/// Why a request failed. It contains no part of the URL, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the server did not respond in time")]
    Timeout,
    #[error("the server can't be reached")]
    Unreachable,
    #[error("the server responded with {0}")]
    Status(StatusCode),
    #[error("the response is too large or was cut off")]
    Body,
}

/// A client for one server.
pub(super) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    max_bytes: usize,
}

impl HttpClient {
    /// Supports `http` and `https`, with the root certificates of the system. A response must
    /// arrive completely within `timeout`, with a body of at most `max_bytes`.
    ///
    /// # Errors
    /// [`KeyError::NoRoots`].
    pub fn new(uri: &Uri, timeout: Duration, max_bytes: usize) -> Result<Self, KeyError> {
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let connector = if uri.scheme_str() == Some("https") {
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
        self.send(Request::get(uri.clone()), Bytes::new()).await
    }

    /// `authorization` is the complete value of the header.
    pub async fn post(
        &self,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
        json: Vec<u8>,
    ) -> Result<Bytes, FetchError> {
        let mut request = Request::post(uri.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        self.send(request, json.into()).await
    }

    /// Every status except 2xx is an error, redirects included: only the configuration determines
    /// the servers that a node sends requests to.
    async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Bytes, FetchError> {
        let request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("hubbub/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|_| FetchError::Unreachable)?;
        let response = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|_| FetchError::Unreachable)?;
            if !response.status().is_success() {
                return Err(FetchError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), self.max_bytes)
                .collect()
                .await;
            Ok(body.map_err(|_| FetchError::Body)?.to_bytes())
        };
        tokio::time::timeout(self.timeout, response)
            .await
            .map_err(|_| FetchError::Timeout)?
    }
}
