//! Section: mails, to the users of accounts.

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section};
use super::parse::{Parsed, http_url, is_loopback, is_unprotected, number, text};
use super::values::Values;
use crate::mail::{MailerSettings, Sender, SmtpSettings, SmtpTls};

const HOST: Key = Key {
    name: "SMTP_HOST",
    summary: "The mail server that takes the mails to users: its name or address.",
    help: "Not set: a node on a loopback address without `TRUSTED_PROXIES` writes mails to its log, and \
           any other answers `not_configured` where a mail is needed.",
    example: "smtp.example.com",
    see: "accounts.md#mail",
    ..Key::PLAIN
};
const PORT: Key = Key {
    name: "SMTP_PORT",
    default: KeyDefault::Derived("587 with `SMTP_TLS=starttls`, 465 with `tls`, 25 with `none`"),
    summary: "TCP port of the mail server.",
    example: "587",
    ..Key::PLAIN
};
const USERNAME: Key = Key {
    name: "SMTP_USERNAME",
    summary: "Name for the mail server. Needs `SMTP_PASSWORD`.",
    example: "hubbub",
    ..Key::PLAIN
};
const PASSWORD: Key = Key {
    name: "SMTP_PASSWORD",
    summary: "Password for the mail server.",
    ..Key::SECRET
};
const TLS: Key = Key {
    name: "SMTP_TLS",
    default: KeyDefault::Derived("`none` for a server on a loopback address, else `starttls`"),
    summary: "How the connection to the mail server is encrypted: by `starttls`, by `tls` from its \
              first byte, or not at all (`none`).",
    help: "With `starttls` and `tls` nothing is sent to a server without a valid certificate.",
    example: "starttls",
    ..Key::PLAIN
};
const FROM: Key = Key {
    name: "MAIL_FROM",
    summary: "Sender of all mails: an address, or a name and `<address>`. Needed with `SMTP_HOST`.",
    example: "no-reply@example.com",
    ..Key::PLAIN
};
const PUBLIC_URL: Key = Key {
    name: "PUBLIC_URL",
    default: KeyDefault::Derived("on a loopback address `http://localhost:<SERVER_PORT>`"),
    summary: "Address of the application, with which links in mails and in invitations begin. Needed \
              with `SMTP_HOST`.",
    help: "The links are `<PUBLIC_URL>/verify-email#token=…`, `<PUBLIC_URL>/reset-password#token=…` and \
           `<PUBLIC_URL>/signup#invite=…`.",
    example: "https://chat.example.com",
    see: "accounts.md#mail",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Mail",
    intro: "Mails verify addresses and reset passwords of accounts.",
    keys: &[&HOST, &PORT, &USERNAME, &PASSWORD, &TLS, &FROM, &PUBLIC_URL],
};

/// How mails are sent, and where their links lead.
pub(crate) struct MailConfig {
    pub mailer: MailerSettings,
    /// Without `/` at its end.
    pub public_url: String,
}

/// The settings of the server that the section depends on.
pub(super) struct Server {
    pub is_public: bool,
    /// Whether proxies that are trusted forward the requests of others to it.
    pub is_proxied: bool,
    pub port: u16,
}

/// The section's settings.
pub(super) struct MailSettings {
    /// `None` if mails can't be sent.
    pub mail: Option<MailConfig>,
    /// The address of the application, without `/` at its end. Invitations use it without mails, too.
    pub public_url: Option<String>,
}

/// Parses the section.
pub(super) fn parse(
    values: &mut Values,
    server: &Server,
    warnings: &mut Vec<String>,
) -> Result<MailSettings, ConfigError> {
    let public_url = public_url(values, server, warnings)?;
    let mail = parse_mail(values, server, public_url.clone(), warnings)?;
    Ok(MailSettings { mail, public_url })
}

