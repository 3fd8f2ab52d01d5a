//! Finds removals, and ends of sessions, that should have been announced by now.
//!
//! A change takes effect on a node when its announcement arrives. That comes late where the worker that
//! holds its row has died, or can't reach the log. So each node looks for urgent rows that stay in the
//! outbox, and checks the rights of the users concerned in the database.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::ERROR_PAUSE;
use crate::backplane::change_record;
use crate::domain::{RoomId, UserId};
use crate::store::{OutboxId, StoreError, UrgentRow, UrgentRows};

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// A row is overdue that so many looks in a row have found: after 400 to 600 ms. Usually a row is
/// published within some milliseconds.
const LOOKS: u32 = 3;
/// The most rows of a look. Those that follow are found once the first ones are settled.
const MAX_ROWS: usize = 5000;
/// Rows with lower numbers than one that has been found for so long are committed, too: the next looks
/// begin after it.
const SETTLED: Duration = Duration::from_secs(10);

/// Checks the rights of a user in a chat's room, or the sessions of a user behind a personal feed;
/// returns at once.
pub type OnOverdue = Box<dyn Fn(&RoomId, &UserId) + Send + Sync>;

/// Looks for overdue rows.
pub struct OverdueWatch {
    rows: Arc<dyn UrgentRows>,
    on_overdue: OnOverdue,
    /// The number after which looks begin.
    after: OutboxId,
    /// The rows that the last look found.
    seen: BTreeMap<OutboxId, Seen>,
}

struct Seen {
    since: Instant,
    looks: u32,
}

impl OverdueWatch {
    /// Calls `on_overdue` once for each overdue row.
    pub fn new(rows: Arc<dyn UrgentRows>, on_overdue: OnOverdue) -> Self {
        Self {
            rows,
            on_overdue,
            after: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Looks until the task is aborted.
    pub async fn run(mut self) {
        loop {
            let pause = match self.look().await {
                Ok(()) => INTERVAL,
                Err(_) => ERROR_PAUSE,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let rows = self.rows.urgent(self.after, MAX_ROWS).await?;
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.seen);
        let mut overdue = HashSet::new();
        for row in rows {
            let mut seen = before.remove(&row.id).unwrap_or(Seen {
                since: now,
                looks: 0,
            });
            seen.looks += 1;
            if seen.looks == LOOKS
                && let Some(user) = concerned(&row)
            {
                overdue.insert((row.room, user));
            }
            self.seen.insert(row.id, seen);
        }
        self.settle(now);
        if !overdue.is_empty() {
            let count = overdue.len();
            tracing::info!(
                count,
                "outbox: overdue removals are checked in the database"
            );
        }
        for (room, user) in &overdue {
            (self.on_overdue)(room, user);
        }
        Ok(())
    }

    /// Leaves out the rows that no earlier row can precede any more.
    fn settle(&mut self, now: Instant) {
        while let Some(first) = self.seen.first_entry() {
            let seen = first.get();
            if seen.looks < LOOKS || now - seen.since < SETTLED {
                return;
            }
            self.after = *first.key();
            first.remove();
        }
    }
}

/// The user whose rights the row takes away in its room. A removal goes to the user's feed, too, which
/// stays open.
fn concerned(row: &UrgentRow) -> Option<UserId> {
    let record = change_record::encode(&row.room, &row.kind, Uuid::nil(), &row.payload);
    if let Some(user) = row.room.personal_of() {
        return change_record::ended_session(&record).map(|_| user);
    }
    row.room.chat_id()?;
    let member = change_record::member_change(&record)?;
    member.is_removed.then_some(member.user)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::store;

    #[derive(Default)]
    struct Rows(Mutex<Vec<UrgentRow>>);

    #[async_trait]
    impl UrgentRows for Rows {
        async fn urgent(&self, after: OutboxId, limit: usize) -> store::Result<Vec<UrgentRow>> {
            let rows = self.0.lock().clone().into_iter();
            Ok(rows.filter(|row| row.id > after).take(limit).collect())
        }
    }

    const CHAT: &str = "chat:0199c0de-0000-7000-8000-000000000001";
    const BOB: &str = "0199c0de-0000-7000-8000-000000000002";
    const FEED: &str = "user:0199c0de-0000-7000-8000-000000000002";

    fn removal(id: OutboxId, room: &str, user: &str) -> UrgentRow {
        UrgentRow {
            id,
            room: RoomId::trusted(room),
            kind: "member_removed".to_owned(),
            payload: format!(r#"{{"user_id":"{user}"}}"#),
        }
    }

    fn ended(id: OutboxId) -> UrgentRow {
        UrgentRow {
            id,
            room: RoomId::trusted(FEED),
            kind: "session_ended".to_owned(),
            payload: format!(r#"{{"session_id":"{}"}}"#, Uuid::nil()),
        }
    }

    /// A watch on rows, and the calls that it makes.
    struct Scene {
        rows: Arc<Rows>,
        calls: Arc<Mutex<Vec<String>>>,
        watch: OverdueWatch,
    }

    impl Scene {
        fn new(rows: Vec<UrgentRow>) -> Self {
            let rows = Arc::new(Rows(Mutex::new(rows)));
            let calls = Arc::new(Mutex::new(Vec::new()));
            let recorded = calls.clone();
            let record = move |room: &RoomId, user: &UserId| {
                recorded.lock().push(format!("{room} {user}"));
            };
            let watch = OverdueWatch::new(rows.clone(), Box::new(record));
            Self { rows, calls, watch }
        }

        /// Returns the calls of so many looks.
        async fn look(&mut self, looks: u32) -> Vec<String> {
            for _ in 0..looks {
                self.watch.look().await.unwrap();
                tokio::time::advance(INTERVAL).await;
            }
            let mut calls = std::mem::take(&mut *self.calls.lock());
            calls.sort();
            calls
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_row_that_stays_is_reported_once() {
        let rows = vec![removal(1, CHAT, "ann"), ended(2), removal(3, CHAT, "ann")];
        let mut scene = Scene::new(rows);
        assert!(scene.look(LOOKS - 1).await.is_empty());
        let expected = [format!("{CHAT} ann"), format!("{FEED} {BOB}")];
        assert_eq!(scene.look(1).await, expected);
        // Also once they are settled.
        assert!(scene.look(100).await.is_empty());
        assert_eq!((scene.watch.after, scene.watch.seen.len()), (3, 0));
        scene.rows.0.lock().push(removal(4, CHAT, "eve"));
        assert_eq!(scene.look(LOOKS).await, [format!("{CHAT} eve")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_is_published_in_time_is_not_reported() {
        let mut scene = Scene::new(vec![ended(1)]);
        scene.look(LOOKS - 1).await;
        scene.rows.0.lock().clear();
        assert!(scene.look(LOOKS).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_is_committed_after_later_ones_is_reported() {
        let mut scene = Scene::new(vec![ended(2)]);
        scene.look(40).await;
        scene.rows.0.lock().insert(0, removal(1, CHAT, "ann"));
        assert_eq!(scene.look(20).await, [format!("{CHAT} ann")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_does_not_end_the_sessions_behind_the_personal_feed() {
        let mut unreadable = removal(2, CHAT, "ann");
        unreadable.payload = "no JSON".to_owned();
        let mut scene = Scene::new(vec![removal(1, FEED, BOB), unreadable]);
        assert!(scene.look(2 * LOOKS).await.is_empty());
    }
}
