//! The payloads of jobs.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::JobError;
use crate::domain::EmailAddress;
use crate::store::NewRow;

/// The payload of one kind of jobs.
pub trait JobPayload: Serialize + DeserializeOwned {
    /// The kind. It is stored.
    const KIND: &'static str;

    /// The row of a job. Equal payloads have equal texts.
    #[must_use]
    fn row(&self) -> NewRow {
        NewRow {
            room: None,
            kind: Self::KIND.to_owned(),
            payload: serde_json::to_string(self).expect("a payload always serialises"),
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// `Failed` if it is malformed.
    fn parse(payload: &str) -> Result<Self, JobError> {
        let parsed = serde_json::from_str(payload);
        parsed.map_err(|_| JobError::Failed("the payload is malformed".to_owned()))
    }
}

/// Somebody has forgotten the password of the account with an address, if there is such an account.
#[derive(Debug, Serialize, Deserialize)]
pub struct PasswordForgotten {
    email: String,
}

impl PasswordForgotten {
    /// Of the account with this address.
    #[must_use]
    pub fn of(email: &EmailAddress) -> Self {
        let email = email.as_str().to_owned();
        Self { email }
    }

    /// The address.
    ///
    /// # Errors
    /// `Failed` if it is none.
    pub fn email(&self) -> Result<EmailAddress, JobError> {
        address(&self.email)
    }
}

impl JobPayload for PasswordForgotten {
    const KIND: &'static str = "password_forgotten";
}

/// The subject of a mail to the user of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailSubject {
    /// The proof that the address is the user's.
    VerifyEmail,
    /// A link that resets the password.
    ResetPassword,
}

impl MailSubject {
    /// All subjects.
    pub const ALL: [Self; 2] = [Self::VerifyEmail, Self::ResetPassword];
}

/// A mail to the user of an account. It has neither the address nor the token of the mail: the one is
/// read, and the other made, when the mail is sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccountMail {
    /// Its subject.
    pub subject: MailSubject,
    /// The user.
    pub user: Uuid,
}

impl JobPayload for AccountMail {
    const KIND: &'static str = "account_mail";
}

/// The address of an account was changed. The payload has the former one, because the account has it no
/// more.
#[derive(Debug, Serialize, Deserialize)]
pub struct AddressChanged {
    /// The user.
    pub user: Uuid,
    email: String,
}

impl AddressChanged {
    /// Of an account that had this address.
    #[must_use]
    pub fn from(user: Uuid, email: &str) -> Self {
        let email = email.to_owned();
        Self { user, email }
    }

    /// The former address.
    ///
    /// # Errors
    /// `Failed` if it is none.
    pub fn email(&self) -> Result<EmailAddress, JobError> {
        address(&self.email)
    }
}

impl JobPayload for AddressChanged {
    const KIND: &'static str = "address_changed";
}

fn address(text: &str) -> Result<EmailAddress, JobError> {
    let email = EmailAddress::parse(text);
    email.map_err(|_| JobError::Failed("the payload has no address".to_owned()))
}

/// The messages of a deleted user are made anonymous.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetUser {
    /// The user.
    pub user: Uuid,
}

impl JobPayload for ForgetUser {
    const KIND: &'static str = "forget_user";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_as_they_were_written() {
        let user = Uuid::from_u128(7);
        let subject = MailSubject::ResetPassword;
        let row = AccountMail { subject, user }.row();
        assert_eq!((row.room, row.kind.as_str()), (None, "account_mail"));
        assert_eq!(
            row.payload,
            r#"{"subject":"reset_password","user":"00000000-0000-0000-0000-000000000007"}"#
        );
        let read = AccountMail::parse(&row.payload).unwrap();
        assert_eq!((read.subject, read.user), (subject, user));

        let email = EmailAddress::parse("ann@example.com").unwrap();
        let row = PasswordForgotten::of(&email).row();
        let read = PasswordForgotten::parse(&row.payload).unwrap();
        assert_eq!(read.email().unwrap().as_str(), "ann@example.com");
        for payload in ["", "{}", "{\"email\":7}"] {
            assert!(PasswordForgotten::parse(payload).is_err(), "{payload}");
        }
        let row = AddressChanged::from(user, "ann@example.com").row();
        // The deletion of an account finds the row by this beginning.
        let beginning = r#"{"user":"00000000-0000-0000-0000-000000000007""#;
        assert!(row.payload.starts_with(beginning), "{}", row.payload);
        let read = AddressChanged::parse(&row.payload).unwrap();
        assert_eq!(read.user, user);
        assert_eq!(read.email().unwrap().as_str(), "ann@example.com");
        let injected = r#"{"email":"a@b\r\nBcc: x@y"}"#;
        assert!(PasswordForgotten::parse(injected).unwrap().email().is_err());
    }
}
