//! The commit of entries.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use async_trait::async_trait;
use tokio::time::timeout;
use uuid::Uuid;

use super::entries::{Row, SELECT_KEYS_BY_ID, insert_rows};
use super::epochs::WantedEpoch;
use super::numbers::{KnownNumbers, Numbers};
use super::projection::{self, Flagged};
use super::{epochs, gaps, rooms};
use crate::domain::{Epoch, RoomId};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::{Db, backoff, out_of_time};
use crate::store::sql::dialect::Dialect;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::pool::{Lease, Pool};
use crate::store::sql::unread;
use crate::store::sql::value::Arg;
use crate::store::{
    ArchiveWriter, ArchivedEntry, BATCH_ENTRIES, CommitOutcome, Fence, Result, StoredKind,
};

pub(super) struct SqlWriter {
    pool: Arc<Pool>,
    /// The writer's connection; `None` before the first commit and after an error. Always `None` on
    /// SQLite, where the writer takes turns with other calls on the only connection that writes.
    own: Option<Conn>,
    numbers: KnownNumbers,
    /// A commit that takes longer has failed.
    time_limit: Duration,
    /// The run of a lone node, for epochs that are added.
    run: u64,
}

/// The connection during a commit. Dropping it closes the connection.
enum Link {
    Own(Box<Conn>),
    Leased(Box<Lease>),
}

impl Link {
    fn conn(&mut self) -> &mut Conn {
        match self {
            Self::Own(conn) => conn,
            Self::Leased(lease) => lease.conn(),
        }
    }
}

type Entries = [(RoomId, ArchivedEntry)];
type Resolved = AHashMap<(RoomId, Epoch), Numbers>;

/// The numbers of each entry's room and epoch; `None` for an epoch that the fence excludes.
type EntryNumbers = Vec<Option<Numbers>>;

impl SqlWriter {
    pub(super) fn new(db: &Db, run: u64) -> Self {
        Self {
            pool: db.write_pool().clone(),
            own: None,
            numbers: KnownNumbers::default(),
            time_limit: db.write_timeout(),
            run,
        }
    }

    async fn link(&mut self) -> Outcome<Link> {
        if let Some(conn) = self.own.take() {
            return Ok(Link::Own(Box::new(conn)));
        }
        if self.pool.connector().dialect() == Dialect::Sqlite {
            return Ok(Link::Leased(Box::new(self.pool.acquire().await?)));
        }
        self.numbers.clear();
        Ok(Link::Own(Box::new(self.pool.connector().connect().await?)))
    }

    fn keep(&mut self, link: Link) {
        match link {
            Link::Own(conn) => self.own = Some(*conn),
            Link::Leased(lease) => lease.release(),
        }
    }

