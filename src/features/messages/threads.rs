//! The root of a thread.

use std::time::Duration;

use uuid::Uuid;

use super::{find, message_deleted, message_ref, no_such_message};
use crate::backplane::{EditableRecord, EntryKind, Window};
use crate::domain::policy::{Permit, Sending};
use crate::domain::{Code, FormContent, Refusal, RoomId};
use crate::features::messaging::Messaging;
use crate::store::MessageStore;

/// How long the database may take for a root. Then the log is searched, as while the database is away.
const ROOT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a search of the log may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(1);
/// The newest entries of the log that are searched, and those of one read.
const SEARCHED: usize = 1000;
const PAGE: usize = 100;
const PAGE_BYTES: usize = 256 * 1024;

/// A message that may be the root of a thread.
struct Root {
    seq: u64,
    is_reply: bool,
}

impl Messaging {
    /// Checks that a message may be the root of a thread: it is in the room, and is no reply itself. While
    /// the database is away or slow, it must be among the newest messages of the log.
    ///
    /// # Errors
    /// `bad_request`, `not_found`, `message_deleted`, `unavailable`.
    pub(in crate::features) async fn check_root(
        &self,
        store: &dyn MessageStore,
        permit: &Permit<Sending>,
        root: Uuid,
    ) -> Result<(), Refusal> {
        let root = match self.stored_root(store, permit.room(), root).await {
            Err(refusal) if refusal.code == Code::Unavailable => {
                self.logged_root(permit.room(), root).await?
            }
            found => found?,
        };
        if root.seq <= permit.hidden_seq() {
            return Err(no_such_message());
        }
        if root.is_reply {
            let text = "thread_id names a reply: a thread has one level";
            return Err(Refusal::bad_request(text).field("thread_id"));
        }
        Ok(())
    }

    async fn stored_root(
        &self,
        store: &dyn MessageStore,
        room: &RoomId,
        root: Uuid,
    ) -> Result<Root, Refusal> {
        if self.archive_status().is_some_and(|status| !status.is_up) {
            return Err(unavailable());
        }
        let message = message_ref(room, root);
        let found = tokio::time::timeout(ROOT_TIMEOUT, find(store, self, &message)).await;
        let found = found.unwrap_or_else(|_| Err(unavailable()))?;
        if matches!(found.form.content, FormContent::Deleted(_)) {
            return Err(message_deleted());
        }
        let record = EditableRecord::decode(&found.record);
        Ok(Root {
            seq: found.form.position.seq,
            is_reply: record.is_some_and(|record| record.is_reply()),
        })
    }

    /// The root by the log alone, if it is archived: replies that the archive gets before their root are
    /// in no thread.
    async fn logged_root(&self, room: &RoomId, root: Uuid) -> Result<Root, Refusal> {
        let search = async {
            let archived = self.log().archived_up_to(room).await?;
            let found = self.find_in_log(room, root).await?;
            Ok::<_, Refusal>(found.filter(|root| root.seq <= archived))
        };
        match tokio::time::timeout(SEARCH_TIMEOUT, search).await {
            Ok(Ok(Some(root))) => Ok(root),
            _ => Err(unavailable()),
        }
    }

    async fn find_in_log(&self, room: &RoomId, root: Uuid) -> Result<Option<Root>, Refusal> {
        let id = root.to_string();
        let finder = memchr::memmem::Finder::new(id.as_bytes());
        let mut window = Window::Newest;
        for _ in 0..SEARCHED / PAGE {
            let slice = self.log().read(room, window, PAGE, PAGE_BYTES).await?;
            for entry in &slice.entries {
                let is_message = matches!(entry.kind, EntryKind::Message | EntryKind::Amended);
                if !is_message || finder.find(&entry.record).is_none() {
                    continue;
                }
                let record = EditableRecord::decode(&entry.record);
                if let Some(record) = record.filter(|record| record.has_id(root)) {
                    return Ok(Some(Root {
                        seq: entry.seq,
                        is_reply: record.is_reply(),
                    }));
                }
            }
            let Some(first) = slice.entries.first() else {
                break;
            };
            window = Window::Before(first.seq);
        }
        Ok(None)
    }
}

fn unavailable() -> Refusal {
    let text = "the thread can't be checked without the database: try again";
    Refusal::new(Code::Unavailable, text)
}
