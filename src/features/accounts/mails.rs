//! The mails to users of accounts, as jobs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::auth::OneTimeToken;
use crate::domain::{Account, EmailAddress};
use crate::mail::{Mail, MailError, Mailer};
use crate::outbox::{
    AccountMail, AddressChanged, Job, JobError, JobPayload, MailSubject, PasswordForgotten,
};
use crate::store::{NewOneTimeToken, RecoveryStore, TokenPurpose};

/// How long a token is valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Finds the account for a forgotten password.
pub struct FindForgetfulAccount(pub Arc<dyn RecoveryStore>);

#[async_trait]
impl Job for FindForgetfulAccount {
    fn kind(&self) -> &'static str {
        PasswordForgotten::KIND
    }

    async fn run(&self, payload: &str) -> Result<(), JobError> {
        let email = PasswordForgotten::parse(payload)?.email()?;
        let subject = MailSubject::ResetPassword;
        let row = Arc::new(move |user| AccountMail { subject, user }.row());
        self.0.add_mail_to(&email, row).await?;
        Ok(())
    }
}

/// Sends the mails to users of accounts.
pub struct SendAccountMail {
    store: Arc<dyn RecoveryStore>,
    mailer: Arc<dyn Mailer>,
    /// The address that links begin with, without `/` at its end.
    public_url: String,
}

impl SendAccountMail {
    /// Sends mails by this mailer.
    pub fn new(store: Arc<dyn RecoveryStore>, mailer: Arc<dyn Mailer>, public_url: String) -> Self {
        Self {
            store,
            mailer,
            public_url,
        }
    }
}

#[async_trait]
impl Job for SendAccountMail {
    fn kind(&self) -> &'static str {
        AccountMail::KIND
    }

    async fn run(&self, payload: &str) -> Result<(), JobError> {
        let AccountMail { subject, user } = AccountMail::parse(payload)?;
        let Some(account) = self.store.active_account(user).await? else {
            return Ok(());
        };
        let email = account.email.as_deref().map(EmailAddress::parse);
        let Some(Ok(to)) = email else {
            return Ok(());
        };
        if subject == MailSubject::VerifyEmail && account.is_email_verified {
            return Ok(());
        }
        // Each attempt has a token of its own: the one of an attempt that failed is not stored in plain
        // text, and so not known any more.
        let token = OneTimeToken::random();
        let new = NewOneTimeToken {
            digest: token.digest(),
            user,
            purpose: purpose(subject),
            email: to.clone(),
            lifetime: TOKEN_LIFETIME,
        };
        if !self.store.add_token(new).await? {
            // The account has changed since it was read.
            return Err(JobError::Retry("the account has changed".to_owned()));
        }
        let mail = mail(subject, to, &account, &self.public_url, &token.encode());
        send(&*self.mailer, &mail).await
    }
}

/// Sends the notice of a changed address to the former one.
pub struct SendAddressNotice {
    store: Arc<dyn RecoveryStore>,
    mailer: Arc<dyn Mailer>,
}

impl SendAddressNotice {
    /// Sends mails by this mailer.
    pub fn new(store: Arc<dyn RecoveryStore>, mailer: Arc<dyn Mailer>) -> Self {
        Self { store, mailer }
    }
}

#[async_trait]
impl Job for SendAddressNotice {
    fn kind(&self) -> &'static str {
        AddressChanged::KIND
    }

    async fn run(&self, payload: &str) -> Result<(), JobError> {
        let changed = AddressChanged::parse(payload)?;
        let Some(account) = self.store.active_account(changed.user).await? else {
            return Ok(());
        };
        let mail = Mail {
            to: changed.email()?,
            subject: "The e-mail address of your account was changed",
            text: format!(
                "Hello {},\n\n\
                 the e-mail address of your account was changed, and is not this one any more. If it \
                 was not you, somebody else uses your account: change your password, log out all \
                 devices, and ask an admin for help if you can't.\n",
                account.username
            ),
        };
        match send(&*self.mailer, &mail).await {
            // A failed row would keep the address, and nobody can repair the mailbox.
            Err(JobError::Failed(_)) => {
                tracing::info!(user = %changed.user, "the mail server refused the notice to a former address");
                Ok(())
            }
            sent => sent,
        }
    }
}

async fn send(mailer: &dyn Mailer, mail: &Mail) -> Result<(), JobError> {
    mailer.send(mail).await.map_err(|error| match error {
        MailError::Unavailable(reason) => JobError::Retry(reason),
        MailError::Refused(reason) => JobError::Failed(reason),
    })
}

fn purpose(subject: MailSubject) -> TokenPurpose {
    match subject {
        MailSubject::VerifyEmail => TokenPurpose::VerifyEmail,
        MailSubject::ResetPassword => TokenPurpose::ResetPassword,
    }
}

/// The mail that asks a new user to prove the address.
pub(super) fn verification(user: Uuid) -> AccountMail {
    let subject = MailSubject::VerifyEmail;
    AccountMail { subject, user }
}

/// The token is in the fragment of the link: so it is in no server's log and no `Referer`.
fn mail(
    subject: MailSubject,
    to: EmailAddress,
    account: &Account,
    public_url: &str,
    token: &str,
) -> Mail {
    let name = &account.username;
    let (subject, text) = match subject {
        MailSubject::VerifyEmail => (
            "Confirm your e-mail address",
            format!(
                "Hello {name},\n\n\
                 please confirm that this is your e-mail address:\n\n\
                 {public_url}/verify-email#token={token}\n\n\
                 The link is valid for an hour. If you have not signed up, ignore this mail.\n"
            ),
        ),
        MailSubject::ResetPassword => (
            "Reset your password",
            format!(
                "Hello {name},\n\n\
                 somebody asked to reset the password of your account. To choose a new password, \
                 open this link:\n\n\
                 {public_url}/reset-password#token={token}\n\n\
                 The link is valid for an hour, and once. It logs out all your devices. If it was \
                 not you, ignore this mail: your password stays as it is.\n"
            ),
        ),
    };
    Mail { to, subject, text }
}
