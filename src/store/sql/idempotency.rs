//! Idempotent requests in a database: the table `hubbub_idempotency`.
//!
//! A row is added at the beginning of the transaction that does the work of its request, and gets its
//! answer before the commit. A second transaction with the same key waits for the first one at its row:
//! then it finds the answer, or, after a rollback, nothing, and does the work itself.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::accounts::now;
use super::conn::Conn;
use super::db::{Db, Steps};
use super::fault::{Fault, Outcome};
use super::store::SqlStore;
use super::value::{Arg, Text, args};
use crate::store::{
    ANSWERS_KEPT, DeletableContent, IdempotencyStore, IdempotentRequest, Once, Performed, Repeat,
    Result, StoredAnswer, StoredKind,
};

/// The values of the column `state`.
const RESERVED: i64 = 0;
const ANSWERED: i64 = 1;

/// The most answers that one call removes: a list in a statement has at most 500.
const MAX_REMOVED: usize = 500;

/// As [`Db::transaction`], for work that a repeat of its request must not do again.
pub(super) async fn transaction<T, F>(db: &Db, once: Once<T>, steps: F) -> Result<Performed<T>>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut Conn) -> Steps<'c, T> + Send + Sync + 'static,
{
    let steps = Arc::new(steps);
    db.transaction(move |conn| {
        let (once, steps) = (once.clone(), steps.clone());
        Box::pin(async move {
            let Some((request, answer)) = &once.request else {
                return Ok(Performed::Now(steps(conn).await?, None));
            };
            if let Some(repeat) = begin(conn, request).await? {
                return Ok(Performed::Before(repeat));
            }
            let outcome = steps(conn).await?;
            let answer = answer(&outcome);
            match &answer {
                Some(answer) => finish(conn, request, answer).await?,
                None => abandon(conn, request).await?,
            }
            Ok(Performed::Now(outcome, answer))
        })
    })
    .await
}

/// Locks the key of a request until the end of the transaction. Returns the result of an earlier
/// request with this key, if there is one.
async fn begin(conn: &mut Conn, request: &IdempotentRequest) -> Outcome<Option<Repeat>> {
    const ADD: &str = "INSERT INTO hubbub_idempotency \
        (digest, scope, route, body_digest, state, status, answer, redacted, created_at) \
        VALUES (?, ?, ?, ?, 0, 0, ?, ?, ?) {if_absent:digest}";
    const FIND: &str = "SELECT body_digest, state, status, answer, subject, redacted, created_at \
        FROM hubbub_idempotency WHERE digest = ? {for_update}";
    const RENEW: &str = "UPDATE hubbub_idempotency SET body_digest = ?, state = 0, answer = ?, \
        subject = NULL, redacted = ?, created_at = ? WHERE digest = ?";
    let now = now(conn).await?;
    let (digest, body) = (request.digest.to_vec(), body_digest(request)?);
    let nothing = Vec::<u8>::new;
    let values = args![
        digest.clone(),
        scope(request.user),
        request.route.as_str(),
        body.clone(),
        nothing(),
        nothing(),
        now,
    ];
    conn.run(ADD, values).await?;
    let found: Option<Row> = conn.first(FIND, args![digest.clone()]).await?;
    // It can be removed between the two statements, once it is old.
    let row = found.ok_or_else(|| Fault::Again("an old answer was removed".to_owned()))?;
    if is_old(&row, now) {
        conn.run(RENEW, args![body, nothing(), nothing(), now, digest])
            .await?;
        return Ok(None);
    }
    repeat(row, request)
}

/// Stores the answer to a request with a locked key.
async fn finish(
    conn: &mut Conn,
    request: &IdempotentRequest,
    answer: &StoredAnswer,
) -> Outcome<()> {
    const ANSWER: &str = "UPDATE hubbub_idempotency \
        SET state = ?, status = ?, answer = ?, subject = ?, redacted = ? WHERE digest = ?";
    let content = answer.content.as_ref();
    let subject = content.map(|content| content.subject.clone());
    let redacted = content.map(|content| content.redacted.clone());
    let values = args![
        ANSWERED,
        i64::from(answer.status),
        answer.body.clone(),
        subject,
        redacted.unwrap_or_default(),
        request.digest.to_vec(),
    ];
    conn.run(ANSWER, values).await.map(drop)
}

/// The answer as [`redact`] would change it, if it is about a message that is deleted already. A message
/// that is not gets locked, so that its deletion finds the stored answer.
async fn without_deleted(conn: &mut Conn, answer: StoredAnswer) -> Outcome<StoredAnswer> {
    const LOCK: &str =
        "SELECT CAST(kind AS {bigint}) FROM hubbub_entries WHERE id = ? {for_update}";
    let Some(content) = &answer.content else {
        return Ok(answer);
    };
    let Ok(id) = Uuid::try_parse(&content.subject) else {
        return Ok(answer);
    };
    let found: Option<(i64,)> = conn.first(LOCK, args![id]).await?;
    if found != Some((StoredKind::DELETED.0,)) {
        return Ok(answer);
    }
    Ok(StoredAnswer {
        status: answer.status,
        body: content.redacted.clone(),
        content: None,
    })
}

/// Forgets a request that has changed nothing.
async fn abandon(conn: &mut Conn, request: &IdempotentRequest) -> Outcome<()> {
    const REMOVE: &str = "DELETE FROM hubbub_idempotency WHERE digest = ?";
    let digest = request.digest.to_vec();
    conn.run(REMOVE, args![digest]).await.map(drop)
}

