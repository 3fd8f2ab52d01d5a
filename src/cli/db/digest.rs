//! The digest of a room's entries: equal for two databases if every entry is equal.

use sha2::{Digest, Sha256};

use crate::domain::RoomId;
use crate::store::{ArchiveStore, ArchiveWindow, ArchivedEntry, Result};

/// The entries and bytes of one read.
pub(super) const PAGE_ENTRIES: usize = 2000;
pub(super) const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The entries of a room, by their number and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoomDigest {
    pub entries: u64,
    /// The last `seq`; 0 without entries.
    pub last: u64,
    pub sha256: [u8; 32],
}

/// The digest of a room's entries from after `cut` up to `last`.
pub(super) async fn digest(
    store: &dyn ArchiveStore,
    room: &RoomId,
    cut: u64,
    last: u64,
) -> Result<RoomDigest> {
    let mut hash = Sha256::new();
    let (mut entries, mut after) = (0, cut);
    loop {
        let window = ArchiveWindow::After(after);
        let page = store.read(room, window, PAGE_ENTRIES, PAGE_BYTES).await?;
        let within = page.iter().take_while(|entry| entry.seq <= last);
        let mut count = 0;
        for entry in within {
            add(&mut hash, entry);
            after = entry.seq;
            count += 1;
        }
        entries += count;
        if count == 0 {
            return Ok(RoomDigest {
                entries,
                last: if entries == 0 { 0 } else { after },
                sha256: hash.finalize().into(),
            });
        }
    }
}

/// Each field has its length before it or a fixed one, so that no two entries have the same bytes.
fn add(hash: &mut Sha256, entry: &ArchivedEntry) {
    let ArchivedEntry {
        seq,
        epoch,
        at,
        kind,
        id,
        user,
        send_key,
        record,
    } = entry;
    for number in [seq.to_le_bytes(), at.0.to_le_bytes(), kind.0.to_le_bytes()] {
        hash.update(number);
    }
    hash.update(id.as_bytes());
    let key = send_key.as_deref().unwrap_or_default();
    for text in [
        epoch.as_str().as_bytes(),
        user.as_str().as_bytes(),
        key.as_bytes(),
        record,
    ] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
}
