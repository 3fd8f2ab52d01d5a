//! A JWK set that is fetched: anew when a token names a key that isn't in it, but not at any stranger's pace.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::KeyError;
use super::keys::{Algorithm, KeySet};
use super::outgoing::{FetchError, Outgoing};
use crate::domain::{Code, Refusal};

/// Between the beginnings of two fetches at least: whoever makes up key names can't make this node ask more often.
const EVERY: Duration = Duration::from_secs(30);
/// A set so old is fetched anew beside its use, so that a key that was withdrawn ends.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The largest set.
const MAX_BYTES: usize = 256 * 1024;

type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<Bytes, FetchError>> + Send + Sync>;

pub(super) struct Jwks {
    fetch: Fetch,
    algorithms: Vec<Algorithm>,
    /// The last good set stays until there is a better one.
    current: RwLock<Arc<KeySet>>,
    /// Held while one fetches: so all who wait share what comes of it.
    last: tokio::sync::Mutex<Option<Attempt>>,
}

struct Attempt {
    begun: Instant,
    /// When it ended well.
    done: Option<Instant>,
}

impl Jwks {
    pub fn at(uri: http::Uri, algorithms: Vec<Algorithm>) -> Result<Arc<Self>, KeyError> {
        let outgoing = Arc::new(Outgoing::new(&uri, TIMEOUT, MAX_BYTES)?);
        let fetch = Box::new(move || {
            let (outgoing, uri) = (outgoing.clone(), uri.clone());
            Box::pin(async move { outgoing.get(&uri).await }) as BoxFuture<'static, _>
        });
        Ok(Self::new(fetch, algorithms))
    }

    fn new(fetch: Fetch, algorithms: Vec<Algorithm>) -> Arc<Self> {
        Arc::new(Self {
            fetch,
            algorithms,
            current: RwLock::default(),
            last: tokio::sync::Mutex::default(),
        })
    }

    /// The set at hand; empty until the first fetch went well.
    pub fn current(&self) -> Arc<KeySet> {
        self.current.read().clone()
    }

    /// Fetches beside what goes on if the set is old. Must be called within a tokio runtime.
    pub fn keep_fresh(self: &Arc<Self>) {
        // Held: someone fetches.
        let Ok(last) = self.last.try_lock() else {
            return;
        };
        let old = last
            .as_ref()
            .is_some_and(|last| last.begun.elapsed() >= MAX_AGE);
        drop(last);
        if old {
            let this = self.clone();
            tokio::spawn(async move { this.newer().await.map(drop) });
        }
    }

    /// A set that was fetched after the call.
    ///
    /// # Errors
    /// `unavailable` when that can't be had now: then nobody can tell whether the token is good, and the client shall try again.
    pub async fn newer(&self) -> Result<Arc<KeySet>, Refusal> {
        let asked = Instant::now();
        let unknown = |wait| {
            Refusal::new(Code::Unavailable, "the token's key can't be looked up now")
                .retry_after(wait)
        };
        let mut last = self.last.lock().await;
        if let Some(last) = &*last {
            if last.done.is_some_and(|done| done > asked) {
                return Ok(self.current());
            }
            let since = last.begun.elapsed();
            if since < EVERY {
                return Err(unknown(EVERY.saturating_sub(since)));
            }
        }
        // Written first: a caller that is gone half-way has asked, too.
        let attempt = last.insert(Attempt {
            begun: Instant::now(),
            done: None,
        });
        let set = match (self.fetch)().await {
            Ok(json) => KeySet::jwks(&json, &self.algorithms).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match set {
            Ok(set) => {
                attempt.done = Some(Instant::now());
                let set = Arc::new(set);
                *self.current.write() = set.clone();
                Ok(set)
            }
            Err(error) => {
                tracing::warn!(
                    error,
                    "the JWK set could not be fetched; the last good one stays"
                );
                Err(unknown(EVERY))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwaaPJHURo8","kid":"a"}]}"#;

    /// A set whose server gives these answers, one after another, a second each, and the number of times it was asked.
    fn jwks(answers: &'static [Result<&'static str, FetchError>]) -> (Arc<Jwks>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let fetch = Box::new(move || {
            let answer = answers[count.fetch_add(1, Ordering::SeqCst)].clone();
            let answer = async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer.map(Bytes::from)
            };
            Box::pin(answer) as BoxFuture<'static, _>
        });
        (Jwks::new(fetch, vec![Algorithm::EdDsa]), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_share_one_fetch() {
        let (jwks, asked) = jwks(&[Ok(SET)]);
        let all = futures_util::future::join_all((0..100).map(|_| jwks.newer())).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_fetched_once_in_thirty_seconds_at_most() {
        let (jwks, asked) = jwks(&[Ok(SET), Ok(SET)]);
        assert!(jwks.newer().await.is_ok());
        let refusal = jwks.newer().await.err().unwrap();
        assert_eq!(
            (refusal.code, refusal.retry_after),
            (Code::Unavailable, Some(Duration::from_secs(29)))
        );
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(jwks.newer().await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_was_given_up_counts() {
        let (jwks, asked) = jwks(&[Ok(SET)]);
        let given_up = tokio::time::timeout(Duration::from_millis(500), jwks.newer()).await;
        assert!(given_up.is_err() && jwks.newer().await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_set_stays() {
        let (jwks, _) = jwks(&[
            Ok(SET),
            Err(FetchError::Unreachable),
            Ok("nonsense"),
            Ok(r#"{"keys":[]}"#),
        ]);
        assert!(jwks.newer().await.is_ok());
        for _ in 0..3 {
            tokio::time::advance(EVERY).await;
            assert_eq!(jwks.newer().await.err().unwrap().code, Code::Unavailable);
            let current = jwks.current();
            assert!(matches!(
                current.find(Algorithm::EdDsa, Some("a")),
                super::super::keys::Lookup::Keys(_)
            ));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_set_is_fetched_anew_beside_its_use() {
        let (jwks, asked) = jwks(&[Ok(SET), Ok(SET)]);
        assert!(jwks.newer().await.is_ok());
        jwks.keep_fresh();
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        jwks.keep_fresh();
        jwks.keep_fresh();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
