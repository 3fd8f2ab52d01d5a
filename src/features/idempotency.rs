//! Requests with the header `Idempotency-Key`: the work is done once, and repeats get the first answer.
//!
//! A use case that creates something takes a [`Once`] and ends with [`Once::perform`]; its store's method
//! takes a [`store::Once`] and runs its transaction by `idempotency::transaction`. So
//! the work and its answer commit together:
//! - Of requests that arrive at once with one key, on any nodes, one does the work. The others wait in
//!   the database until it has committed, and get its answer.
//! - A node that ends before the commit leaves nothing, and a repeat does the work. A node that ends after
//!   it leaves the answer.
//! - A client that disconnects doesn't stop a transaction that has begun.
//!
//! A refused request has changed nothing, so its refusal is not stored: a repeat is tried again, and the
//! key is free for a corrected body.
//!
//! Work in a room's log is not a transaction of the database. It reserves its key, has an idempotency of
//! its own by an id that follows from the key, and keeps its answer afterwards: see
//! [`perform_elsewhere`].

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::accounts::refused;
use crate::auth::{AnswerSeal, AnswerSecrets, RequestParts};
use crate::domain::{Code, IdempotencyKey, Refusal};
use crate::store::{
    self, DeletableContent, IdempotencyStore, IdempotentRequest, Performed, Repeat, StoreError,
    StoredAnswer,
};

/// How often old answers are removed, and how many in a transaction.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(5 * 60);
const REMOVAL_BATCH: usize = 500;

/// The answers of requests with an idempotency key.
pub struct Idempotency {
    store: Arc<dyn IdempotencyStore>,
    secrets: AnswerSecrets,
}

/// A request with an idempotency key.
pub struct KeyedRequest {
    store: Arc<dyn IdempotencyStore>,
    request: Arc<IdempotentRequest>,
    seal: AnswerSeal,
}

/// An answer as the client receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// For an answer with content that may be deleted later.
    pub redacted: Option<Redacted>,
}

/// The form of an answer once its content is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// The id of the object that it shows.
    pub subject: String,
    /// The body without the content.
    pub body: Vec<u8>,
}

/// The id of work that is done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkId {
    /// The request has a key: its repeats have the same id.
    OfKey(Uuid),
    /// The request has no key.
    Random(Uuid),
}

