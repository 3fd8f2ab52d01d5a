//! A JWK set that is fetched from a URL, and fetched again when a token names a key that is not in
//! it. Made-up key names cannot raise the rate of fetches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::KeyError;
use super::http_client::{FetchError, HttpClient};
use super::keys::{Algorithm, KeySet};
use crate::domain::{Code, Refusal};

/// The shortest time between the starts of two fetches, so that a client that makes up key names
/// cannot cause more of them.
const MIN_INTERVAL: Duration = Duration::from_secs(30);
/// A set of this age is fetched again in the background while it stays in use, so that a withdrawn
/// key stops being valid.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The largest response, in bytes.
const MAX_BYTES: usize = 256 * 1024;

type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<Bytes, FetchError>> + Send + Sync>;

pub(super) struct Jwks {
    fetch: Fetch,
    algorithms: Vec<Algorithm>,
    /// The last valid set. A failed fetch does not replace it.
    current: RwLock<Arc<KeySet>>,
    /// Locked during a fetch, so that all callers that wait for the lock share its result.
    last_fetch: tokio::sync::Mutex<Option<Fetched>>,
}

struct Fetched {
    started: Instant,
    /// When it ended, if it succeeded.
    succeeded: Option<Instant>,
}

impl Jwks {
    pub fn from_url(uri: http::Uri, algorithms: Vec<Algorithm>) -> Result<Arc<Self>, KeyError> {
        let client = Arc::new(HttpClient::new(&uri, TIMEOUT, MAX_BYTES)?);
        let fetch = Box::new(move || {
            let client = client.clone();
            let uri = uri.clone();
            Box::pin(async move { client.get(&uri).await }) as BoxFuture<'static, _>
        });
        Ok(Self::new(fetch, algorithms))
    }

    fn new(fetch: Fetch, algorithms: Vec<Algorithm>) -> Arc<Self> {
        Arc::new(Self {
            fetch,
            algorithms,
            current: RwLock::default(),
            last_fetch: tokio::sync::Mutex::default(),
        })
    }

    /// The current set, which is empty until a fetch has succeeded.
    pub fn current(&self) -> Arc<KeySet> {
        self.current.read().clone()
    }

    /// Starts a fetch in the background if the set is old. Must be called within a tokio runtime.
    pub fn refresh_if_old(self: &Arc<Self>) {
        // If it is locked, a fetch is under way.
        let Ok(last_fetch) = self.last_fetch.try_lock() else {
            return;
        };
        let is_old = last_fetch
            .as_ref()
            .is_some_and(|fetch| fetch.started.elapsed() >= MAX_AGE);
        drop(last_fetch);
        if is_old {
            let this = self.clone();
            tokio::spawn(async move { this.fetch_newer().await.map(drop) });
        }
    }

    /// Returns a set that was fetched after the call. Concurrent callers share one fetch.
    ///
    /// # Errors
    /// `unavailable` if it cannot be fetched now. Then nothing is known about the token, and the
    /// client should retry.
    pub async fn fetch_newer(&self) -> Result<Arc<KeySet>, Refusal> {
        let called = Instant::now();
        let mut last_fetch = self.last_fetch.lock().await;
        if let Some(fetch) = &*last_fetch {
            if fetch.succeeded.is_some_and(|at| at > called) {
                return Ok(self.current());
            }
            let elapsed = fetch.started.elapsed();
            if elapsed < MIN_INTERVAL {
                return Err(key_unavailable(MIN_INTERVAL.saturating_sub(elapsed)));
            }
        }
        // Stored before the fetch, so that a fetch counts even if its caller is dropped half-way.
        let fetch = last_fetch.insert(Fetched {
            started: Instant::now(),
            succeeded: None,
        });
        let set = match (self.fetch)().await {
            Ok(json) => KeySet::jwks(&json, &self.algorithms).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match set {
            Ok(set) => {
                fetch.succeeded = Some(Instant::now());
                let set = Arc::new(set);
                *self.current.write() = set.clone();
                Ok(set)
            }
            Err(error) => {
                tracing::warn!(
                    error,
                    "the JWK set could not be fetched; the last valid set stays in force"
                );
                Err(key_unavailable(MIN_INTERVAL))
            }
        }
    }
}

fn key_unavailable(wait: Duration) -> Refusal {
    Refusal::new(Code::Unavailable, "the token's key can't be looked up now").retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwaaPJHURo8","kid":"a"}]}"#;

    /// A set from a server that sends these responses one after another, each after a second. Also
    /// returns the number of requests that the server received.
    fn jwks(
        responses: &'static [Result<&'static str, FetchError>],
    ) -> (Arc<Jwks>, Arc<AtomicUsize>) {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let fetch = Box::new(move || {
            let response = responses[count.fetch_add(1, Ordering::SeqCst)].clone();
            let response = async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                response.map(Bytes::from)
            };
            Box::pin(response) as BoxFuture<'static, _>
        });
        (Jwks::new(fetch, vec![Algorithm::EdDsa]), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_fetch() {
        let (jwks, requests) = jwks(&[Ok(SET)]);
        let all = futures_util::future::join_all((0..100).map(|_| jwks.fetch_newer())).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_is_fetched_at_most_once_in_thirty_seconds() {
        let (jwks, requests) = jwks(&[Ok(SET), Ok(SET)]);
        assert!(jwks.fetch_newer().await.is_ok());
        let refusal = jwks.fetch_newer().await.err().unwrap();
        assert_eq!(
            (refusal.code, refusal.retry_after),
            (Code::Unavailable, Some(Duration::from_secs(29)))
        );
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(jwks.fetch_newer().await.is_ok());
        assert_eq!(requests.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_whose_caller_was_dropped_counts() {
        let (jwks, requests) = jwks(&[Ok(SET)]);
        let dropped = tokio::time::timeout(Duration::from_millis(500), jwks.fetch_newer()).await;
        assert!(dropped.is_err() && jwks.fetch_newer().await.is_err());
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_valid_set_stays_in_force() {
        let (jwks, _) = jwks(&[
            Ok(SET),
            Err(FetchError::Unreachable),
            Ok("nonsense"),
            Ok(r#"{"keys":[]}"#),
        ]);
        assert!(jwks.fetch_newer().await.is_ok());
        for _ in 0..3 {
            tokio::time::advance(MIN_INTERVAL).await;
            assert_eq!(
                jwks.fetch_newer().await.err().unwrap().code,
                Code::Unavailable
            );
            let current = jwks.current();
            assert!(matches!(
                current.find(Algorithm::EdDsa, Some("a")),
                super::super::keys::Lookup::Keys(_)
            ));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_set_is_fetched_again_in_the_background() {
        let (jwks, requests) = jwks(&[Ok(SET), Ok(SET)]);
        assert!(jwks.fetch_newer().await.is_ok());
        jwks.refresh_if_old();
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(requests.load(Ordering::SeqCst), 1);
        jwks.refresh_if_old();
        jwks.refresh_if_old();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(requests.load(Ordering::SeqCst), 2);
    }
}