/// `None` if mails can't be sent.
fn parse_mail(
    values: &mut Values,
    server: &Server,
    public_url: Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<MailConfig>, ConfigError> {
    let host = values.optional(&HOST, host)?;
    let tls = values.optional(&TLS, smtp_tls)?;
    let port = values.optional(&PORT, number(1, u16::MAX.into()))?;
    let username = values.optional(&USERNAME, text)?;
    let password = values.optional(&PASSWORD, text)?;
    let from = values.optional(&FROM, sender)?;
    let Some(host) = host else {
        if username.is_some() {
            return Err(values.error(&USERNAME, "means nothing without SMTP_HOST"));
        }
        return Ok(match public_url {
            // The links are those of real users where others reach the node.
            Some(public_url) if !server.is_public && !server.is_proxied => Some(MailConfig {
                mailer: MailerSettings::Log,
                public_url,
            }),
            _ => None,
        });
    };
    let is_local = is_loopback(&host);
    let tls = tls.unwrap_or(if is_local {
        SmtpTls::None
    } else {
        SmtpTls::StartTls
    });
    let port = port.unwrap_or(match tls {
        SmtpTls::None => 25,
        SmtpTls::StartTls => 587,
        SmtpTls::Tls => 465,
    });
    values.record(&TLS, Some(name(tls).to_owned()));
    values.record(&PORT, Some(port.to_string()));
    if tls == SmtpTls::None && !is_local {
        warnings.push(
            "SMTP_TLS is none: anyone on the network path can read the links in mails, and with \
             them log in as the recipient"
                .to_owned(),
        );
    }
    let credentials = match (username, password) {
        (Some(username), Some(password)) => Some((username, password)),
        (None, None) => None,
        (Some(_), None) => return Err(ConfigError::of(&PASSWORD, "is needed with SMTP_USERNAME")),
        (None, Some(_)) => return Err(ConfigError::of(&USERNAME, "is needed with SMTP_PASSWORD")),
    };
    let needed = "is needed with SMTP_HOST";
    let from = from.ok_or_else(|| ConfigError::of(&FROM, needed))?;
    let public_url = public_url.ok_or_else(|| ConfigError::of(&PUBLIC_URL, needed))?;
    let settings = SmtpSettings {
        host,
        port,
        credentials,
        tls,
        from,
    };
    Ok(Some(MailConfig {
        mailer: MailerSettings::Smtp(settings),
        public_url,
    }))
}

fn public_url(
    values: &mut Values,
    server: &Server,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, ConfigError> {
    let given = values.optional(&PUBLIC_URL, |text| {
        let url = http_url(text)?;
        if url.query().is_some() || text.contains('#') {
            return Err("must have no query and no fragment".to_owned());
        }
        let is_unprotected = is_unprotected(&url);
        Ok((text.trim_end_matches('/').to_owned(), is_unprotected))
    })?;
    match given {
        Some((url, is_unprotected)) => {
            if is_unprotected {
                warnings.push(
                    "PUBLIC_URL is not https: anyone on the network path can read new passwords"
                        .to_owned(),
                );
            }
            Ok(Some(url))
        }
        None if server.is_public => Ok(None),
        None => {
            let url = format!("http://localhost:{}", server.port);
            values.record(&PUBLIC_URL, Some(url.clone()));
            Ok(Some(url))
        }
    }
}

fn host(text: &str) -> Parsed<String> {
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if text.chars().all(is_host) {
        return Ok(text.to_owned());
    }
    Err("must be a host name or an IP address".to_owned())
}

fn sender(text: &str) -> Parsed<Sender> {
    Sender::parse(text).map_err(|refusal| refusal.text.into_owned())
}

fn smtp_tls(text: &str) -> Parsed<SmtpTls> {
    [SmtpTls::None, SmtpTls::StartTls, SmtpTls::Tls]
        .into_iter()
        .find(|tls| name(*tls) == text)
        .ok_or_else(|| "must be starttls, tls or none".to_owned())
}

fn name(tls: SmtpTls) -> &'static str {
    match tls {
        SmtpTls::None => "none",
        SmtpTls::StartTls => "starttls",
        SmtpTls::Tls => "tls",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::config::Config;
    use crate::mail::{MailerSettings, SmtpTls};

    fn config(settings: &[(&str, &str)]) -> Result<Config, String> {
        let common = [
            ("DATABASE_URL", "none"),
            ("JWT_SECRET", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ];
        let environment: BTreeMap<String, String> = common
            .iter()
            .chain(settings)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Config::from_sources(environment, Path::new("/nonexistent/.env"))
            .map_err(|error| error.to_string())
    }

    const FROM: (&str, &str) = ("MAIL_FROM", "a@example.com");
    const PUBLIC: (&str, &str) = ("SERVER_HOST", "0.0.0.0");
    const PROXIED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1");
    const URL: (&str, &str) = ("PUBLIC_URL", "https://chat.example.com/");

    #[test]
    fn mails_go_to_the_log_only_of_a_node_on_a_loopback_address() {
        let mail = config(&[]).unwrap().mail.unwrap();
        assert!(matches!(mail.mailer, MailerSettings::Log));
        assert_eq!(mail.public_url, "http://localhost:8080");
        assert!(config(&[PUBLIC]).unwrap().mail.is_none());
        assert!(config(&[PUBLIC, URL]).unwrap().mail.is_none());
        // Real users are behind the proxy.
        assert!(config(&[PROXIED]).unwrap().mail.is_none());
        let not_proxied = ("TRUSTED_PROXIES", "none");
        assert!(config(&[not_proxied]).unwrap().mail.is_some());
    }

    #[test]
    fn a_server_elsewhere_is_used_by_starttls_unless_configured_otherwise() {
        for (host, tls, expected, port) in [
            ("127.0.0.1", None, SmtpTls::None, 25),
            ("localhost", Some("tls"), SmtpTls::Tls, 465),
            ("smtp.example.com", None, SmtpTls::StartTls, 587),
            ("smtp.example.com", Some("none"), SmtpTls::None, 25),
        ] {
            let mut settings = vec![PUBLIC, URL, FROM, ("SMTP_HOST", host)];
            settings.extend(tls.map(|tls| ("SMTP_TLS", tls)));
            let config = config(&settings).unwrap();
            let mail = config.mail.unwrap();
            let MailerSettings::Smtp(smtp) = mail.mailer else {
                panic!("{host}: mails go to the log");
            };
            assert_eq!((smtp.tls, smtp.port), (expected, port), "{host}");
            assert_eq!(mail.public_url, "https://chat.example.com");
            let warns = config.warnings.iter().any(|it| it.contains("SMTP_TLS"));
            assert_eq!(warns, tls == Some("none"), "{host}");
        }
    }

    #[test]
    fn a_server_needs_a_sender_an_address_of_links_and_both_or_none_of_name_and_password() {
        const HOST: (&str, &str) = ("SMTP_HOST", "smtp.example.com");
        for (settings, key) in [
            (&[PUBLIC, HOST, URL][..], "MAIL_FROM"),
            (&[PUBLIC, HOST, FROM], "PUBLIC_URL"),
            (&[HOST, FROM, ("SMTP_USERNAME", "a")], "SMTP_PASSWORD"),
            (&[HOST, FROM, ("SMTP_PASSWORD", "a")], "SMTP_USERNAME"),
            (&[("SMTP_USERNAME", "a")], "SMTP_USERNAME"),
            (&[HOST, ("MAIL_FROM", "a@b\r\nBcc: c@d")], "MAIL_FROM"),
            (&[HOST, FROM, ("SMTP_TLS", "yes")], "SMTP_TLS"),
            (&[("SMTP_HOST", "a b")], "SMTP_HOST"),
            (&[("PUBLIC_URL", "https://a/?x=1")], "PUBLIC_URL"),
            (&[("PUBLIC_URL", "ftp://a/")], "PUBLIC_URL"),
        ] {
            let error = config(settings).map(drop).unwrap_err();
            assert!(error.contains(key), "{settings:?}: {error}");
        }
        let shown = config(&[
            HOST,
            FROM,
            ("SMTP_USERNAME", "u"),
            ("SMTP_PASSWORD", "hunter2"),
        ]);
        assert!(!shown.unwrap().render().contains("hunter2"));
    }
}