    /// Commits, again and again while other transactions are in the way. An error closes the
    /// connection, which undoes a transaction that it had begun.
    async fn commit_repeatedly(
        &mut self,
        entries: &Entries,
        mut fence: Fence,
    ) -> Outcome<Vec<CommitOutcome>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let is_reused = self.own.is_some();
            let mut link = self.link().await?;
            match self.commit_once(link.conn(), entries, fence).await {
                Ok(outcomes) => {
                    self.keep(link);
                    return Ok(outcomes);
                }
                Err(Fault::Again(_)) => {
                    if link.conn().rollback().await.is_ok() {
                        self.keep(link);
                    }
                    tokio::time::sleep(backoff(attempt)).await;
                }
                // The server had closed the connection, perhaps because it was idle.
                Err(Fault::Lost(_)) if is_reused => {}
                Err(fault) => return Err(fault),
            }
            // The attempt may have waited for a lock for long, and its outcome may be unknown.
            fence = fence.of_repeat();
        }
    }

    async fn commit_once(
        &mut self,
        conn: &mut Conn,
        entries: &Entries,
        fence: Fence,
    ) -> Outcome<Vec<CommitOutcome>> {
        let known: Option<EntryNumbers> = entries
            .iter()
            .map(|(room, entry)| self.numbers.get(room, &entry.epoch).map(Some))
            .collect();
        let inserted = match (known, fence) {
            // One statement is a transaction of its own.
            (Some(numbers), Fence::None | Fence::Fresh)
                if !entries
                    .iter()
                    .any(|(_, entry)| projection::is_flagged(entry)) =>
            {
                insert(conn, entries, &numbers, fence).await?
            }
            (known, _) => {
                self.insert_in_transaction(conn, entries, known, fence)
                    .await?
            }
        };
        if inserted.count == entries.len() {
            return Ok(vec![CommitOutcome::Stored; entries.len()]);
        }
        outcomes(conn, &inserted.places).await
    }

    async fn insert_in_transaction(
        &mut self,
        conn: &mut Conn,
        entries: &Entries,
        known: Option<EntryNumbers>,
        fence: Fence,
    ) -> Outcome<Inserted> {
        conn.begin().await?;
        let mut resolved = Resolved::default();
        let numbers = match known {
            Some(numbers) => numbers,
            None => {
                resolved = epochs::resolve(conn, &wanted(entries), self.run, fence).await?;
                entries
                    .iter()
                    .map(|(room, entry)| resolved.get(&(room.clone(), entry.epoch.clone())))
                    .map(Option::<&Numbers>::copied)
                    .collect()
            }
        };
        let mut inserted = insert(conn, entries, &numbers, fence).await?;
        let flagged = std::mem::take(&mut inserted.flagged);
        if !flagged.is_empty() {
            let are_new = inserted.count == entries.len();
            projection::add(conn, flagged, are_new).await?;
        }
        if matches!(fence, Fence::EpochEnds | Fence::KnownEpochs) {
            // Only a late entry can have a number that was recorded as lost.
            let keys: Vec<Key> = inserted.places.iter().filter_map(Place::key).collect();
            gaps::narrow(conn, &keys).await?;
            let messages = message_keys(entries, &inserted.places);
            unread::entries_added(conn, messages).await?;
        }
        conn.commit().await?;
        for ((room, epoch), numbers) in &resolved {
            self.numbers.add(room, epoch, *numbers);
        }
        Ok(inserted)
    }

    async fn commit_in_time(
        &mut self,
        entries: &Entries,
        fence: Fence,
    ) -> Result<Vec<CommitOutcome>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        if entries.len() > BATCH_ENTRIES {
            let text = format!("a commit has at most {BATCH_ENTRIES} entries");
            return Err(Fault::Broken(text).into());
        }
        let time_limit = self.time_limit;
        let outcome = timeout(time_limit, self.commit_repeatedly(entries, fence)).await;
        Ok(outcome.unwrap_or_else(|_| Err(out_of_time(time_limit)))?)
    }
}

/// The room number, `seq` and id of an entry.
pub(super) type Key = (i64, i64, Uuid);

/// The position of an entry in the archive.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The key that the entry has, unless another one has it or the fence excludes the entry.
    Key(Key),
    /// The fence excludes the entry's epoch.
    Excluded,
    /// Retention has deleted the entries up to this one.
    Deleted,
}

impl Place {
    fn key(&self) -> Option<Key> {
        match self {
            Self::Key(key) => Some(*key),
            Self::Excluded | Self::Deleted => None,
        }
    }
}

/// The keys of the messages among the entries, with their times.
fn message_keys(entries: &Entries, places: &[Place]) -> Vec<((i64, i64), u64)> {
    let key = |((_, entry), place): (&(RoomId, ArchivedEntry), &Place)| {
        let (room_no, seq, _) = place.key()?;
        (entry.kind == StoredKind::MESSAGE).then_some(((room_no, seq), entry.at.0))
    };
    entries.iter().zip(places).filter_map(key).collect()
}

struct Inserted {
    /// How many entries were new.
    count: usize,
    /// In the order of the entries.
    places: Vec<Place>,
    /// The messages to add to other tables, too.
    flagged: Vec<Flagged>,
}

/// The limits of a commit with a fence.
#[derive(Default)]
struct Limits {
    /// The last number of each epoch that has ended.
    ends: AHashMap<Numbers, i64>,
    /// The last number of each room that retention has deleted.
    cuts: AHashMap<i64, i64>,
}

