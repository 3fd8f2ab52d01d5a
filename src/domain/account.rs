//! The parts of an account as values that are well-formed: name, e-mail address, role.

use std::fmt;

use super::id::UserId;
use super::refusal::{Code, Refusal};
use super::time::Timestamp;

/// The longest user name, in characters.
const MAX_ACCOUNT_NAME: usize = 32;
/// The longest e-mail address, in bytes (RFC 5321).
const MAX_EMAIL_BYTES: usize = 254;
/// The longest URL of a picture, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// The longest display name and status, in bytes of UTF-8.
const MAX_DISPLAY_NAME_BYTES: usize = 128;

/// The name and the display name of every deleted account. No account can choose the name.
pub const DELETED_USERNAME: &str = "deleted user";
/// See [`DELETED_USERNAME`].
pub const DELETED_DISPLAY_NAME: &str = "Deleted user";

/// The name of an account: 1 to 32 of `A-Z`, `a-z`, `0-9`, `_`, `.` and `-`, the first one no dot or
/// hyphen. Names that differ in case only are the same name.
#[derive(Debug, Clone)]
pub struct AccountName(Box<str>);

impl AccountName {
    /// Checks a name.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        if value.len() > MAX_ACCOUNT_NAME {
            let text = format!("username must be at most {MAX_ACCOUNT_NAME} characters");
            return Err(Refusal::new(Code::TooLarge, text).field("username"));
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let begins_well = value
            .bytes()
            .next()
            .is_some_and(|first| first != b'.' && first != b'-');
        if !begins_well || !value.bytes().all(is_allowed) {
            return Err(Refusal::bad_request(
                "username must consist of A-Z, a-z, 0-9, _, . and -, and begin with none of . and -",
            )
            .field("username"));
        }
        Ok(Self(value.into()))
    }

    /// The name as its owner writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it is compared.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// An e-mail address. Addresses that differ in case only are the same address.
#[derive(Clone)]
pub struct EmailAddress(Box<str>);

impl EmailAddress {
    /// Checks an address: one `@` between a local part and a domain, without blanks, quotes, control
    /// characters and the characters that separate addresses in a header of a mail; in the local part no
    /// `.` at its beginning, at its end or beside another.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        if value.len() > MAX_EMAIL_BYTES {
            let text = format!("email must be at most {MAX_EMAIL_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, text).field("email"));
        }
        let is_allowed =
            |c: char| !c.is_whitespace() && !c.is_control() && !"\"<>()[]\\,;:".contains(c);
        let is_well_formed = value.rsplit_once('@').is_some_and(|(local, domain)| {
            // No mail server takes other local parts without quotes.
            local.split('.').all(|atom| !atom.is_empty())
                && !local.contains('@')
                && is_domain(domain)
        });
        if !is_well_formed || !value.chars().all(is_allowed) {
            let text = "email must be an e-mail address";
            return Err(Refusal::bad_request(text).field("email"));
        }
        Ok(Self(value.into()))
    }

    /// The address as its owner writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address as it is compared.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

/// Addresses don't belong in log lines.
impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress")
    }
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    domain.split('.').all(is_label)
}

/// A name for people: 1 to 128 bytes without control characters.
#[derive(Debug, Clone)]
pub struct DisplayName(Box<str>);