/// Removes the content of a deleted object from the answers about it, in the transaction that deletes
/// the object.
pub(super) async fn redact(conn: &mut Conn, subject: &str) -> Outcome<()> {
    const REDACT: &str = "UPDATE hubbub_idempotency \
        SET answer = redacted, redacted = ?, subject = NULL WHERE subject = ?";
    let values = args![Vec::<u8>::new(), subject];
    conn.run(REDACT, values).await.map(drop)
}

/// Removes all answers to a user, in the transaction that deletes the account.
pub(super) async fn forget_user(conn: &mut Conn, user: Uuid) -> Outcome<()> {
    const FORGET: &str = "DELETE FROM hubbub_idempotency WHERE scope = ?";
    conn.run(FORGET, args![scope(Some(user))]).await.map(drop)
}

/// `body_digest`, `state`, `status`, `answer`, `subject`, `redacted`, `created_at`.
type Row = (Vec<u8>, i64, i64, Vec<u8>, Option<Text>, Vec<u8>, i64);

fn is_old((.., created_at): &Row, now: i64) -> bool {
    now - created_at >= kept_millis()
}

fn kept_millis() -> i64 {
    i64::try_from(ANSWERS_KEPT.as_millis()).unwrap_or(i64::MAX)
}

/// The result of the row's request for another with the same key; `None` while there is none.
fn repeat(row: Row, request: &IdempotentRequest) -> Outcome<Option<Repeat>> {
    let (body, state, status, answer, subject, redacted, _) = row;
    if !request.bodies.iter().any(|digest| digest[..] == body) {
        return Ok(Some(Repeat::OtherBody));
    }
    if state == RESERVED {
        return Ok(None);
    }
    let status = u16::try_from(status)
        .map_err(|_| Fault::Broken(format!("{status} is not the status of an answer")))?;
    let content = subject.map(|subject| DeletableContent {
        subject: subject.0,
        redacted,
    });
    Ok(Some(Repeat::Answered(StoredAnswer {
        status,
        body: answer,
        content,
    })))
}

fn body_digest(request: &IdempotentRequest) -> Outcome<Vec<u8>> {
    let current = request.bodies.first();
    let missing = || Fault::Broken("a request has no digest of its body".to_owned());
    current.map(|digest| digest.to_vec()).ok_or_else(missing)
}

/// The column `scope`.
fn scope(user: Option<Uuid>) -> String {
    user.map(|user| user.to_string()).unwrap_or_default()
}

#[async_trait]
impl IdempotencyStore for SqlStore {
    async fn find_repeat(&self, request: &IdempotentRequest) -> Result<Option<Repeat>> {
        const FIND: &str = "SELECT body_digest, state, status, answer, subject, redacted, created_at \
            FROM hubbub_idempotency WHERE digest = ? AND created_at > {now} - ?";
        let values = args![request.digest.to_vec(), kept_millis()];
        let found: Vec<Row> = self.db().all(FIND, values).await?;
        match found.into_iter().next() {
            Some(row) => Ok(repeat(row, request)?),
            None => Ok(None),
        }
    }

    async fn reserve(&self, request: &IdempotentRequest) -> Result<Option<Repeat>> {
        let request = request.clone();
        self.db()
            .transaction(move |conn| {
                let request = request.clone();
                Box::pin(async move { begin(conn, &request).await })
            })
            .await
    }

    async fn keep_answer(
        &self,
        request: &IdempotentRequest,
        answer: StoredAnswer,
    ) -> Result<Repeat> {
        let request = request.clone();
        self.db()
            .transaction(move |conn| {
                let (request, answer) = (request.clone(), answer.clone());
                Box::pin(async move {
                    // Entries are locked before answers, as in a deletion.
                    let answer = without_deleted(conn, answer).await?;
                    if let Some(repeat) = begin(conn, &request).await? {
                        return Ok(repeat);
                    }
                    finish(conn, &request, &answer).await?;
                    Ok(Repeat::Answered(answer))
                })
            })
            .await
    }

    async fn release(&self, request: &IdempotentRequest) -> Result<()> {
        const RELEASE: &str =
            "DELETE FROM hubbub_idempotency WHERE digest = ? AND body_digest = ? AND state = 0";
        let request = request.clone();
        self.db()
            .transaction(move |conn| {
                let request = request.clone();
                Box::pin(async move {
                    let values = args![request.digest.to_vec(), body_digest(&request)?];
                    conn.run(RELEASE, values).await.map(drop)
                })
            })
            .await
    }

    async fn redact_answers(&self, subject: &str) -> Result<()> {
        let subject = subject.to_owned();
        self.db()
            .transaction(move |conn| {
                let subject = subject.clone();
                Box::pin(async move { redact(conn, &subject).await })
            })
            .await
    }

    async fn forget_user(&self, user: Uuid) -> Result<()> {
        self.db()
            .transaction(move |conn| Box::pin(forget_user(conn, user)))
            .await
    }

    async fn remove_old_answers(&self, limit: usize) -> Result<u64> {
        // First without a lock, so that nodes that remove the same rows don't wait for each other.
        const FIND: &str = "SELECT digest FROM hubbub_idempotency \
            WHERE created_at <= {now} - ? ORDER BY created_at LIMIT ?";
        const REMOVE: &str = "DELETE FROM hubbub_idempotency \
            WHERE created_at <= {now} - ? AND digest IN ({list})";
        let limit = limit.min(MAX_REMOVED) as i64;
        let found: Vec<(Vec<u8>,)> = self.db().all(FIND, args![kept_millis(), limit]).await?;
        if found.is_empty() {
            return Ok(0);
        }
        self.db()
            .transaction(move |conn| {
                let digests = found.iter().map(|(digest,)| Arg::from(digest.clone()));
                let (text, digests) = conn.dialect().with_list(REMOVE, digests);
                let values = [args![kept_millis()], digests].concat();
                Box::pin(async move { conn.run_text(text, values).await })
            })
            .await
    }
}
