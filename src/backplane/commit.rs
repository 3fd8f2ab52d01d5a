//! The promise that a message will be committed to an archive.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{BackplaneError, Result};

/// Called with the outcome of a commit.
pub type OnCommit = Box<dyn FnOnce(Result<()>) + Send>;

enum State {
    Pending(Option<OnCommit>),
    Done(Result<()>),
}

/// The commit of a message that already has its position.
///
/// Fails with `Unavailable` if the archive has refused the message, or if its database did not respond
/// in time: then it may still be committed later.
#[must_use = "the message may not be committed yet"]
pub struct Commit(Option<Arc<Mutex<State>>>);

/// The other end of a [`Commit`]. Dropping it fails the commit.
pub struct PendingCommit(Option<Arc<Mutex<State>>>);

impl Commit {
    /// A commit that is already done.
    pub fn done() -> Self {
        Self(None)
    }

    /// A commit that is pending, and its other end.
    pub fn pending() -> (Self, PendingCommit) {
        let state = Arc::new(Mutex::new(State::Pending(None)));
        (Self(Some(state.clone())), PendingCommit(Some(state)))
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let Some(state) = &self.0 else { return true };
        matches!(*state.lock(), State::Done(Ok(())))
    }

    /// Calls `then` with the outcome: at once if it is known, else from the task that commits, which
    /// must not be kept waiting. Commits of messages that one caller has placed one after another
    /// call back in that order.
    pub fn on_done(self, then: OnCommit) {
        let Some(state) = self.0 else {
            return then(Ok(()));
        };
        let outcome = {
            let mut state = state.lock();
            match &mut *state {
                State::Pending(waiting) => {
                    *waiting = Some(then);
                    return;
                }
                State::Done(outcome) => outcome.clone(),
            }
        };
        then(outcome);
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn wait(self) -> Result<()> {
        if self.0.is_none() {
            return Ok(());
        }
        let (sender, outcome) = oneshot::channel();
        self.on_done(Box::new(move |outcome| {
            let _ = sender.send(outcome);
        }));
        outcome.await.unwrap_or_else(|_| Err(dropped()))
    }
}

impl PendingCommit {
    /// Completes the commit.
    pub fn complete(mut self, outcome: Result<()>) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Result<()>) {
        let Some(state) = self.0.take() else { return };
        let before = std::mem::replace(&mut *state.lock(), State::Done(outcome.clone()));
        if let State::Pending(Some(then)) = before {
            then(outcome);
        }
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        self.finish(Err(dropped()));
    }
}

fn dropped() -> BackplaneError {
    BackplaneError::Unavailable("the node is stopping".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_commit_calls_back_once_whether_it_ends_before_or_after() {
        let (commit, pending) = Commit::pending();
        assert!(!commit.is_done());
        pending.complete(Ok(()));
        assert!(commit.is_done());
        assert!(commit.wait().await.is_ok());
        let (commit, pending) = Commit::pending();
        let waiting = tokio::spawn(commit.wait());
        pending.complete(Ok(()));
        assert!(waiting.await.unwrap().is_ok());
        assert!(Commit::done().is_done());
    }

    #[tokio::test]
    async fn a_commit_that_is_dropped_fails() {
        let (commit, pending) = Commit::pending();
        drop(pending);
        assert!(!commit.is_done());
        assert!(matches!(
            commit.wait().await,
            Err(BackplaneError::Unavailable(_))
        ));
    }
}
