//! The log that the rest of the server uses: the hot log and the archive, read as one.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Shared, archive_now, archived_page, entry, rooms};
use crate::backplane::{
    AnnouncedForms, Appended, ArchiveStatus, BackplaneError, Commit, Entry, NewChange, Result,
    RoomLog, Slice, Window, record, until_error,
};
use crate::domain::{Epoch, Head, LogSpan, NewMessage, RoomId};
use crate::store::{ArchiveWindow, MAX_RECORD_BYTES, StoreError};

/// See [`RoomLog`].
pub(super) struct ArchivedLog(pub Arc<Shared>);

impl From<StoreError> for BackplaneError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

#[async_trait]
impl RoomLog for ArchivedLog {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        let (appended, commit) = self.place(message, key).await?;
        commit.wait().await?;
        Ok(appended)
    }

    async fn place(&self, message: &NewMessage, key: Option<&str>) -> Result<(Appended, Commit)> {
        let shared = &*self.0;
        shared.check_capacity()?;
        let record = record::encode(message);
        if record.len() > MAX_RECORD_BYTES {
            return Err(BackplaneError::TooLarge);
        }
        let hot = &shared.hot;
        let begun = Instant::now();
        let appended = hot
            .append_record(message.into(), key, record.clone())
            .await?;
        let waits = shared.settings.acknowledge_commits;
        if appended.duplicate {
            let commit = if waits {
                shared.commit_of(&message.room, &appended).await?
            } else {
                Commit::done()
            };
            return Ok((appended, commit));
        }
        let (commit, pending) = if waits {
            let (commit, pending) = Commit::pending();
            (commit, Some(pending))
        } else {
            (Commit::done(), None)
        };
        let archived = entry::of_message(message, &appended, record);
        let room = message.room.clone();
        shared.queue.push(room, archived, begun, pending);
        Ok((appended, commit))
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        let shared = &*self.0;
        let fits = |change: &&NewChange| change.record.len() <= MAX_RECORD_BYTES;
        let fitting = changes.iter().take_while(fits).count();
        let begun = Instant::now();
        let placed = shared.hot.append_changes(room, &changes[..fitting]).await;
        // All are queued before one is awaited, also behind an error: a numbered entry must be archived.
        let mut commits = Vec::with_capacity(placed.len());
        for (appended, change) in placed.into_iter().zip(changes) {
            commits.push(match appended {
                Ok(appended) => {
                    let commit = shared.commit_of_change(room, &appended, change, begun);
                    commit.await.map(|commit| (appended, commit))
                }
                Err(error) => Err(error),
            });
        }
        let mut outcomes = Vec::with_capacity(changes.len());
        for commit in commits {
            outcomes.push(match commit {
                Ok((appended, commit)) => commit.wait().await.map(|()| appended),
                Err(error) => Err(error),
            });
        }
        if fitting < changes.len() {
            outcomes.push(Err(BackplaneError::TooLarge));
        }
        until_error(outcomes)
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        let older = self.read_older(room, window, limit, max_bytes).await?;
        if let Some(slice) = older {
            return Ok(slice);
        }
        let hot = self.0.hot.read(room, window, limit, max_bytes).await?;
        self.read_from(room, window, hot, limit, max_bytes).await
    }

    async fn expect_changes(&self, room: &RoomId) -> Result<()> {
        self.0.hot.expect_changes(room).await
    }

    async fn announced_forms(&self, room: &RoomId, seqs: &[u64]) -> Result<AnnouncedForms> {
        self.0.hot.announced_forms(room, seqs).await
    }

    async fn archive_now(&self, room: &RoomId) -> Result<()> {
        archive_now::archive_now(&self.0, room).await
    }

    async fn archived_up_to(&self, room: &RoomId) -> Result<u64> {
        archive_now::archived_up_to(&self.0, room).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.0.hot.heads(rooms).await
    }

    async fn reach(&self, room: &RoomId, span: LogSpan, seen: Option<&Epoch>) -> LogSpan {
        let shared = &*self.0;
        let unknown = seen.filter(|epoch| !span.knows(epoch));
        // A log that has everything since 1 needs nothing of the archive.
        if span.oldest <= 1 && unknown.is_none() {
            return span;
        }
        // A read of the log must not wait for a database that is known to be away.
        if shared.health.is_up() {
            let known = shared.rooms.get(&*shared.store, room, span.oldest).await;
            match known {
                Ok(Some(archived)) => {
                    let mut span = rooms::extend(span, &archived, shared.history_size);
                    if let Some(epoch) = unknown {
                        self.find_end(room, &mut span, epoch).await;
                    }
                    return span;
                }
                Ok(None) => return span,
                Err(error) => shared.broken.report(room, &error),
            }
        }
        let remembered = shared.rooms.remembered(room);
        rooms::cut_off(span, remembered.as_deref())
    }

    fn archive_status(&self) -> Option<ArchiveStatus> {
        Some(ArchiveStatus {
            is_up: self.0.health.is_up(),
            acknowledges_commits: self.0.settings.acknowledge_commits,
        })
    }
}

