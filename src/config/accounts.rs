//! Section: accounts and their sessions.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::{Parsed, number};
use super::values::Values;
use crate::features::accounts::{AccountSettings, SignUpMode};

/// The name of the key file in `DATA_DIR`.
const KEY_FILE: &str = "accounts.key";
const SECONDS_PER_HOUR: u64 = 3600;
const SECONDS_PER_DAY: u64 = 86_400;

const SIGN_UP: Key = Key {
    name: "SIGNUP",
    default: KeyDefault::Value("open"),
    summary: "Accounts are created by everybody (`open`), by invitation of an admin (`invite`), or by \
              `hubbub user create` only (`closed`).",
    see: "accounts.md#signing-up",
    ..Key::PLAIN
};
const ACCESS_LIFETIME: Key = Key {
    name: "JWT_EXPIRE_HOURS",
    default: KeyDefault::Value("24"),
    unit: Unit::Hours,
    summary: "Time for which an access token of an account is valid.",
    help: "At most 8760. It ends earlier with its session.",
    ..Key::PLAIN
};
const REFRESH_LIFETIME: Key = Key {
    name: "REFRESH_TOKEN_EXPIRE_DAYS",
    default: KeyDefault::Value("7"),
    unit: Unit::Days,
    summary: "Time after which a session ends that was not refreshed.",
    help: "At most 3650.",
    ..Key::PLAIN
};
const REFRESH_GRACE: Key = Key {
    name: "REFRESH_GRACE_SECS",
    default: KeyDefault::Value("30"),
    unit: Unit::Seconds,
    summary: "Time after the first use of a refresh token within which another use returns the same \
              successor. A later use ends the session.",
    help: "At most 300.",
    see: "accounts.md",
    ..Key::PLAIN
};

const ACCOUNT_FAILURES: Key = Key {
    name: "LOGIN_ATTEMPTS_PER_ACCOUNT",
    default: KeyDefault::Value("10"),
    summary: "Failed logins of one account within 15 minutes, on all nodes together.",
    help: "`0`: no limit. A successful login clears them.",
    ..Key::PLAIN
};
const ADDRESS_FAILURES: Key = Key {
    name: "LOGIN_ATTEMPTS_PER_ADDRESS",
    default: KeyDefault::Value("100"),
    summary: "Failed logins from one address (of IPv6 the first 64 bits) within 15 minutes, on all \
              nodes together.",
    help: "`0`: no limit.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Accounts",
    intro: "Accounts need a database, and a secret that signs their tokens: `JWT_SECRET`. A node \
            without Redis makes one at its first start, and keeps it in `DATA_DIR`.",
    keys: &[
        &SIGN_UP,
        &ACCESS_LIFETIME,
        &REFRESH_LIFETIME,
        &REFRESH_GRACE,
        &ACCOUNT_FAILURES,
        &ADDRESS_FAILURES,
    ],
};

/// The key that signs the tokens of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccountKey {
    /// The current secret, and then earlier ones.
    Secrets(Vec<String>),
    /// A file, which is made at the first start.
    File(PathBuf),
    /// Another one at each start, because accounts don't outlive the process either.
    Fresh,
}

/// The settings of accounts, and of their tokens.
#[derive(Debug)]
pub(crate) struct AccountsConfig {
    pub key: AccountKey,
    pub access_lifetime: Duration,
    pub settings: AccountSettings,
}

/// Where the key comes from if no secret is configured.
pub(super) enum KeyPlace {
    /// This directory.
    DataDir(PathBuf),
    Memory,
    /// Nowhere: other nodes need the same key.
    None,
}

/// `None` without a key: then there are no accounts.
pub(super) fn parse(
    values: &mut Values,
    secrets: Vec<String>,
    place: KeyPlace,
) -> Result<Option<AccountsConfig>, ConfigError> {
    let sign_up = values.required(&SIGN_UP, sign_up)?;
    let hours: u64 = values.required(&ACCESS_LIFETIME, number(1, 8760))?;
    let days: u64 = values.required(&REFRESH_LIFETIME, number(1, 3650))?;
    let grace = values.required(&REFRESH_GRACE, number(0, 300))?;
    let account_failures = values.required(&ACCOUNT_FAILURES, number(0, u64::MAX))?;
    let address_failures = values.required(&ADDRESS_FAILURES, number(0, u64::MAX))?;
    let key = match place {
        _ if !secrets.is_empty() => AccountKey::Secrets(secrets),
        KeyPlace::DataDir(directory) => AccountKey::File(directory.join(KEY_FILE)),
        KeyPlace::Memory => AccountKey::Fresh,
        KeyPlace::None => return Ok(None),
    };
    Ok(Some(AccountsConfig {
        key,
        access_lifetime: Duration::from_secs(hours * SECONDS_PER_HOUR),
        settings: AccountSettings {
            sign_up,
            refresh_lifetime: Duration::from_secs(days * SECONDS_PER_DAY),
            sends_mails: false,
            refresh_grace: Duration::from_secs(grace),
            account_failures,
            address_failures,
        },
    }))
}

fn sign_up(text: &str) -> Parsed<SignUpMode> {
    match text {
        "open" => Ok(SignUpMode::Open),
        "invite" => Ok(SignUpMode::Invite),
        "closed" => Ok(SignUpMode::Closed),
        _ => Err("must be open, invite or closed".to_owned()),
    }
}
