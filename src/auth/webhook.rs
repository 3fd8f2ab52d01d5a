//! The authorization webhook: an external service that decides over HTTP about each join and each
//! message. Its responses are cached for a time. Without a response the request is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::KeyError;
use super::http_client::{FetchError, HttpClient};
use crate::domain::policy::Action;
use crate::domain::{Code, Refusal, RoomId, UserId};

/// The most calls at the same time. Further calls wait, and the wait counts against their timeout.
const MAX_CONCURRENT_CALLS: usize = 64;
/// The largest response, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// Entries in each of the cache's two generations. When the younger one is full, it replaces the
/// older one.
const GENERATION_SIZE: usize = 16_384;
/// The shortest time between two warnings about failed calls.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Settings of the webhook.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The URL that is called.
    pub uri: Uri,
    /// The complete value of the header `Authorization`, if one is sent.
    pub bearer: Option<HeaderValue>,
    /// How long a response may take.
    pub timeout: Duration,
    /// How long a response is cached, positive or negative; zero: not at all.
    pub cache: Duration,
}

#[derive(Serialize)]
struct RequestBody<'a> {
    action: &'a str,
    user_id: &'a str,
    room_id: &'a str,
}

#[derive(Deserialize)]
struct ResponseBody {
    allow: bool,
}

type Key = (Action, UserId, RoomId);

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Allowed,
    Denied,
    /// The call failed.
    Unknown,
}

/// A decision and the time of the response. Empty during the call, so that concurrent requests with
/// the same key wait for one call and share its result.
type CacheEntry = Arc<OnceCell<(Decision, Instant)>>;

#[derive(Default)]
struct Cache {
    young: HashMap<Key, CacheEntry>,
    old: HashMap<Key, CacheEntry>,
}

impl Cache {
    /// The entry of `key`: the present one if its call is under way or its decision is valid, or
    /// else a new one.
    fn entry(&mut self, key: &Key, ttl: Duration) -> CacheEntry {
        let present = self.young.get(key).or_else(|| self.old.get(key));
        if let Some(entry) = present {
            let is_valid = match entry.get() {
                None => true,
                Some((Decision::Unknown, _)) => false,
                Some((_, since)) => since.elapsed() < ttl,
            };
            if is_valid {
                return entry.clone();
            }
        }
        if self.young.len() >= GENERATION_SIZE {
            self.old = std::mem::take(&mut self.young);
        }
        let entry = CacheEntry::default();
        self.young.insert(key.clone(), entry.clone());
        entry
    }
}

/// Calls the webhook and caches its decisions.
pub struct Webhook {
    settings: WebhookSettings,
    client: HttpClient,
    concurrent_calls: Semaphore,
    cache: Mutex<Cache>,
    last_warning: Mutex<Option<Instant>>,
}

impl Webhook {
    /// With these settings. Makes no call yet.
    ///
    /// # Errors
    /// If the URL is HTTPS and the system has no root certificates.
    pub fn new(settings: WebhookSettings) -> Result<Self, KeyError> {
        Ok(Self {
            client: HttpClient::new(&settings.uri, settings.timeout, MAX_BYTES)?,
            settings,
            concurrent_calls: Semaphore::new(MAX_CONCURRENT_CALLS),
            cache: Mutex::default(),
            last_warning: Mutex::default(),
        })
    }

    /// Asks the webhook whether the user may perform the action in the room.
    ///
    /// # Errors
    /// `forbidden` if it denies the action. `unavailable` if there is no valid response in time.
    pub async fn authorize(
        &self,
        action: Action,
        user: &UserId,
        room: &RoomId,
    ) -> Result<(), Refusal> {
        let key = (action, user.clone(), room.clone());
        let entry = self.cache.lock().entry(&key, self.settings.cache);
        let (decision, _) = entry
            .get_or_init(|| async { (self.decide(&key).await, Instant::now()) })
            .await;
        match decision {
            Decision::Allowed => Ok(()),
            Decision::Denied => Err(Refusal::new(
                Code::Forbidden,
                "this is not allowed in this room",
            )),
            Decision::Unknown => Err(Refusal::new(
                Code::Unavailable,
                "the authorization service gives no answer",
            )),
        }
    }

    async fn decide(&self, key: &Key) -> Decision {
        let response = tokio::time::timeout(self.settings.timeout, self.call(key))
            .await
            .unwrap_or(Err(FetchError::Timeout));
        let error = match response {
            Ok(body) => match serde_json::from_slice(&body) {
                Ok(ResponseBody { allow: true }) => return Decision::Allowed,
                Ok(ResponseBody { allow: false }) => return Decision::Denied,
                Err(_) => r#"the response is not {"allow": true} or {"allow": false}"#.to_owned(),
            },
            Err(error) => error.to_string(),
        };
        self.warn(&error);
        Decision::Unknown
    }

    async fn call(&self, (action, user, room): &Key) -> Result<Bytes, FetchError> {
        let body = RequestBody {
            action: match action {
                Action::Join => "join",
                Action::Send => "send",
            },
            user_id: user.as_str(),
            room_id: room.as_str(),
        };
        let json = serde_json::to_vec(&body).expect("a struct of strings always serialises");
        // An error is impossible: the semaphore is never closed.
        let _permit = self.concurrent_calls.acquire().await;
        self.client
            .post(&self.settings.uri, self.settings.bearer.as_ref(), json)
            .await
    }

    /// Logs the error, at most once per [`WARN_INTERVAL`]: while the webhook fails, every call
    /// fails.
    fn warn(&self, error: &str) {
        let mut last_warning = self.last_warning.lock();
        if last_warning.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *last_warning = Some(Instant::now());
            tracing::warn!(
                error,
                "AUTHORIZE_URL gives no answer: joins and sends are refused"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(room: usize) -> Key {
        (
            Action::Send,
            UserId::trusted("ann"),
            RoomId::trusted(&room.to_string()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn decisions_are_cached_for_a_time_and_failed_calls_are_not() {
        let (mut cache, ttl) = (Cache::default(), Duration::from_secs(30));
        for (decision, is_cached) in [
            (Decision::Allowed, true),
            (Decision::Denied, true),
            (Decision::Unknown, false),
        ] {
            let entry = cache.entry(&key(1), ttl);
            entry.set((decision, Instant::now())).unwrap();
            tokio::time::advance(Duration::from_secs(29)).await;
            assert_eq!(
                Arc::ptr_eq(&entry, &cache.entry(&key(1), ttl)),
                is_cached,
                "{decision:?}"
            );
            cache
                .entry(&key(1), ttl)
                .set((Decision::Allowed, Instant::now()))
                .ok();
            tokio::time::advance(Duration::from_secs(31)).await;
            assert!(
                cache.entry(&key(1), ttl).get().is_none(),
                "the decision has expired"
            );
        }
    }

    #[tokio::test]
    async fn the_cache_is_bounded_and_concurrent_requests_share_one_call() {
        let mut cache = Cache::default();
        for room in 0..3 * GENERATION_SIZE {
            cache.entry(&key(room), Duration::from_secs(30));
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_SIZE);
        let last = 3 * GENERATION_SIZE - 1;
        let entry = cache.entry(&key(last), Duration::ZERO);
        assert!(
            Arc::ptr_eq(&entry, &cache.entry(&key(last), Duration::ZERO)),
            "the second request waits for the first one's call"
        );
    }
}