impl Limits {
    async fn of(conn: &mut Conn, numbers: &[Option<Numbers>], fence: Fence) -> Outcome<Self> {
        match fence {
            Fence::None | Fence::Fresh => Ok(Self::default()),
            Fence::EpochEnds | Fence::KnownEpochs => {
                let known: Vec<Numbers> = numbers.iter().copied().flatten().collect();
                let mut rooms: Vec<i64> = known.iter().map(|(room_no, _)| *room_no).collect();
                rooms.sort_unstable();
                rooms.dedup();
                Ok(Self {
                    ends: epochs::ends(conn, known).await?,
                    cuts: rooms::cuts(conn, &rooms).await?,
                })
            }
        }
    }

    fn is_after_end(&self, numbers: Numbers, seq: i64) -> bool {
        self.ends.get(&numbers).is_some_and(|end| seq > *end)
    }

    fn is_deleted(&self, (room_no, _): Numbers, seq: i64) -> bool {
        self.cuts.get(&room_no).is_some_and(|cut| seq <= *cut)
    }
}

/// Inserts the entries that nothing prevents. With a fence only in a transaction.
async fn insert(
    conn: &mut Conn,
    entries: &Entries,
    numbers: &[Option<Numbers>],
    fence: Fence,
) -> Outcome<Inserted> {
    let limits = Limits::of(conn, numbers, fence).await?;
    let mut rows = Vec::with_capacity(entries.len());
    let mut places = Vec::with_capacity(entries.len());
    let mut flagged = Vec::new();
    for ((room, entry), numbers) in entries.iter().zip(numbers) {
        let Some(numbers) = *numbers else {
            places.push(Place::Excluded);
            continue;
        };
        let row = Row::new(room, entry, numbers)?;
        let is_after_end = limits.is_after_end(numbers, row.seq);
        if !is_after_end && limits.is_deleted(numbers, row.seq) {
            places.push(Place::Deleted);
            continue;
        }
        places.push(Place::Key((row.room_no, row.seq, row.id)));
        if !is_after_end {
            flagged.extend(Flagged::of(entry, row.room_no, row.seq));
            rows.push(row);
        }
    }
    // In the order of the ids: their index then grows at its end only, and two writers of the same
    // entries wait for each other instead of forming a deadlock.
    rows.sort_by_key(|row| row.id);
    let count = if rows.is_empty() {
        0
    } else {
        insert_rows(conn, rows).await?
    };
    Ok(Inserted {
        count: usize::try_from(count).unwrap_or(usize::MAX),
        places,
        flagged,
    })
}

/// Distinguishes entries that are in the archive from those whose number, or id, another entry has, and
/// from those that the fence excludes.
async fn outcomes(conn: &mut Conn, places: &[Place]) -> Outcome<Vec<CommitOutcome>> {
    let ids: Vec<Arg> = places
        .iter()
        .filter_map(Place::key)
        .map(|(_, _, id)| Arg::Uuid(id))
        .collect();
    let mut found = ahash::AHashSet::new();
    if !ids.is_empty() {
        let (text, args) = conn.dialect().with_list(SELECT_KEYS_BY_ID, ids);
        let rows: Vec<Key> = conn.all_of_text(text, args).await?;
        found.extend(rows);
    }
    let outcome = |place: &Place| match place {
        Place::Key(key) if found.contains(key) => CommitOutcome::Stored,
        Place::Deleted => CommitOutcome::Stored,
        Place::Key(_) | Place::Excluded => CommitOutcome::Conflict,
    };
    Ok(places.iter().map(outcome).collect())
}

/// The rooms and epochs of the entries.
fn wanted(entries: &Entries) -> epochs::Wanted {
    let mut wanted = epochs::Wanted::new();
    for (at, (room, entry)) in entries.iter().enumerate() {
        let key: (RoomId, Epoch) = (room.clone(), entry.epoch.clone());
        let epoch = wanted.entry(key).or_insert(WantedEpoch {
            first: entry.seq,
            last_at: at,
        });
        epoch.first = epoch.first.min(entry.seq);
        epoch.last_at = at;
    }
    wanted
}

#[async_trait]
impl ArchiveWriter for SqlWriter {
    async fn commit_with(&mut self, entries: &Entries, fence: Fence) -> Result<Vec<CommitOutcome>> {
        self.commit_in_time(entries, fence).await
    }
}
