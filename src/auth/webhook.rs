//! Someone else who is asked who may join and send: over HTTP, with answers kept for a while. Without an answer nobody may.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::KeyError;
use super::outgoing::{FetchError, Outgoing};
use crate::domain::policy::Action;
use crate::domain::{Code, Refusal, RoomId, UserId};

/// Questions under way at once; more wait, and their wait counts as the webhook's.
const AT_ONCE: usize = 64;
/// The largest answer.
const MAX_BYTES: usize = 16 * 1024;
/// Answers kept in each of two generations, of which the older one goes when the younger one is full.
const GENERATION: usize = 16_384;
/// Between two warnings that the webhook fails.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Whom to ask, and how.
#[derive(Clone)]
pub struct WebhookSettings {
    /// Where.
    pub uri: Uri,
    /// Sent as the value of `Authorization`, if there is one.
    pub bearer: Option<HeaderValue>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long an answer counts, yes or no; zero: once.
    pub cache: Duration,
}

#[derive(Serialize)]
struct Question<'a> {
    action: &'a str,
    user_id: &'a str,
    room_id: &'a str,
}

#[derive(Deserialize)]
struct WebhookResponse {
    allow: bool,
}

type Key = (Action, UserId, RoomId);
/// Yes, no, or nobody knows; and since when. Empty while someone asks, whose answer is everyone's who waits for it.
type Slot = Arc<OnceCell<(Option<bool>, Instant)>>;

#[derive(Default)]
struct Cache {
    young: HashMap<Key, Slot>,
    old: HashMap<Key, Slot>,
}

impl Cache {
    fn slot(&mut self, key: &Key, ttl: Duration) -> Slot {
        let known = self.young.get(key).or_else(|| self.old.get(key));
        let counts = |slot: &&Slot| match slot.get() {
            None => true,
            Some((answer, since)) => answer.is_some() && since.elapsed() < ttl,
        };
        if let Some(slot) = known.filter(counts) {
            return slot.clone();
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        let slot = Slot::default();
        self.young.insert(key.clone(), slot.clone());
        slot
    }
}

/// Asks, and remembers the answers.
pub struct Webhook {
    settings: WebhookSettings,
    outgoing: Outgoing,
    at_once: Semaphore,
    cache: Mutex<Cache>,
    warned: Mutex<Option<Instant>>,
}

impl Webhook {
    /// With those settings; nobody is asked yet.
    ///
    /// # Errors
    /// When HTTPS is asked for and the system trusts nobody.
    pub fn new(settings: WebhookSettings) -> Result<Self, KeyError> {
        Ok(Self {
            outgoing: Outgoing::new(&settings.uri, settings.timeout, MAX_BYTES)?,
            settings,
            at_once: Semaphore::new(AT_ONCE),
            cache: Mutex::default(),
            warned: Mutex::default(),
        })
    }

    /// Whether the user may do that in the room.
    ///
    /// # Errors
    /// `forbidden`; `unavailable` when there is no answer in time, or none that makes sense.
    pub async fn ask(&self, action: Action, user: &UserId, room: &RoomId) -> Result<(), Refusal> {
        let key = (action, user.clone(), room.clone());
        let slot = self.cache.lock().slot(&key, self.settings.cache);
        match slot
            .get_or_init(|| async { (self.fetch(&key).await, Instant::now()) })
            .await
            .0
        {
            Some(true) => Ok(()),
            Some(false) => Err(Refusal::new(
                Code::Forbidden,
                "this is not allowed in this room",
            )),
            None => Err(Refusal::new(
                Code::Unavailable,
                "nobody can say now whether this is allowed",
            )),
        }
    }

    async fn fetch(&self, (action, user, room): &Key) -> Option<bool> {
        let action = match action {
            Action::Join => "join",
            Action::Send => "send",
        };
        let question = Question {
            action,
            user_id: user.as_str(),
            room_id: room.as_str(),
        };
        let question = serde_json::to_vec(&question).expect("text always serialises");
        let answer = async {
            // Never closed.
            let _turn = self.at_once.acquire().await;
            self.outgoing
                .post(&self.settings.uri, self.settings.bearer.as_ref(), question)
                .await
        };
        let answer = tokio::time::timeout(self.settings.timeout, answer)
            .await
            .unwrap_or(Err(FetchError::TooSlow));
        let answer = answer.map_err(|error| error.to_string()).and_then(|body| {
            serde_json::from_slice::<WebhookResponse>(&body)
                .map_err(|_| "its answer is not {\"allow\": true or false}".to_owned())
        });
        answer
            .map(|answer| answer.allow)
            .inspect_err(|error| self.warn(error))
            .ok()
    }

    /// Says it now and then: while it fails, each request would have the same to say.
    fn warn(&self, error: &str) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
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
    async fn an_answer_counts_for_its_time_and_no_answer_not_at_all() {
        let (mut cache, ttl) = (Cache::default(), Duration::from_secs(30));
        for (answer, kept) in [(Some(true), true), (Some(false), true), (None, false)] {
            let slot = cache.slot(&key(1), ttl);
            slot.set((answer, Instant::now())).unwrap();
            tokio::time::advance(Duration::from_secs(29)).await;
            assert_eq!(
                Arc::ptr_eq(&slot, &cache.slot(&key(1), ttl)),
                kept,
                "{answer:?}"
            );
            cache
                .slot(&key(1), ttl)
                .set((Some(true), Instant::now()))
                .ok();
            tokio::time::advance(Duration::from_secs(31)).await;
            assert!(cache.slot(&key(1), ttl).get().is_none(), "too old");
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_whoever_asks_is_kept() {
        let mut cache = Cache::default();
        for room in 0..3 * GENERATION {
            cache.slot(&key(room), Duration::from_secs(30));
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION);
        let last = 3 * GENERATION - 1;
        let slot = cache.slot(&key(last), Duration::ZERO);
        assert!(
            Arc::ptr_eq(&slot, &cache.slot(&key(last), Duration::ZERO)),
            "one who asks is waited for"
        );
    }
}