impl ArchivedLog {
    /// Adds the end of an epoch to a span, if the epoch is older than those that the archive lists.
    async fn find_end(&self, room: &RoomId, span: &mut LogSpan, epoch: &Epoch) {
        if span.knows(epoch) {
            return;
        }
        match self.0.store.epoch(room, epoch).await {
            Ok(known) => {
                let end = known.and_then(|known| known.ended);
                span.past.extend(end.map(|seq| Head {
                    epoch: epoch.clone(),
                    seq,
                }));
            }
            Err(error) => self.0.broken.report(room, &error),
        }
    }

    /// Reads a window that most likely lies before the hot log, of which it reads only the span. `None`
    /// if the window reaches into the hot log.
    async fn read_older(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<Slice>> {
        let shared = &*self.0;
        let last = match window {
            Window::After(seq) => seq.saturating_add(limit as u64),
            Window::Before(seq) => seq.saturating_sub(1),
            Window::Newest => return Ok(None),
        };
        if !shared.rooms.is_likely_archived(room, last) {
            return Ok(None);
        }
        let span_only = shared.hot.read(room, window, 0, max_bytes).await?;
        let hot_oldest = span_only.span.oldest;
        if last >= hot_oldest {
            return Ok(None);
        }
        let read = self.read_from(room, window, span_only, limit, max_bytes);
        let slice = read.await?;
        // Where numbers are missing, the page may continue in the hot log.
        let goes_on = match (window, slice.entries.last()) {
            (Window::After(_), Some(last)) => {
                slice.entries.len() < limit && last.seq + 1 == hot_oldest
            }
            (_, last) => last.is_none(),
        };
        Ok(if goes_on { None } else { Some(slice) })
    }

    /// Adds the archive's part of the window to the slice that was read of the hot log.
    async fn read_from(
        &self,
        room: &RoomId,
        window: Window,
        hot: Slice,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        let (hot_oldest, traces) = (hot.span.oldest, hot.traces);
        let slice = |entries, span| Slice {
            entries,
            span,
            traces,
        };
        let span = self.reach(room, hot.span, None).await;
        let entries = hot.entries;
        let Some(missing) = missing_part(window, &entries, hot_oldest, limit, max_bytes) else {
            return Ok(slice(entries, span));
        };
        // Entries that only the archive has must not be skipped.
        let needs_archive = entries.is_empty() || matches!(missing.window, ArchiveWindow::After(_));
        if span.is_cut_off && needs_archive {
            let reason = "the archive's database is away".to_owned();
            return Err(BackplaneError::Unavailable(reason));
        }
        if span.is_cut_off || span.first >= hot_oldest {
            return Ok(slice(entries, span));
        }
        let Part {
            window: part,
            limit: part_limit,
            max_bytes: part_bytes,
        } = missing;
        // While the archive can't be read, the end of a page is better than none: the span shows that
        // there is more, and replays of entries in the hot log don't wait.
        let may_be_partial = !entries.is_empty() && matches!(part, ArchiveWindow::Before(_));
        if may_be_partial && !self.0.health.is_up() {
            return Ok(slice(entries, span));
        }
        // The archive may have later entries, but not yet all of them.
        let store = &*self.0.store;
        let wanted = archived_page::Wanted {
            window: part,
            limit: part_limit,
            max_bytes: part_bytes,
            end: hot_oldest,
        };
        let mut archived = match archived_page::read(store, room, wanted).await {
            Ok(archived) => archived,
            Err(error) => {
                let error = self.unreadable(room, error);
                return if may_be_partial {
                    Ok(slice(entries, span))
                } else {
                    Err(error)
                };
            }
        };
        let entries = match part {
            ArchiveWindow::After(seq) => {
                self.forget_if_trimmed(room, seq, &archived, &span);
                if let Some(end) = end_at_hole(&archived, span.oldest) {
                    // Since the room was remembered, numbers were recorded as lost. The next read, which
                    // begins at them, finds that.
                    archived.truncate(end);
                    self.0.rooms.forget(room);
                }
                continue_with(archived, entries, limit, max_bytes)
            }
            ArchiveWindow::Before(_) => {
                archived.extend(entries);
                archived
            }
        };
        Ok(slice(entries, span))
    }

    /// The error of a page that the archive could not read. Broken data is logged; repeating the request
    /// helps only in other cases.
    fn unreadable(&self, room: &RoomId, error: StoreError) -> BackplaneError {
        self.0.broken.report(room, &error);
        match error {
            StoreError::Broken(reason) => BackplaneError::Unreadable(reason),
            error => error.into(),
        }
    }

    /// Retention may have deleted entries that the remembered state of the room promises: then the
    /// state is read anew at the next call.
    fn forget_if_trimmed(&self, room: &RoomId, after: u64, entries: &[Entry], span: &LogSpan) {
        let expected = (after + 1).max(span.oldest);
        if entries.first().is_none_or(|first| first.seq != expected) {
            self.0.rooms.forget(room);
        }
    }
}

/// A part of the archive to read.
struct Part {
    window: ArchiveWindow,
    limit: usize,
    max_bytes: usize,
}

/// The part of the archive that belongs to a window, beside these entries of the hot log.
fn missing_part(
    window: Window,
    hot: &[Entry],
    hot_oldest: u64,
    limit: usize,
    max_bytes: usize,
) -> Option<Part> {
    if limit == 0 || hot_oldest <= 1 {
        return None;
    }
    let last = match window {
        Window::After(seq) => {
            let is_older = seq.saturating_add(1) < hot_oldest;
            return is_older.then_some(Part {
                window: ArchiveWindow::After(seq),
                limit,
                max_bytes,
            });
        }
        Window::Before(seq) => seq,
        Window::Newest => u64::MAX,
    };
    let Some(first) = hot.first() else {
        return Some(Part {
            window: ArchiveWindow::Before(last.min(hot_oldest)),
            limit,
            max_bytes,
        });
    };
    let used: usize = hot.iter().map(|entry| entry.record.len()).sum();
    // A page that ends within the hot log is full.
    if first.seq > hot_oldest || hot.len() >= limit || used >= max_bytes {
        return None;
    }
    Some(Part {
        window: ArchiveWindow::Before(first.seq),
        limit: limit - hot.len(),
        max_bytes: max_bytes - used,
    })
}

/// How many of the entries come before a missing number, where from `oldest` on none should be missing.
/// `None` if none is.
fn end_at_hole(entries: &[Entry], oldest: u64) -> Option<usize> {
    let is_hole = |pair: &[Entry]| pair[1].seq > oldest && pair[1].seq != pair[0].seq + 1;
    let before = entries.windows(2).position(is_hole)?;
    Some(before + 1)
}

/// The archived entries, followed by those of the hot log, as far as they continue them and the page
/// has space.
fn continue_with(
    mut archived: Vec<Entry>,
    hot: Vec<Entry>,
    limit: usize,
    max_bytes: usize,
) -> Vec<Entry> {
    let mut bytes: usize = archived.iter().map(|entry| entry.record.len()).sum();
    for entry in hot {
        bytes += entry.record.len();
        let continues = archived.last().is_none_or(|last| last.seq + 1 == entry.seq);
        if !continues || archived.len() >= limit || (bytes > max_bytes && !archived.is_empty()) {
            break;
        }
        archived.push(entry);
    }
    archived
}
