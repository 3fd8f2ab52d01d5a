//! Passwords: the rules for new ones, and their hashes by Argon2id.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::domain::{Code, Refusal};

/// The length of a password, in characters.
const MIN_CHARS: usize = 10;
const MAX_CHARS: usize = 128;
/// Hashes that may be under way or waiting. At 30 ms each the last one waits for a few seconds.
const MAX_WAITING: usize = 128;

/// The commonest passwords that are long enough, one a line, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");

/// A password that is long enough and not among the commonest. It is not shown by `Debug`.
pub struct NewPassword(Box<str>);

impl NewPassword {
    /// Checks a password. `names` are the account's own, which are no passwords.
    ///
    /// # Errors
    /// `bad_request`; `too_large` for more than 128 characters.
    pub fn parse(value: &str, names: &[&str]) -> Result<Self, Refusal> {
        let chars = value.chars().count();
        if chars > MAX_CHARS {
            let text = format!("password must be at most {MAX_CHARS} characters");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        if chars < MIN_CHARS {
            let text = format!("password must be at least {MIN_CHARS} characters");
            return Err(Refusal::bad_request(text));
        }
        let key = value.to_lowercase();
        let is_name = names.iter().any(|name| key == name.to_lowercase());
        if is_name || is_monotonous(&key) || COMMON.lines().any(|common| common == key) {
            return Err(Refusal::bad_request("password is too easy to guess"));
        }
        Ok(Self(value.into()))
    }
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewPassword")
    }
}

/// A random password: 120 bits, as 20 letters and digits.
#[must_use]
pub fn new_password() -> String {
    let token = super::random_text();
    let chars = token.chars().filter(char::is_ascii_alphanumeric);
    chars.take(20).collect()
}

/// Whether the password consists of at most two different characters, or of a run like `abcdefghij`.
fn is_monotonous(password: &str) -> bool {
    let mut chars: Vec<char> = password.chars().collect();
    let step = |pair: &[char]| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0]));
    let steps: Vec<i64> = chars.windows(2).map(step).collect();
    if steps.iter().all(|step| *step == 1) || steps.iter().all(|step| *step == -1) {
        return true;
    }
    chars.sort_unstable();
    chars.dedup();
    chars.len() <= 2
}

/// Hashes passwords, a few at a time: a hash needs a core for some 30 ms and 19 MiB, and chat goes
/// first. Clones share the limit.
#[derive(Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// The hash of a password that nobody has.
    unknown: Arc<str>,
}

impl Passwords {
    /// Hashes at most half as many passwords at once as there are cores.
    ///
    /// # Panics
    /// If the system has no random numbers.
    #[must_use]
    pub fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let password = uuid::Uuid::new_v4().to_string();
        Self {
            running: Arc::new(Semaphore::new((cores / 2).max(1))),
            waiting: Arc::default(),
            unknown: hash(&password).into(),
        }
    }

    /// The hash of a password, as a PHC string.
    ///
    /// # Errors
    /// `overloaded` while too many wait.
    pub async fn hash(&self, password: NewPassword) -> Result<String, Refusal> {
        self.run(move || hash(&password.0)).await
    }

    /// Whether the password is that of the hash. Takes the same time without a hash, and is false then.
    ///
    /// # Errors
    /// `overloaded` while too many wait.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Refusal> {
        let unknown = self.unknown.clone();
        self.run(move || {
            let is_known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&unknown);
            // Of an unknown length: the time would tell much, the rules for new passwords don't apply.
            let password = if password.len() > 4 * MAX_CHARS {
                ""
            } else {
                &password
            };
            let verified = Argon2::default().verify_password(password.as_bytes(), hash);
            verified.is_ok() && is_known
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let overloaded = || Refusal::new(Code::Overloaded, "too many logins are under way");
        let _waiting = Waiting::enter(&self.waiting).ok_or_else(overloaded)?;
        let running = self.running.clone().acquire_owned().await;
        let permit = running.map_err(|_| overloaded())?;
        let work = tokio::task::spawn_blocking(move || {
            let result = work();
            // The next hash begins when this one has ended, also if its request was dropped.
            drop(permit);
            result
        });
        work.await
            .map_err(|_| Refusal::new(Code::Internal, "hashing the password failed"))
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

fn hash(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("the default parameters are valid").to_string()
}

/// Counts a caller for as long as it exists.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn enter(count: &Arc<AtomicUsize>) -> Option<Self> {
        let entered = Self(count.clone());
        let before = count.fetch_add(1, Ordering::Relaxed);
        (before < MAX_WAITING).then_some(entered)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(password: &str) -> Result<NewPassword, Code> {
        NewPassword::parse(password, &["ann.lee.2026"]).map_err(|refusal| refusal.code)
    }

    #[test]
    fn passwords_that_are_easy_to_guess_are_refused() {
        for password in ["correct horse", "🐎🐎🐎🐎🐎🐎🐎🐎🐎🦄🐴", &"xyz".repeat(42)]
        {
            assert!(parse(password).is_ok(), "{password}");
        }
        for password in [
            "",
            "ninechars",
            "Password123",
            "1234567890",
            "abcdefghijkl",
            "9876543210",
            "aaaaaaaaaaaa",
            "abababababab",
            "Ann.Lee.2026",
        ] {
            assert_eq!(parse(password).unwrap_err(), Code::BadRequest, "{password}");
        }
        assert_eq!(parse(&"xyz".repeat(43)).unwrap_err(), Code::TooLarge);
        assert_eq!(COMMON, COMMON.to_lowercase());
        assert!(COMMON.lines().all(|line| line.chars().count() >= MIN_CHARS));
    }

    #[tokio::test]
    async fn only_the_right_password_is_verified() {
        let passwords = Passwords::new();
        let hash = passwords
            .hash(parse("correct horse").unwrap())
            .await
            .unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        for (password, hash, expected) in [
            ("correct horse", Some(&hash), true),
            ("Correct horse", Some(&hash), false),
            ("", Some(&hash), false),
            ("correct horse", None, false),
        ] {
            let verified = passwords.verify(password.to_owned(), hash.cloned()).await;
            assert_eq!(verified, Ok(expected), "{password}");
        }
        let empty = passwords.verify(String::new(), Some(String::new())).await;
        assert_eq!(empty, Ok(false), "an account without a password");
    }

    #[tokio::test]
    async fn hashes_beyond_the_limit_are_refused() {
        let passwords = Passwords::new();
        let running = passwords.running.clone();
        let cores = running.available_permits() as u32;
        let all = running.acquire_many(cores).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..MAX_WAITING {
            let mut call = Box::pin(passwords.verify("x".to_owned(), None));
            assert!(futures_util::poll!(&mut call).is_pending());
            waiting.push(call);
        }
        let refused = passwords.verify("x".to_owned(), None).await;
        assert_eq!(refused.unwrap_err().code, Code::Overloaded);
        drop(waiting);
        drop(all);
        assert_eq!(passwords.verify("x".to_owned(), None).await, Ok(false));
    }
}