impl WorkId {
    /// The id.
    #[must_use]
    pub fn get(self) -> Uuid {
        match self {
            Self::OfKey(id) | Self::Random(id) => id,
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The work was done for this request.
    Now(Answer),
    /// The work was done before, for another request with the same key.
    Before(Answer),
}

/// How a use case answers its request, and by which key repeats are recognised. `T` is its result.
pub struct Once<T> {
    key: Option<Arc<KeyedRequest>>,
    answer: Arc<dyn Fn(&T) -> Answer + Send + Sync>,
}

impl Idempotency {
    /// Keeps answers in this store, encrypted with keys that follow from these secrets.
    #[must_use]
    pub fn new(store: Arc<dyn IdempotencyStore>, secrets: &[String]) -> Self {
        Self {
            store,
            secrets: AnswerSecrets::new(secrets),
        }
    }

    /// The request, with the digests by which its repeats are recognised. `pattern` is that of the route.
    #[must_use]
    pub fn request(&self, parts: &RequestParts<'_>, pattern: &str) -> Arc<KeyedRequest> {
        let seal = self.secrets.seal(parts);
        let request = IdempotentRequest {
            digest: seal.digest,
            user: parts.user,
            route: pattern.to_owned(),
            bodies: seal.bodies.clone(),
        };
        Arc::new(KeyedRequest {
            store: self.store.clone(),
            request: Arc::new(request),
            seal,
        })
    }

    /// The answer to an earlier request with this key, if there is one. Only an optimisation for work
    /// that is done by [`Once::perform`]: it spares a repeat the steps before the transaction.
    ///
    /// # Errors
    /// `idempotency_mismatch` if the earlier request had another body; `unavailable`.
    pub async fn earlier_answer(
        &self,
        request: &KeyedRequest,
    ) -> Result<Option<Answered>, Refusal> {
        let found = self.store.find_repeat(&request.request).await;
        let repeat = found.map_err(refused)?;
        repeat.map(|repeat| request.repeated(repeat)).transpose()
    }

    /// Removes old answers until the task is aborted. Each node may run it.
    pub async fn remove_old_answers(self: Arc<Self>) {
        loop {
            match self.store.remove_old_answers(REMOVAL_BATCH).await {
                // There may be more.
                Ok(removed) if removed >= REMOVAL_BATCH as u64 => continue,
                Ok(_) => {}
                Err(error @ StoreError::Unavailable(_)) => {
                    tracing::debug!(%error, "idempotency: old answers are removed later");
                }
                Err(error) => {
                    tracing::error!(%error, "idempotency: old answers can't be removed");
                }
            }
            tokio::time::sleep(REMOVAL_INTERVAL).await;
        }
    }
}

/// Does work that is not one transaction of the database, and keeps its answer if the request has a key.
/// `work` may be done again for the same request, after a failure or at once on several nodes. So it
/// must have no further effect then: it gets an id that is the same for all repeats.
///
/// # Errors
/// Those of the work; `idempotency_mismatch`; `unavailable`: the work may be done.
pub async fn perform_elsewhere<W>(
    key: Option<Arc<KeyedRequest>>,
    work: impl FnOnce(WorkId) -> W,
) -> Result<Answered, Refusal>
where
    W: Future<Output = Result<Answered, Refusal>>,
{
    let Some(key) = key else {
        return work(WorkId::Random(Uuid::now_v7())).await;
    };
    let reserved = key.store.reserve(&key.request).await;
    if let Some(repeat) = reserved.map_err(refused)? {
        return key.repeated(repeat);
    }
    let answered = match work(WorkId::OfKey(key.id())).await {
        Ok(answered) => answered,
        Err(refusal) => {
            // After a fault of the server the work may be done. Any other refusal has changed nothing.
            if refusal.code.status() < 500 {
                key.store.release(&key.request).await.map_err(refused)?;
            }
            return Err(refusal);
        }
    };
    let (Answered::Now(answer) | Answered::Before(answer)) = &answered;
    let kept = key
        .store
        .keep_answer(&key.request, key.sealed(answer))
        .await;
    match key.repeated(kept.map_err(refused)?)? {
        Answered::Before(kept) if kept.body == answer.body => Ok(answered),
        repeated => Ok(repeated),
    }
}

impl Answer {
    /// The same answer, which becomes the other one once the content of an object is deleted.
    #[must_use]
    pub fn deletable(self, subject: String, without: Self) -> Self {
        let redacted = Redacted {
            subject,
            body: without.body,
        };
        Self {
            redacted: Some(redacted),
            ..self
        }
    }
}

impl KeyedRequest {
    /// A UUID that follows from user, route and key.
    fn id(&self) -> Uuid {
        let half = self.request.digest.first_chunk();
        let half = *half.expect("a digest is longer than a UUID");
        // Version 8: its content is the application's own.
        uuid::Builder::from_custom_bytes(half).into_uuid()
    }

    fn sealed(&self, answer: &Answer) -> StoredAnswer {
        let content = answer.redacted.as_ref().map(|redacted| DeletableContent {
            subject: redacted.subject.clone(),
            redacted: self.seal.encrypt(&redacted.body),
        });
        StoredAnswer {
            status: answer.status,
            body: self.seal.encrypt(&answer.body),
            content,
        }
    }

    fn opened(&self, stored: &StoredAnswer) -> Result<Answer, Refusal> {
        let body = self.seal.decrypt(&stored.body).ok_or_else(|| {
            tracing::error!("idempotency: a stored answer can't be decrypted");
            Refusal::new(Code::Internal, "the first answer can't be read")
        })?;
        Ok(Answer {
            status: stored.status,
            body,
            redacted: None,
        })
    }

    fn repeated(&self, repeat: Repeat) -> Result<Answered, Refusal> {
        match repeat {
            Repeat::Answered(stored) => self.opened(&stored).map(Answered::Before),
            Repeat::OtherBody => Err(Refusal::new(
                Code::IdempotencyMismatch,
                "the Idempotency-Key was used before, with another body",
            )
            .field(IdempotencyKey::HEADER)),
        }
    }
}

impl<T: 'static> Once<T> {
    /// Answers a request, which has a key or none, by this function of the result.
    pub fn new(
        key: Option<Arc<KeyedRequest>>,
        answer: impl Fn(&T) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self {
            key,
            answer: Arc::new(answer),
        }
    }

    /// Runs a transaction unless it has run before for a request with the same key, and returns the
    /// answer. `result` makes the use case's result, or its refusal, from the outcome of the transaction.
    /// It runs within the transaction, so it must not wait. `work` calls the store.
    ///
    /// # Errors
    /// Those of `result`; `idempotency_mismatch`; `unavailable`: the transaction may have run.
    pub async fn perform<O, W>(
        self,
        result: impl Fn(&O) -> Result<T, Refusal> + Send + Sync + 'static,
        work: impl FnOnce(store::Once<O>) -> W,
    ) -> Result<Answered, Refusal>
    where
        W: Future<Output = store::Result<Performed<O>>>,
    {
        let Self { key, answer } = self;
        let respond = move |outcome: &O| Ok(answer(&result(outcome)?));
        let Some(key) = key else {
            return match work(store::Once::without_key()).await.map_err(refused)? {
                Performed::Now(outcome, _) => respond(&outcome).map(Answered::Now),
                Performed::Before(_) => Err(Refusal::new(Code::Internal, "there is no key")),
            };
        };
        let respond = Arc::new(respond);
        let make = {
            let (key, respond) = (key.clone(), respond.clone());
            move |outcome: &O| {
                let answer: Result<Answer, Refusal> = respond(outcome);
                answer.ok().map(|answer| key.sealed(&answer))
            }
        };
        let once = store::Once::for_request(key.request.clone(), Arc::new(make));
        match work(once).await.map_err(refused)? {
            // The stored answer, because another one may differ in the time of its tokens.
            Performed::Now(_, Some(stored)) => key.opened(&stored).map(Answered::Now),
            Performed::Now(outcome, None) => respond(&outcome).map(Answered::Now),
            Performed::Before(repeat) => key.repeated(repeat),
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::store::sql::{DatabaseUrl, Settings, SqlStore};

    async fn idempotency() -> Idempotency {
        let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
        let store = SqlStore::open(&Settings::new(url)).await.unwrap();
        let secret = "a secret of at least thirty-two bytes".to_owned();
        Idempotency::new(Arc::new(store), &[secret])
    }

    fn request(idempotency: &Idempotency, body: &str) -> Arc<KeyedRequest> {
        let parts = RequestParts {
            user: None,
            route: "POST /things",
            key: &IdempotencyKey::parse(b"key").unwrap(),
            body: body.as_bytes(),
        };
        idempotency.request(&parts, "POST /things")
    }

    fn answer(body: &str) -> Answer {
        Answer {
            status: 201,
            body: body.as_bytes().to_vec(),
            redacted: None,
        }
    }

    #[tokio::test]
    async fn repeats_of_work_outside_of_the_database_have_the_id_of_the_first() {
        let idempotency = idempotency().await;
        let first = request(&idempotency, "{}");
        let ids = Mutex::new(Vec::new());
        let work = |result: Result<Answered, Refusal>| {
            let ids = &ids;
            move |id| {
                ids.lock().push(id);
                std::future::ready(result)
            }
        };
        // The answer of the first attempt is lost.
        let lost = Refusal::new(Code::Unavailable, "the log is away");
        let failed = perform_elsewhere(Some(first.clone()), work(Err(lost))).await;
        assert_eq!(failed.unwrap_err().code, Code::Unavailable);
        let done = work(Ok(Answered::Now(answer("done"))));
        let done = perform_elsewhere(Some(first.clone()), done).await;
        assert_eq!(done.unwrap(), Answered::Now(answer("done")));
        let again = work(Ok(Answered::Now(answer("again"))));
        let again = perform_elsewhere(Some(first), again).await;
        assert_eq!(again.unwrap(), Answered::Before(answer("done")));
        let ids = ids.into_inner();
        assert_eq!((ids.len(), ids[0]), (2, ids[1]));

        let other = request(&idempotency, "[]");
        let refused = idempotency.earlier_answer(&other).await.unwrap_err();
        assert_eq!(refused.code, Code::IdempotencyMismatch);
        let work = |_| std::future::ready(Ok(Answered::Now(answer("other"))));
        let refused = perform_elsewhere(Some(other), work).await;
        assert_eq!(refused.unwrap_err().code, Code::IdempotencyMismatch);
    }

    #[tokio::test]
    async fn an_answer_loses_its_content_together_with_its_object() {
        let idempotency = idempotency().await;
        let first = request(&idempotency, "{}");
        let with_content = answer("content").deletable("m1".to_owned(), answer("no content"));
        let work = |_| std::future::ready(Ok(Answered::Now(with_content)));
        perform_elsewhere(Some(first.clone()), work).await.unwrap();
        let found = idempotency.earlier_answer(&first).await.unwrap();
        assert_eq!(found, Some(Answered::Before(answer("content"))));
        idempotency.store.redact_answers("m1").await.unwrap();
        let found = idempotency.earlier_answer(&first).await.unwrap();
        assert_eq!(found, Some(Answered::Before(answer("no content"))));
    }
}
