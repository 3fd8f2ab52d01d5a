//! Signing up.

use uuid::Uuid;

use super::invites::invite_digest;
use super::mails::verification;
use super::{Accounts, Device, LoggedIn, SignUpMode, email_taken, logged_in, username_taken};
use crate::auth::NewPassword;
use crate::domain::{AccountName, Code, DisplayName, EmailAddress, Refusal};
use crate::features::idempotency::{Answered, Once};
use crate::outbox::JobPayload as _;
use crate::store::{CreateOutcome, NewAccount};

/// A request to sign up, not yet checked.
#[derive(Debug, Clone, Default)]
pub struct SignUp {
    /// The e-mail address.
    pub email: String,
    /// The unique name.
    pub username: String,
    /// The password.
    pub password: String,
    /// The name for people; the unique name by default.
    pub display_name: Option<String>,
    /// The code of an invitation.
    pub invite: Option<String>,
}

impl Accounts {
    /// Creates an account and begins its first session, once for each request.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `forbidden` where signing up is closed, `username_taken`,
    /// `email_taken`, `idempotency_mismatch`, `overloaded`, `unavailable`.
    pub async fn sign_up(
        &self,
        request: SignUp,
        device: Device,
        once: Once<LoggedIn>,
    ) -> Result<Answered, Refusal> {
        let invite = request.invite.as_deref();
        let invite = match (self.settings.sign_up, invite) {
            (SignUpMode::Open, _) => None,
            (SignUpMode::Invite, Some(code)) => Some(invite_digest(code)),
            (SignUpMode::Invite, None) => {
                let text = "signing up needs an invitation on this server";
                return Err(Refusal::new(Code::Forbidden, text).field("invite"));
            }
            (SignUpMode::Closed, _) => {
                let text = "signing up is closed on this server";
                return Err(Refusal::new(Code::Forbidden, text));
            }
        };
        let username = AccountName::parse(&request.username)?;
        let email = EmailAddress::parse(&request.email)?;
        let display_name = request.display_name.as_deref();
        let display_name = display_name.unwrap_or(username.as_str());
        let display_name = DisplayName::parse("display_name", display_name)?;
        let names = [username.as_str(), email.as_str()];
        let password = NewPassword::parse(&request.password, &names);
        let password = password.map_err(|refusal| refusal.field("password"))?;
        let (session, refresh_token) = self.new_session(device);
        let id = session.id;
        let user = Uuid::now_v7();
        let mut rows = Vec::new();
        if self.settings.sends_mails {
            rows.push(verification(user).row());
        }
        let account = NewAccount {
            id: user,
            username,
            email,
            display_name,
            password: self.passwords.hash(password).await?,
            role: None,
            rows,
        };
        let tokens = self.tokens.clone();
        let result = move |outcome: &CreateOutcome| match outcome {
            CreateOutcome::Created(account) => {
                logged_in(&tokens, account.clone(), id, &refresh_token)
            }
            CreateOutcome::UsernameTaken => Err(username_taken()),
            CreateOutcome::EmailTaken => Err(email_taken()),
            CreateOutcome::InviteInvalid => Err(invite_invalid()),
        };
        once.perform(result, |once| async move {
            match invite {
                Some(invite) => {
                    let invited = self.store.create_invited(account, session, invite, once);
                    invited.await
                }
                None => self.store.create(account, Some(session), once).await,
            }
        })
        .await
    }
}

pub(super) fn invite_invalid() -> Refusal {
    Refusal::new(
        Code::Forbidden,
        "the invitation is not valid, or is for another e-mail address",
    )
}
