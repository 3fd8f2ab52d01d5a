//! Mails: their parts, and how they are sent.
//!
//! Every part of a header is typed: an address has no line breaks, and a subject is a constant of the
//! program. So no input of a client can add a header.

mod log;
mod smtp;

use std::sync::Arc;

use async_trait::async_trait;
use lettre::message::Mailbox;

use crate::domain::{EmailAddress, Refusal};

pub use log::LogMailer;
pub use smtp::{SmtpMailer, SmtpSettings, SmtpTls};

/// A mail to one recipient, as plain text.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The recipient.
    pub to: EmailAddress,
    /// The subject.
    pub subject: &'static str,
    /// The text. Lines end with `\n`.
    pub text: String,
}

/// The sender of all mails: an address, with or without a name.
#[derive(Debug, Clone)]
pub struct Sender(Mailbox);

impl Sender {
    /// Parses `address`, or `name <address>`.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refused = || Refusal::bad_request("must be an address, or a name and <address>");
        if text.chars().any(char::is_control) {
            return Err(refused());
        }
        text.parse().map(Self).map_err(|_| refused())
    }
}

/// Where mails go.
#[derive(Clone)]
pub enum MailerSettings {
    /// To the log.
    Log,
    /// To a mail server.
    Smtp(SmtpSettings),
}

impl MailerSettings {
    /// The mailer with these settings.
    ///
    /// # Errors
    /// If the certificates of the system can't be used.
    pub fn mailer(&self) -> Result<Arc<dyn Mailer>, MailError> {
        Ok(match self {
            Self::Log => Arc::new(LogMailer),
            Self::Smtp(settings) => Arc::new(SmtpMailer::new(settings)?),
        })
    }
}

/// A mail was not sent. The text has neither the recipient's address nor the mail's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// Another attempt may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// The server refuses this mail for good.
    #[error("{0}")]
    Refused(String),
}

/// Sends mails.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Sends a mail. After `Unavailable` the recipient may have received it nevertheless.
    ///
    /// # Errors
    /// See [`MailError`].
    async fn send(&self, mail: &Mail) -> Result<(), MailError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_an_address_with_or_without_a_name() {
        for text in [
            "a@example.com",
            "Hubbub <a@example.com>",
            "\"A, B\" <a@example.com>",
        ] {
            assert!(Sender::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a",
            "a@example.com, b@example.com",
            "a@example.com\r\nBcc: b@example.com",
            "Hub\r\nBcc: x@y.example <a@example.com>",
            "Hubbub <a@example.com>\n",
        ] {
            assert!(Sender::parse(text).is_err(), "{text:?}");
        }
    }
}
