//! Reading the messages of a room's log.

use super::Messaging;
use crate::backplane::{Entry, Window};
use crate::domain::policy::{Permit, Reading};
use crate::domain::{Head, Refusal};

/// The part of the log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryWindow {
    /// The first messages after this `seq`.
    After(u64),
    /// The last messages before this `seq`.
    Before(u64),
    /// The last messages.
    Newest,
}

/// A part of the log.
#[derive(Debug)]
pub struct HistoryPage {
    /// The messages, in ascending `seq`.
    pub entries: Vec<Entry>,
    /// True when the log has more messages in the direction of the request.
    pub has_more: bool,
    /// The log's end at that moment.
    pub head: Head,
}

impl Messaging {
    /// Reads messages of a room: at most `limit`, and fewer when their records exceed `max_bytes`.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn read(
        &self,
        permit: &Permit<Reading>,
        window: HistoryWindow,
        limit: usize,
        max_bytes: usize,
    ) -> Result<HistoryPage, Refusal> {
        self.ready()?;
        let log_window = match window {
            HistoryWindow::After(seq) => Window::After(seq),
            HistoryWindow::Before(seq) => Window::Before(seq),
            HistoryWindow::Newest => Window::Newest,
        };
        let slice = self
            .backplane
            .log
            .read(permit.room(), log_window, limit, max_bytes)
            .await?;
        let (entries, span) = (slice.entries, slice.span);
        let has_more = match window {
            HistoryWindow::After(_) => entries.last().is_some_and(|last| last.seq < span.head.seq),
            HistoryWindow::Before(_) | HistoryWindow::Newest => {
                entries.first().is_some_and(|first| first.seq > span.oldest)
            }
        };
        Ok(HistoryPage {
            entries,
            has_more,
            head: span.head,
        })
    }
}
