//! Tokens of bots, durably.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{AnnounceEnd, Digest, Once, Performed, Result};
use crate::domain::{Account, BotToken, DisplayName, TokenScopes};

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewBotToken {
    /// Its id.
    pub id: Uuid,
    /// The user that it identifies.
    pub user: Uuid,
    /// The SHA-256 of its secret.
    pub digest: Digest,
    /// Its name, for people.
    pub name: DisplayName,
    /// The acts that it is valid for.
    pub scopes: TokenScopes,
    /// How long it is valid.
    pub lifetime: Duration,
    /// The most tokens that a user may have.
    pub most: usize,
}

/// Tokens of bots. Times come from the database's clock.
#[async_trait]
pub trait BotTokenStore: Send + Sync {
    /// Makes a token, and removes those of the user that have expired. `None` if the user has the most
    /// tokens already, is disabled or does not exist.
    ///
    /// # Errors
    /// `Unavailable`: it may have been made.
    async fn create_bot_token(&self, token: NewBotToken) -> Result<Option<BotToken>> {
        let performed = self.create_bot_token_once(token, Once::without_key()).await;
        Ok(performed?.outcome().flatten())
    }

    /// As [`create_bot_token`](Self::create_bot_token), once for each request.
    ///
    /// # Errors
    /// `Unavailable`: the token may have been made.
    async fn create_bot_token_once(
        &self,
        token: NewBotToken,
        once: Once<Option<BotToken>>,
    ) -> Result<Performed<Option<BotToken>>>;

    /// The tokens of a user in the order in which they were made.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn bot_tokens(&self, user: Uuid) -> Result<Vec<BotToken>>;

    /// Deletes a token of the user together with the announcement of its end. False if there is none.
    ///
    /// # Errors
    /// `Unavailable`: it may be deleted.
    async fn delete_bot_token(
        &self,
        user: Uuid,
        token: Uuid,
        announce: AnnounceEnd,
    ) -> Result<bool>;

    /// The valid token of this digest and its account, unless that is disabled. Records that the token is
    /// used, to a minute.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn account_of_bot(&self, digest: Digest) -> Result<Option<(Account, BotToken)>>;

    /// Whether this token is valid, and its account not disabled.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn is_bot_token_valid(&self, token: Uuid) -> Result<bool>;
}
