//! Mails in the log of a node, for development.

use async_trait::async_trait;

use super::{Mail, MailError, Mailer};

/// Writes mails to the log. They contain links that give access to accounts, so it is for nodes that
/// only this machine reaches.
pub struct LogMailer;

#[async_trait]
impl Mailer for LogMailer {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let Mail { subject, text, .. } = mail;
        tracing::info!(
            subject,
            text,
            "a mail, in the log because SMTP_HOST is not set"
        );
        Ok(())
    }
}
