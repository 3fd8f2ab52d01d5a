//! Calls of a hot log, for its cases.

use std::time::Duration;

use hubbub::backplane::{Appended, ArchivedRanges, Backplane, Result, Window};
use hubbub::domain::{Epoch, LogSpan};

use crate::fixture::{append_message, message, room};

/// Appends a message to a room under a key.
pub async fn send(node: &Backplane, name: &str, user: &str, key: &str) -> Result<Appended> {
    let message = message(name, user, "hi");
    node.log.append(&message, Some(key)).await
}

/// Appends so many messages, and returns their epoch.
pub async fn append_many(node: &Backplane, name: &str, count: usize) -> Epoch {
    let mut epoch = None;
    for n in 0..count {
        epoch = Some(append_message(node, name, &n.to_string()).await.epoch);
    }
    epoch.unwrap()
}

pub async fn span(node: &Backplane, name: &str) -> LogSpan {
    let room = room(name);
    let slice = node.log.read(&room, Window::Newest, 0, 0).await;
    slice.unwrap().span
}

/// The numbers of at most `limit` entries above a `seq`; `None` if the room isn't known.
pub async fn unarchived(
    node: &Backplane,
    name: &str,
    after: u64,
    limit: usize,
) -> Option<Vec<u64>> {
    let room = room(name);
    let entries = node
        .hot_log
        .read_unarchived(&room, after, limit, usize::MAX);
    let entries = entries.await.unwrap()?;
    Some(entries.iter().map(|entry| entry.seq).collect())
}

/// Reports ranges of archived entries, and returns the watermark.
pub async fn archived(node: &Backplane, name: &str, epoch: &Epoch, ranges: ArchivedRanges) -> u64 {
    let archived = [(room(name), epoch.clone(), ranges)];
    let watermarks = node.hot_log.advance_watermarks(&archived).await.unwrap();
    assert_eq!(watermarks.len(), 1);
    watermarks[0]
}

/// The room's watermark and head; `None` if all of the room is archived.
pub async fn watermark(node: &Backplane, name: &str) -> Option<(u64, u64)> {
    let rooms = node.hot_log.unarchived(Duration::ZERO, 1000).await.unwrap();
    let room = rooms.iter().find(|found| found.room.as_str() == name);
    room.map(|found| (found.watermark, found.head))
}

pub async fn diverge(node: &Backplane, name: &str, epoch: &Epoch, shared: u64) {
    let diverged = node.hot_log.diverged(&room(name), epoch, shared).await;
    diverged.unwrap();
}