impl DisplayName {
    /// Checks a name. `field` is its name in the request.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn parse(field: &'static str, value: &str) -> Result<Self, Refusal> {
        if value.trim().is_empty() {
            let text = format!("{field} must not be empty");
            return Err(Refusal::bad_request(text).field(field));
        }
        if value.len() > MAX_DISPLAY_NAME_BYTES {
            let text = format!("{field} must be at most {MAX_DISPLAY_NAME_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, text).field(field));
        }
        if value.chars().any(char::is_control) {
            let text = format!("{field} must not contain control characters");
            return Err(Refusal::bad_request(text).field(field));
        }
        Ok(Self(value.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The URL of a picture: `http` or `https`, so that a page that links it runs no script by it.
#[derive(Debug, Clone)]
pub struct AvatarUrl(Box<str>);

impl AvatarUrl {
    /// Checks a URL.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        if value.len() > MAX_URL_BYTES {
            let text = format!("avatar_url must be at most {MAX_URL_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let schemes = ["https://", "http://"];
        let rest = schemes.iter().find_map(|scheme| value.strip_prefix(scheme));
        let has_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        let is_allowed = |c: char| !c.is_whitespace() && !c.is_control() && !"\"'<>\\`".contains(c);
        if !has_host || !value.chars().all(is_allowed) {
            return Err(Refusal::bad_request(
                "avatar_url must be a URL that begins with https:// or http://",
            ));
        }
        Ok(Self(value.into()))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text by which a user is found: both names in lower case.
#[must_use]
pub fn search_key(username: &str, display_name: &str) -> String {
    format!("{username} {display_name}").to_lowercase()
}

/// The rights of an account beyond those of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// None.
    #[default]
    User,
    /// May manage accounts, and has the rights of a service.
    Admin,
}

impl Role {
    /// The role's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::User, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// An account.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user's id: a UUID, as text.
    pub id: UserId,
    /// The unique name.
    pub username: String,
    /// The e-mail address; `None` once the account is deleted.
    pub email: Option<String>,
    /// Whether the user has proved that the address is theirs.
    pub is_email_verified: bool,
    /// The name for people.
    pub display_name: String,
    /// The URL of a picture.
    pub avatar_url: Option<String>,
    /// A short text about the user's situation.
    pub status: Option<String>,
    /// The role.
    pub role: Role,
    /// Whether the account may not be used now.
    pub is_disabled: bool,
    /// When the account was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_has_few_characters_and_a_case_that_does_not_matter() {
        for name in ["a", "Ann", "ann.lee", "_x", "9-9", &"x".repeat(32)] {
            assert_eq!(AccountName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", ".a", "-a", "a b", "ä", "a@b", "a\n", "<b>"] {
            let code = AccountName::parse(name).unwrap_err().code;
            assert_eq!(code, Code::BadRequest, "{name}");
        }
        let code = AccountName::parse(&"x".repeat(33)).unwrap_err().code;
        assert_eq!(code, Code::TooLarge);
        assert_eq!(AccountName::parse("Ann").unwrap().key(), "ann");
    }

    #[test]
    fn an_address_can_be_in_a_header_of_a_mail() {
        for address in ["a@b", "ann.lee+x@mail.example.com", "ünï@example.com"] {
            assert_eq!(EmailAddress::parse(address).unwrap().as_str(), address);
        }
        for address in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a@b..c",
            "a..b@c",
            ".a@c",
            "a.@c",
            "a@-b",
            "a b@c",
            "a@b\r\nBcc: x@y",
            "a@b,c@d",
            "<a@b>",
            "a@b;c",
            "\"a\"@b",
        ] {
            let code = EmailAddress::parse(address).unwrap_err().code;
            assert_eq!(code, Code::BadRequest, "{address:?}");
        }
        let long = format!("{}@example.com", "x".repeat(250));
        assert_eq!(EmailAddress::parse(&long).unwrap_err().code, Code::TooLarge);
        let shown = format!("{:?}", EmailAddress::parse("Ann@Example.com").unwrap());
        assert!(!shown.contains("xample"));
        assert_eq!(
            EmailAddress::parse("Ann@Example.com").unwrap().key(),
            "ann@example.com"
        );
    }

    #[test]
    fn a_picture_has_a_url_that_no_script_is_in() {
        for url in ["https://a.example/x.png?y=1#z", "http://localhost:1/ä"] {
            assert_eq!(AvatarUrl::parse(url).unwrap().as_str(), url);
        }
        for url in [
            "",
            "javascript:alert(1)",
            "data:text/html,x",
            "//a.example/x",
            "https://",
            "https:///x",
            "https://a.example/ x",
            "https://a.example/\"onload=\"x",
            "https://a.example/<b>",
        ] {
            let code = AvatarUrl::parse(url).unwrap_err().code;
            assert_eq!(code, Code::BadRequest, "{url}");
        }
        let long = format!("https://{}", "x".repeat(2048));
        assert_eq!(AvatarUrl::parse(&long).unwrap_err().code, Code::TooLarge);
    }

    #[test]
    fn roles_have_names() {
        assert_eq!(Role::named("admin"), Some(Role::Admin));
        assert_eq!(Role::named("Admin"), None);
        assert_eq!(Role::default(), Role::User);
    }
}
