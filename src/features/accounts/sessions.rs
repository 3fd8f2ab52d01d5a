//! Sessions that have begun.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{AccountCaller, Accounts, LoggedIn, refused};
use crate::auth::{RefreshToken, Sessions, random_bytes};
use crate::backplane::change_record;
use crate::domain::{Account, BotToken, Change, Code, ConnId, Refusal, RoomId, SessionEnd};
use crate::store::{
    AnnounceEnd, DirectoryStore, EndedSessions, Exchange, ExchangeOutcome, NewRow, Session,
};

impl Accounts {
    /// The caller's account.
    ///
    /// # Errors
    /// `unauthorized` if it was deleted meanwhile; `unavailable`.
    pub async fn own(&self, caller: AccountCaller) -> Result<Account, Refusal> {
        let found = self.store.user(caller.user).await.map_err(refused)?;
        let ended = || Refusal::new(Code::Unauthorized, "the session has ended");
        Ok(found.ok_or_else(ended)?.account)
    }

    /// Exchanges a refresh token for new tokens. Repeats within the grace period get the same refresh
    /// token; a later one ends the session.
    ///
    /// # Errors
    /// `unauthorized`, `unavailable`.
    pub async fn refresh(&self, refresh_token: &str) -> Result<LoggedIn, Refusal> {
        let refuse = || Refusal::new(Code::Unauthorized, "the refresh token is not valid");
        let token = RefreshToken::decode(refresh_token).ok_or_else(refuse)?;
        let salt = random_bytes();
        let exchange = Exchange {
            presented: token.digest(),
            salt,
            successor: token.successor(&salt).digest(),
            grace: self.settings.refresh_grace,
            lifetime: self.settings.refresh_lifetime,
        };
        // The user is not known before the token is found.
        let announce = announce_end(SessionEnd::TokenReused);
        match self
            .store
            .exchange(exchange, announce)
            .await
            .map_err(refused)?
        {
            ExchangeOutcome::Exchanged {
                account,
                session,
                salt,
            } => self.logged_in(*account, session, &token.successor(&salt)),
            ExchangeOutcome::Reused { user, session } => {
                tracing::warn!(%user, %session, "a refresh token was used again: its session has ended");
                Err(refuse())
            }
            ExchangeOutcome::Invalid => Err(refuse()),
        }
    }
}

/// Sessions that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Their number.
    pub sessions: usize,
    /// The sockets of these sessions that were closed, on all nodes.
    pub sockets: usize,
}

/// The sockets of users, on all nodes. The announcement of a session's end closes its sockets.
#[async_trait]
pub trait SessionSockets: Send + Sync {
    /// The sockets that the user has now; none if they can't be read.
    async fn of(&self, user: Uuid) -> Vec<ConnId>;

    /// Waits until the sockets of sessions that have just ended are closed, for at most a second.
    /// `before` are the user's sockets before the end. Returns how many of them are closed.
    async fn closed(&self, user: Uuid, before: &[ConnId]) -> usize;
}

impl Accounts {
    /// The user's sessions, the last one used first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn sessions(&self, caller: AccountCaller) -> Result<Vec<Session>, Refusal> {
        self.store.sessions(caller.user).await.map_err(refused)
    }

    /// Ends the session of the caller.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn log_out(&self, caller: AccountCaller) -> Result<Ended, Refusal> {
        self.end(caller.user, EndedSessions::One(caller.session))
            .await
    }

    /// Ends all sessions of the caller.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn log_out_everywhere(&self, caller: AccountCaller) -> Result<Ended, Refusal> {
        self.end(caller.user, EndedSessions::All).await
    }

    /// Ends one session of the caller.
    ///
    /// # Errors
    /// `not_found` if the caller has no such session; `unavailable`.
    pub async fn end_session(
        &self,
        caller: AccountCaller,
        session: Uuid,
    ) -> Result<Ended, Refusal> {
        let ended = self.end(caller.user, EndedSessions::One(session)).await?;
        if ended.sessions == 0 {
            return Err(Refusal::new(Code::NotFound, "there is no such session"));
        }
        Ok(ended)
    }

    async fn end(&self, user: Uuid, ended: EndedSessions) -> Result<Ended, Refusal> {
        let announce = announce_end(SessionEnd::LoggedOut);
        let before = self.sockets.of(user).await;
        let ended = self.store.end_sessions(user, ended, announce).await;
        let sessions = ended.map_err(refused)?.len();
        Ok(self.ended(user, &before, sessions).await)
    }

    /// Waits until the sockets of so many sessions, which have ended, are closed. `before` are the
    /// user's sockets before that.
    pub(super) async fn ended(&self, user: Uuid, before: &[ConnId], sessions: usize) -> Ended {
        let sockets = match sessions {
            0 => 0,
            _ => self.sockets.closed(user, before).await,
        };
        Ended { sessions, sockets }
    }
}

/// Makes the announcement of a session's end.
pub(super) fn announce_end(reason: SessionEnd) -> AnnounceEnd {
    Arc::new(move |user, session| {
        let change = Change::SessionEnded { session, reason };
        NewRow {
            room: Some(RoomId::personal(user)),
            kind: change.event().to_owned(),
            payload: change_record::fields(&change),
        }
    })
}

/// The sessions in a store, for the tokens that are verified.
pub struct StoredSessions(pub Arc<dyn DirectoryStore>);

#[async_trait]
impl Sessions for StoredSessions {
    async fn account(&self, session: Uuid) -> Result<Option<Account>, Refusal> {
        self.0.account_of_session(session).await.map_err(refused)
    }

    async fn bot(&self, digest: [u8; 32]) -> Result<Option<(Account, BotToken)>, Refusal> {
        self.0.account_of_bot(digest).await.map_err(refused)
    }

    async fn is_open(&self, session: Uuid) -> Result<bool, Refusal> {
        let account = self.0.account_of_session(session).await;
        if account.map_err(refused)?.is_some() {
            return Ok(true);
        }
        self.0.is_bot_token_valid(session).await.map_err(refused)
    }
}
