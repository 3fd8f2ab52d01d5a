//! Invitations to sign up.

use super::tokens::days;
use super::{AccountCaller, Accounts, refused};
use crate::auth::{RefreshToken, digest};
use crate::domain::{Actor, EmailAddress, Refusal, Timestamp};
use crate::store::{Digest, NewInvite};

/// How long an invitation is valid by default, in days.
const DEFAULT_DAYS: u64 = 7;
/// The page to sign up.
const PAGE: &str = "/signup#invite=";

/// An invitation to make, not yet checked.
#[derive(Debug, Clone, Default)]
pub struct InviteRequest {
    /// The only address that may sign up by it.
    pub email: Option<String>,
    /// For how many days it is valid.
    pub expires_in_days: Option<u64>,
}

/// An invitation that was made now.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Its code, which is not stored.
    pub code: String,
    /// The page to sign up by it.
    pub url: String,
    /// When it stops being valid.
    pub expires_at: Timestamp,
}

impl Accounts {
    /// Makes an invitation, for one account.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `unavailable`.
    pub async fn create_invite(
        &self,
        caller: AccountCaller,
        request: InviteRequest,
    ) -> Result<Invite, Refusal> {
        let email = request.email.as_deref().map(EmailAddress::parse);
        let code = RefreshToken::random().encode();
        let invite = NewInvite {
            digest: invite_digest(&code),
            email: email.transpose()?,
            lifetime: days("expires_in_days", request.expires_in_days, DEFAULT_DAYS)?,
        };
        let actor = Actor::Admin(caller.user);
        let expires_at = self.store.create_invite(actor, invite).await;
        let pages = self.public_url.as_deref().unwrap_or_default();
        Ok(Invite {
            url: format!("{}{PAGE}{code}", pages.trim_end_matches('/')),
            expires_at: expires_at.map_err(refused)?,
            code,
        })
    }
}

/// The digest of an invitation's code.
pub(super) fn invite_digest(code: &str) -> Digest {
    digest(format!("invite {code}").as_bytes())
}
