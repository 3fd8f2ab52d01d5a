//! Sessions that have begun.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Accounts, LoggedIn, refused};
use crate::auth::{RefreshToken, Sessions, random_bytes};
use crate::backplane::change_record;
use crate::domain::{Account, Change, Code, Refusal, RoomId, SessionEnd};
use crate::store::{AccountStore, AnnounceEnd, Exchange, ExchangeOutcome, NewRow};

impl Accounts {
    /// The account of a session.
    ///
    /// # Errors
    /// `unauthorized` if the session has ended; `unavailable`.
    pub async fn own(&self, session: &Uuid) -> Result<Account, Refusal> {
        let account = self.store.account_of_session(*session).await;
        let ended = || Refusal::new(Code::Unauthorized, "the session has ended");
        account.map_err(refused)?.ok_or_else(ended)
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

/// Makes the announcement of a session's end.
fn announce_end(reason: SessionEnd) -> AnnounceEnd {
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
pub struct StoredSessions(pub Arc<dyn AccountStore>);

#[async_trait]
impl Sessions for StoredSessions {
    async fn account(&self, session: Uuid) -> Result<Option<Account>, Refusal> {
        self.0.account_of_session(session).await.map_err(refused)
    }
}
