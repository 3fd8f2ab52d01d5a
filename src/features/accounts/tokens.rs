//! Tokens of bots.

use std::time::Duration;

use uuid::Uuid;

use super::sessions::announce_end;
use super::{AccountCaller, Accounts, refused};
use crate::auth::{digest, new_bot_secret};
use crate::domain::{BotToken, Code, DisplayName, Refusal, SessionEnd, TokenScope, TokenScopes};
use crate::features::idempotency::{Answered, Once};
use crate::store::NewBotToken;

/// The most tokens of a user.
const MAX_TOKENS: usize = 100;
/// How long a token is valid by default, and at most.
const DEFAULT_DAYS: u64 = 90;
const MAX_DAYS: u64 = 3650;
const SECONDS_PER_DAY: u64 = 86_400;

/// A token to make, not yet checked.
#[derive(Debug, Clone, Default)]
pub struct BotTokenRequest {
    /// Its name, for people.
    pub name: String,
    /// The names of its scopes.
    pub scopes: Vec<String>,
    /// For how many days it is valid.
    pub expires_in_days: Option<u64>,
}

impl Accounts {
    /// Makes a token with the caller's identity, once for each request. The result is the token with its
    /// secret, which is not stored.
    ///
    /// # Errors
    /// `bad_request`, `too_large`; `forbidden` for the scope `admin` of another than an admin; `conflict`
    /// for the most tokens that a user may have; `unavailable`.
    pub async fn create_token(
        &self,
        caller: AccountCaller,
        request: BotTokenRequest,
        once: Once<(BotToken, String)>,
    ) -> Result<Answered, Refusal> {
        let name = DisplayName::parse("name", &request.name)?;
        let scopes = parse_scopes(&request.scopes)?;
        if scopes.contains(TokenScope::Admin) && !caller.is_admin {
            return Err(Refusal::new(
                Code::Forbidden,
                "only admins make tokens with the scope admin",
            ));
        }
        let lifetime = days("expires_in_days", request.expires_in_days, DEFAULT_DAYS)?;
        let secret = new_bot_secret();
        let token = NewBotToken {
            id: Uuid::now_v7(),
            user: caller.user,
            digest: digest(secret.as_bytes()),
            name,
            scopes,
            lifetime,
            most: MAX_TOKENS,
        };
        let result = move |made: &Option<BotToken>| match made {
            Some(made) => Ok((made.clone(), secret.clone())),
            None => {
                let text = format!("a user has at most {MAX_TOKENS} tokens: delete one");
                Err(Refusal::new(Code::Conflict, text))
            }
        };
        once.perform(result, |once| self.store.create_bot_token_once(token, once))
            .await
    }

    /// The caller's tokens, without their secrets.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn tokens(&self, caller: AccountCaller) -> Result<Vec<BotToken>, Refusal> {
        self.store.bot_tokens(caller.user).await.map_err(refused)
    }

    /// Deletes a token of the caller. Returns the number of its sockets that were closed.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn delete_token(&self, caller: AccountCaller, token: Uuid) -> Result<usize, Refusal> {
        let announce = announce_end(SessionEnd::TokenDeleted);
        let before = self.sockets.of(caller.user).await;
        let deleted = self.store.delete_bot_token(caller.user, token, announce);
        if !deleted.await.map_err(refused)? {
            return Err(Refusal::new(Code::NotFound, "there is no such token"));
        }
        let ended = self.ended(caller.user, &before, 1).await;
        Ok(ended.sockets)
    }
}

fn parse_scopes(names: &[String]) -> Result<TokenScopes, Refusal> {
    let unknown =
        || Refusal::bad_request("scopes must be some of read, send, publish, chats and admin");
    if names.is_empty() {
        return Err(unknown());
    }
    let scopes = names.iter();
    let scopes = scopes.map(|name| TokenScope::named(name).ok_or_else(unknown));
    scopes.collect()
}

/// A number of days.
pub(super) fn days(
    field: &'static str,
    days: Option<u64>,
    default: u64,
) -> Result<Duration, Refusal> {
    let days = days.unwrap_or(default);
    if !(1..=MAX_DAYS).contains(&days) {
        let text = format!("{field} must be a whole number from 1 to {MAX_DAYS}");
        return Err(Refusal::bad_request(text));
    }
    Ok(Duration::from_secs(days * SECONDS_PER_DAY))
}
