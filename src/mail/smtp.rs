//! Mails by SMTP.

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::response::{Category, Severity};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use uuid::Uuid;

use super::{Mail, MailError, Mailer, Sender};
use crate::domain::EmailAddress;

/// How long connecting and each reply of the server may take, and all of them together.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// In place of a recipient's address.
const MASK: &str = "<the recipient>";

/// How the connection to the server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// By STARTTLS. Nothing is sent without it.
    StartTls,
    /// From the first byte.
    Tls,
}

/// The server that takes the mails.
#[derive(Clone)]
pub struct SmtpSettings {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name and the password for it.
    pub credentials: Option<(String, String)>,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// The sender of all mails.
    pub from: Sender,
}

/// Sends mails by SMTP, each by a connection of its own.
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Sender,
}

impl SmtpMailer {
    /// A mailer that uses this server. Connects for each mail.
    ///
    /// # Errors
    /// If the certificates of the system can't be used.
    pub fn new(settings: &SmtpSettings) -> Result<Self, MailError> {
        let parameters = || {
            let parameters = TlsParameters::new_rustls(settings.host.clone());
            parameters.map_err(|error| MailError::Unavailable(chain(&error)))
        };
        let tls = match settings.tls {
            SmtpTls::None => Tls::None,
            SmtpTls::StartTls => Tls::Required(parameters()?),
            SmtpTls::Tls => Tls::Wrapper(parameters()?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            .timeout(Some(REPLY_TIMEOUT))
            .tls(tls);
        if let Some((username, password)) = settings.credentials.clone() {
            builder = builder.credentials(Credentials::new(username, password));
        }
        Ok(Self {
            transport: builder.build(),
            from: settings.from.clone(),
        })
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let message = encode(&self.from, mail)?;
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.transport.send(message)).await;
        let Ok(sent) = sent else {
            let text = "the mail server does not respond".to_owned();
            return Err(MailError::Unavailable(text));
        };
        let Err(error) = sent else { return Ok(()) };
        let text = masked(chain(&error), &mail.to);
        let is_refused = error.status().is_some_and(|code| {
            // 53x: our credentials, or the lack of them. An operator can change them.
            code.severity == Severity::PermanentNegativeCompletion
                && code.category != Category::Unspecified3
        });
        Err(if is_refused {
            MailError::Refused(text)
        } else {
            MailError::Unavailable(text)
        })
    }
}

/// The text without the recipient's address, which the server may repeat in another letter case.
fn masked(mut text: String, recipient: &EmailAddress) -> String {
    let address = recipient.as_str().to_ascii_lowercase();
    let mut from = 0;
    while let Some(at) = text[from..].to_ascii_lowercase().find(&address) {
        let start = from + at;
        text.replace_range(start..start + address.len(), MASK);
        from = start + MASK.len();
    }
    text
}

fn encode(Sender(from): &Sender, mail: &Mail) -> Result<Message, MailError> {
    let refused = || MailError::Refused("the address can't be used in a mail".to_owned());
    let to: Address = mail.to.as_str().parse().map_err(|_| refused())?;
    let id = format!("<{}@{}>", Uuid::new_v4(), from.email.domain());
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(mail.subject)
        .message_id(Some(id))
        .header(ContentType::TEXT_PLAIN)
        .body(mail.text.clone())
        .map_err(|error| MailError::Refused(chain(&error)))
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(to: &str, text: &str) -> Result<String, MailError> {
        let from = Sender::parse("Hubbub <no-reply@example.com>").unwrap();
        let mail = Mail {
            to: EmailAddress::parse(to).unwrap(),
            subject: "Reset your password",
            text: text.to_owned(),
        };
        let message = encode(&from, &mail)?;
        Ok(String::from_utf8(message.formatted()).unwrap())
    }

    #[test]
    fn an_error_has_no_address_in_any_letter_case() {
        let ann = EmailAddress::parse("Ann@Example.com").unwrap();
        for (text, expected) in [
            (
                "550 <ann@example.com>: ANN@EXAMPLE.COM is unknown",
                "550 <<the recipient>>: <the recipient> is unknown",
            ),
            ("Grüße an Ann@Example.com", "Grüße an <the recipient>"),
            ("450 try later", "450 try later"),
        ] {
            assert_eq!(masked(text.to_owned(), &ann), expected);
        }
    }

    #[test]
    fn a_text_cannot_add_a_header() {
        let text = encoded("ann@example.com", "Hi\r\nBcc: x@example.com\n\n.\r\n").unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut names: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        names.sort_unstable();
        let expected = [
            "Content-Transfer-Encoding",
            "Content-Type",
            "Date",
            "From",
            "Message-ID",
            "Subject",
            "To",
        ];
        assert_eq!(names, expected, "{head}");
        assert!(body.contains("Bcc: x@example.com"));
    }

    #[test]
    fn every_address_of_an_account_is_in_the_header_as_it_is_or_is_refused() {
        for address in [
            "a@example.com",
            "ann.lee+x@mail.example.com",
            "ünï@example.com",
        ] {
            let text = encoded(address, "Hi").unwrap();
            let to = text.lines().filter(|line| line.starts_with("To:")).count();
            assert_eq!(to, 1, "{text}");
        }
        // An address that could break out of a header belongs to no account.
        for address in [
            "a@b\r\nBcc: x@y",
            "a@b\nx",
            "a\r@b",
            "a@b>\r\nDATA",
            "a@b, c@d",
        ] {
            assert!(EmailAddress::parse(address).is_err(), "{address:?}");
        }
    }
}
