//! Requests that take effect once however often they are sent: their answers, kept for a day.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Digest, Result};

/// How long an answer is replayed.
pub const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A request with an idempotency key, by its digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// The digest of user, route and key.
    pub digest: Digest,
    /// The user. The deletion of its account removes the answer.
    pub user: Option<Uuid>,
    /// The route, for readers of the table.
    pub route: String,
    /// Digests of the body under each of the server's secrets, the current one first. A repeat has the
    /// same body if one of its digests is the stored one.
    pub bodies: Vec<Digest>,
}

/// The answer to a request. Its bodies are encrypted: the database alone doesn't reveal them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The encrypted body.
    pub body: Vec<u8>,
    /// For an answer with content that may be deleted later.
    pub content: Option<DeletableContent>,
}

/// The content of an answer that disappears from it together with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletableContent {
    /// The object's id, at most 128 bytes.
    pub subject: String,
    /// The encrypted body without the content.
    pub redacted: Vec<u8>,
}

/// The result of a request that was sent before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// The answer to the first one.
    Answered(StoredAnswer),
    /// The first one had another body.
    OtherBody,
}

/// Makes the answer to a request from the outcome of its transaction; `None` for an outcome that has
/// changed nothing, which is not kept.
pub type MakeAnswer<T> = Arc<dyn Fn(&T) -> Option<StoredAnswer> + Send + Sync>;

/// A transaction that takes effect once for each request, with any outcome `T`.
pub struct Once<T> {
    pub(super) request: Option<(Arc<IdempotentRequest>, MakeAnswer<T>)>,
}

impl<T> Once<T> {
    /// A transaction for this request.
    pub fn for_request(request: Arc<IdempotentRequest>, answer: MakeAnswer<T>) -> Self {
        Self {
            request: Some((request, answer)),
        }
    }

    /// A transaction that takes effect each time: the request has no key.
    #[must_use]
    pub fn without_key() -> Self {
        Self { request: None }
    }
}

impl<T> Clone for Once<T> {
    fn clone(&self) -> Self {
        Self {
            request: self.request.clone(),
        }
    }
}

/// The result of a transaction with [`Once`].
#[derive(Debug, Clone)]
pub enum Performed<T> {
    /// It has run now. The answer is the one that was stored with it.
    Now(T, Option<StoredAnswer>),
    /// It has not run, because it ran before, for the same request or another with its key.
    Before(Repeat),
}

impl<T> Performed<T> {
    /// The outcome, if the transaction has run now.
    pub fn outcome(self) -> Option<T> {
        match self {
            Self::Now(outcome, _) => Some(outcome),
            Self::Before(_) => None,
        }
    }
}

/// The answers of requests.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// The result of an earlier request with the same key; `None` without one, also while the first one
    /// is under way.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn find_repeat(&self, request: &IdempotentRequest) -> Result<Option<Repeat>>;

    /// For work that is not a transaction of this database: reserves the key for the body of the
    /// request. `None`: the caller does the work, then calls [`keep_answer`](Self::keep_answer).
    /// Repeats get `None`, too, until there is an answer. So the work must be such that its repeats have
    /// no effect, for example by an id that follows from the request's digest.
    ///
    /// # Errors
    /// `Unavailable`: the key may be reserved.
    async fn reserve(&self, request: &IdempotentRequest) -> Result<Option<Repeat>>;

    /// Keeps the answer to a request with a reserved key, and returns the one that counts: of several
    /// that are kept at once, the first.
    ///
    /// # Errors
    /// `Unavailable`: the answer may be kept.
    async fn keep_answer(
        &self,
        request: &IdempotentRequest,
        answer: StoredAnswer,
    ) -> Result<Repeat>;

    /// Frees the key of a request that was refused and has changed nothing, unless it has an
    /// answer.
    ///
    /// # Errors
    /// `Unavailable`: the key may be free.
    async fn release(&self, request: &IdempotentRequest) -> Result<()>;

    /// Removes the content of a deleted object from the answers about it.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn redact_answers(&self, subject: &str) -> Result<()>;

    /// Removes all answers to a user.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn forget_user(&self, user: Uuid) -> Result<()>;

    /// Removes at most `limit` answers that are older than [`ANSWERS_KEPT`], and returns how many. Any
    /// number of nodes may call it at once.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn remove_old_answers(&self, limit: usize) -> Result<u64>;
}
