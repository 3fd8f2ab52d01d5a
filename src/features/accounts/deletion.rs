//! Deleting an account.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::limits::{WINDOW, address_limit, digest};
use super::sessions::announce_end;
use super::{AccountCaller, Accounts, Device, Ended, refused};
use crate::backplane::anonymous;
use crate::domain::{AccountName, Code, Refusal, SessionEnd, UserId};
use crate::outbox::{ForgetUser, Job, JobError, JobPayload as _};
use crate::store::{DeleteOutcome, DeletionStep, DeletionStore, LoginLimit, LoginName, Rewrite};

impl Accounts {
    /// Deletes the caller's account: its personal data is gone at once, and its sessions have ended. A
    /// job then makes its messages anonymous.
    ///
    /// # Errors
    /// `invalid_credentials` for a wrong password, `rate_limited` after too many; `overloaded`,
    /// `unavailable`.
    pub async fn delete_own(
        &self,
        caller: AccountCaller,
        password: String,
        device: &Device,
    ) -> Result<Ended, Refusal> {
        let account = self.own(caller).await?;
        // A stolen session must not find out the password here: it counts as a login.
        let of_account = LoginLimit {
            subject: digest("account", account.id.as_str()),
            failures: self.settings.account_failures,
        };
        let address = address_limit("address", device, self.settings.address_failures);
        let limits: Vec<LoginLimit> = std::iter::once(of_account)
            .chain(address)
            .filter(|limit| limit.failures > 0)
            .collect();
        let counted = self.store.count_login(&limits, WINDOW).await;
        if let Some(wait) = counted.map_err(refused)? {
            let text = "too many wrong passwords: try again later";
            return Err(Refusal::new(Code::RateLimited, text).retry_after(wait));
        }
        let name = AccountName::parse(&account.username)?;
        let found = self.store.credential(&LoginName::Username(name)).await;
        let hash = found.map_err(refused)?.map(|found| found.password);
        if !self.passwords.verify(password, hash).await? {
            let text = "the password is wrong";
            return Err(Refusal::new(Code::InvalidCredentials, text));
        }
        self.store.uncount_login(&limits).await.map_err(refused)?;
        let job = ForgetUser { user: caller.user }.row();
        let announce = announce_end(SessionEnd::AccountDeleted);
        let before = self.sockets.of(caller.user).await;
        let ended = self.store.delete_account(caller.user, job, announce).await;
        match ended.map_err(refused)? {
            DeleteOutcome::Deleted(ended) => {
                Ok(self.ended(caller.user, &before, ended.len()).await)
            }
            DeleteOutcome::Unknown => {
                Err(Refusal::new(Code::Unauthorized, "the session has ended"))
            }
            DeleteOutcome::LastAdmin => {
                let text = "the last admin can't be deleted: make another user an admin first";
                Err(Refusal::new(Code::Conflict, text))
            }
        }
    }
}

/// Makes the messages of deleted accounts anonymous.
pub struct ForgetDeletedUser(pub Arc<dyn DeletionStore>);

#[async_trait]
impl Job for ForgetDeletedUser {
    fn kind(&self) -> &'static str {
        ForgetUser::KIND
    }

    async fn run(&self, payload: &str) -> Result<(), JobError> {
        let job = ForgetUser::parse(payload)?;
        let user = UserId::trusted(&job.user.to_string());
        let rewrite: Rewrite = Arc::new(move |record| anonymous::anonymise(record, &user));
        loop {
            let began = Instant::now();
            let step = self.0.rewrite_next(job.user, rewrite.clone(), job.row());
            match step.await? {
                // As much time for everything else as for this.
                DeletionStep::More => tokio::time::sleep(began.elapsed()).await,
                DeletionStep::FirstPassComplete | DeletionStep::Finished => break,
            }
        }
        if let Some(report) = self.0.deletion(job.user).await? {
            tracing::info!(
                user = %job.user,
                passes = report.passes,
                messages = report.messages,
                is_finished = report.finished_at.is_some(),
                "a deleted account: its messages are anonymous"
            );
        }
        Ok(())
    }
}
