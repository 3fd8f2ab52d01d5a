//! Invitations to sign up, durably.

use std::time::Duration;

use async_trait::async_trait;

use super::{CreateOutcome, Digest, NewAccount, NewSession, Once, Performed, Result};
use crate::domain::{Actor, EmailAddress, Timestamp};

/// An invitation to make.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// The SHA-256 of its code.
    pub digest: Digest,
    /// The only address that may sign up by it; `None`: any.
    pub email: Option<EmailAddress>,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// Invitations. Times come from the database's clock.
#[async_trait]
pub trait InviteStore: Send + Sync {
    /// Makes an invitation, once for each request, and removes those that have expired. Returns when it
    /// expires.
    ///
    /// # Errors
    /// `Unavailable`: it may have been made.
    async fn create_invite(
        &self,
        actor: Actor,
        invite: NewInvite,
        once: Once<Timestamp>,
    ) -> Result<Performed<Timestamp>>;

    /// Creates an account by an invitation, which is used up then, and begins its first session, in one
    /// transaction. Of any number of calls with one invitation one succeeds.
    ///
    /// # Errors
    /// `Unavailable`: the account may have been created.
    async fn create_invited(
        &self,
        account: NewAccount,
        session: NewSession,
        invite: Digest,
        once: Once<CreateOutcome>,
    ) -> Result<Performed<CreateOutcome>>;
}
