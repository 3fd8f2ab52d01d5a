//! Deleting an account.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use uuid::Uuid;

use super::sessions::announce_end;
use super::{AccountCaller, Accounts, Device, Ended, refused};
use crate::backplane::anonymous::{self, Unreadable};
use crate::domain::{Code, Refusal, SessionEnd, UserId};
use crate::features::chats::announce;
use crate::outbox::{ForgetUser, Job, JobError, JobPayload as _};
use crate::store::{DeleteOutcome, DeletionStep, DeletionStore, Rewrite, Rewritten};

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
        let gone = || Refusal::new(Code::Unauthorized, "the session has ended");
        let found = self.store.user(caller.user).await.map_err(refused)?;
        let found = found.ok_or_else(gone)?;
        // A stolen session must not find out the password here: it counts as a login.
        let (subject, verified) = (found.account.id.as_str(), found.password);
        if !self
            .verify(subject, password, Some(verified.clone()), device)
            .await?
        {
            let text = "the password is wrong";
            return Err(Refusal::new(Code::InvalidCredentials, text));
        }
        let job = ForgetUser { user: caller.user }.row();
        let announce = announce_end(SessionEnd::AccountDeleted);
        let before = self.sockets.of(caller.user).await;
        let ended = self
            .store
            .delete_account(caller.user, verified, job, announce)
            .await;
        match ended.map_err(refused)? {
            DeleteOutcome::Deleted(ended) => {
                Ok(self.ended(caller.user, &before, ended.len()).await)
            }
            DeleteOutcome::Unknown => Err(gone()),
            DeleteOutcome::LastAdmin => {
                let text = "the last admin can't be deleted: make another user an admin first";
                Err(Refusal::new(Code::Conflict, text))
            }
        }
    }
}

/// Ends the memberships of deleted accounts in groups, and makes their messages anonymous.
pub struct ForgetDeletedUser(pub Arc<dyn DeletionStore>);

#[async_trait]
impl Job for ForgetDeletedUser {
    fn kind(&self) -> &'static str {
        ForgetUser::KIND
    }

    async fn run(&self, payload: &str) -> Result<(), JobError> {
        let job = ForgetUser::parse(payload)?;
        let user = UserId::trusted(&job.user.to_string());
        let rewrite: Rewrite = Arc::new(move |record| match anonymous::anonymise(record, &user) {
            Ok(Some(record)) => Rewritten::Changed(record),
            Ok(None) => Rewritten::Unchanged,
            Err(Unreadable) => Rewritten::Unreadable,
        });
        // In the second pass: groups to which another transaction was just adding the user.
        let mut after = Uuid::nil();
        loop {
            let began = Instant::now();
            match self.0.leave_groups(job.user, after, announce()).await? {
                Some(last) => after = last,
                None => break,
            }
            tokio::time::sleep(began.elapsed()).await;
        }
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
                skipped = report.skipped,
                is_finished = report.finished_at.is_some(),
                "a deleted account: its messages are anonymous"
            );
        }
        Ok(())
    }
}
