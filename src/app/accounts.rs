//! The accounts of a node, and the key that signs their tokens.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::{AccountTokens, random_bytes};
use crate::backplane::Presence;
use crate::config::{AccountKey, Config};
use crate::domain::{ConnId, RoomId, UserId};
use crate::features::accounts::{
    Accounts, FindForgetfulAccount, ForgetDeletedUser, Recovery, SendAccountMail,
    SendAddressNotice, SessionSockets, StoredSessions,
};
use crate::features::idempotency::Idempotency;
use crate::outbox::Job;
use crate::store::{DirectoryStore, IdempotencyStore, Outbox, RecoveryStore};

/// The accounts of a node, and the parts that need their key.
pub(super) struct AccountsParts {
    pub accounts: Arc<Accounts>,
    pub tokens: Arc<AccountTokens>,
    pub idempotency: Arc<Idempotency>,
}

/// Accounts on this store; `None` without a key that signs their tokens.
///
/// # Errors
/// If the file with the key can't be read or made.
pub(super) fn start(
    config: &Config,
    store: Arc<dyn DirectoryStore>,
    answers: Arc<dyn IdempotencyStore>,
    presence: Arc<dyn Presence>,
    outbox: Arc<dyn Outbox>,
) -> anyhow::Result<Option<AccountsParts>> {
    let Some(accounts) = &config.accounts else {
        return Ok(None);
    };
    let secrets = match &accounts.key {
        AccountKey::Secrets(secrets) => secrets.clone(),
        AccountKey::File(path) => vec![read_or_make(path)?],
        AccountKey::Fresh => vec![fresh()],
    };
    let idempotency = Arc::new(Idempotency::new(answers, &secrets));
    let sessions = Arc::new(StoredSessions(store.clone()));
    let tokens = AccountTokens::new(secrets, accounts.access_lifetime, sessions)?;
    let tokens = Arc::new(tokens);
    let sockets = Arc::new(PresentSockets { presence, outbox });
    let settings = accounts.settings.clone();
    let mut accounts = Accounts::new(store, tokens.clone(), sockets, settings);
    if let Some(url) = &config.public_url {
        accounts = accounts.with_public_url(url.clone());
    }
    let accounts = Arc::new(accounts);
    Ok(Some(AccountsParts {
        accounts,
        tokens,
        idempotency,
    }))
}

/// The job that makes the messages of deleted accounts anonymous.
pub(super) fn forget_deleted_users(store: Arc<dyn DirectoryStore>) -> Arc<dyn Job> {
    Arc::new(ForgetDeletedUser(store))
}

/// The parts of accounts that need mail.
pub(super) struct Mails {
    pub recovery: Arc<Recovery>,
    pub jobs: Vec<Arc<dyn Job>>,
}

/// The parts of accounts that need mail; `None` where no mails can be sent.
///
/// # Errors
/// If the certificates of the system can't be used.
pub(super) fn mails(
    config: &Config,
    accounts: &Arc<Accounts>,
    store: &Arc<dyn RecoveryStore>,
) -> anyhow::Result<Option<Mails>> {
    let Some(mail) = &config.mail else {
        return Ok(None);
    };
    let mailer = mail.mailer.mailer()?;
    let find = FindForgetfulAccount(store.clone());
    let notice = SendAddressNotice::new(store.clone(), mailer.clone());
    let send = SendAccountMail::new(store.clone(), mailer, mail.public_url.clone());
    Ok(Some(Mails {
        recovery: Arc::new(Recovery::new(accounts.clone(), store.clone())),
        jobs: vec![Arc::new(find), Arc::new(send), Arc::new(notice)],
    }))
}

/// The longest wait for sockets to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Once the end is announced, the wait ends after so long without a socket that closes: the ones that
/// are left belong to other sessions.
const SETTLED: Duration = Duration::from_millis(250);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The sockets of users as presence knows them.
struct PresentSockets {
    presence: Arc<dyn Presence>,
    outbox: Arc<dyn Outbox>,
}

#[async_trait]
impl SessionSockets for PresentSockets {
    async fn of(&self, user: Uuid) -> Vec<ConnId> {
        let user = UserId::trusted(&user.to_string());
        self.presence.connections(&user).await.unwrap_or_default()
    }

    async fn closed(&self, user: Uuid, before: &[ConnId]) -> usize {
        let user = UserId::trusted(&user.to_string());
        let feed = RoomId::personal(&user);
        let began = Instant::now();
        let (mut closed, mut settling_since) = (0, None);
        while closed < before.len() && began.elapsed() < CLOSE_TIMEOUT {
            tokio::time::sleep(POLL_INTERVAL).await;
            if settling_since.is_none() && matches!(self.outbox.has_waiting(&feed).await, Ok(false))
            {
                settling_since = Some(Instant::now());
            }
            let Ok(now) = self.presence.connections(&user).await else {
                continue;
            };
            let gone = before.iter().filter(|conn| !now.contains(conn)).count();
            if gone != closed {
                closed = gone;
                settling_since = settling_since.map(|_| Instant::now());
            }
            if settling_since.is_some_and(|since| since.elapsed() >= SETTLED) {
                break;
            }
        }
        closed
    }
}

/// The key in the file. A file that doesn't exist is made, with a random key, for the node's user only.
fn read_or_make(path: &Path) -> anyhow::Result<String> {
    let what = || format!("the key of accounts in {} can't be used", path.display());
    match std::fs::read_to_string(path) {
        Ok(key) => {
            let key = key.trim().to_owned();
            anyhow::ensure!(key.len() >= 32, "{}: it is too short", what());
            return Ok(key);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(what),
    }
    make(path).with_context(what)
}

/// Makes the file under another name first: a reader never sees a part of the key.
fn make(path: &Path) -> anyhow::Result<String> {
    if let Some(directory) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
    }
    let key = fresh();
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(key.as_bytes())?;
    file.sync_all()?;
    // Fails if another process was faster: then its key counts.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(std::fs::read_to_string(path)?.trim().to_owned())
        }
        linked => linked.map(|()| key).map_err(Into::into),
    }
}

/// 64 hexadecimal digits.
fn fresh() -> String {
    use std::fmt::Write as _;
    random_bytes()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
