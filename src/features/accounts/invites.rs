//! Invitations to sign up.

use super::tokens::days;
use super::{AccountCaller, Accounts};
use crate::auth::{digest, random_text};
use crate::domain::{Actor, EmailAddress, Refusal, Timestamp};
use crate::features::idempotency::{Answered, Once};
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
    /// Makes an invitation, for one account, once for each request.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `idempotency_mismatch`, `unavailable`.
    pub async fn create_invite(
        &self,
        caller: AccountCaller,
        request: InviteRequest,
        once: Once<Invite>,
    ) -> Result<Answered, Refusal> {
        let email = request.email.as_deref().map(EmailAddress::parse);
        let code = random_text();
        let invite = NewInvite {
            digest: invite_digest(&code),
            email: email.transpose()?,
            lifetime: days("expires_in_days", request.expires_in_days, DEFAULT_DAYS)?,
        };
        let actor = Actor::Admin(caller.user);
        let pages = self.public_url.as_deref().unwrap_or_default();
        let url = format!("{}{PAGE}{code}", pages.trim_end_matches('/'));
        let result = move |expires_at: &Timestamp| {
            Ok(Invite {
                code: code.clone(),
                url: url.clone(),
                expires_at: *expires_at,
            })
        };
        once.perform(result, |once| self.store.create_invite(actor, invite, once))
            .await
    }
}

/// The digest of an invitation's code.
pub(super) fn invite_digest(code: &str) -> Digest {
    digest(format!("invite {code}").as_bytes())
}
