//! Restores rooms from the archive: a room that Redis doesn't know, or of which it may have lost the
//! end, continues as the archive decides.
//!
//! A restore runs once at a time for each room. In this process its callers share one task. In the
//! cluster it holds a claim in Redis, and only the holder of the claim installs the result: if a node
//! is paused for longer than its claim lasts, another one restores the room and the paused one changes
//! nothing any more. The archive reads the room's entries page by page, and each page renews the claim:
//! so neither the time nor the memory of a restore limits the number of entries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::claimed::{CLAIM, ClaimedEntries, RoomClaim};
use super::fault::Fault;
use super::hot_log::parse_ranges;
use super::keys::{Partition, encode_name};
use super::link::{Link, millis};
use super::log::parse_past;
use super::script::{CLAIM_RESTORE, RELEASE_RESTORE, RESTORE_ROOM, ScriptReply};
use crate::backplane::{
    BackplaneError, BackplaneLimits, HotState, RestorePoint, RestoreSource, RestoredSend, Result,
    is_permanent,
};
use crate::domain::{Epoch, Head, RoomId};

/// How long a call waits for the restore of its room.
pub(super) const RESTORE_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a call is repeated after a restore.
pub(super) const MAX_RESTORES: usize = 4;
/// Restores of this node that hold a claim. More of them wait, and nothing else does.
const CONCURRENT_RESTORES: usize = 64;
/// The pauses between two attempts to claim a room.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(160)];
/// Keys of sends that one call sets.
const SENDS_PER_CALL: usize = 500;

type Flight = Shared<BoxFuture<'static, Result<()>>>;

/// The restores of this node.
pub(super) struct Restores {
    link: Arc<Link>,
    source: Arc<dyn RestoreSource>,
    dedupe_ttl: i64,
    history_ttl: i64,
    /// The restore under way of each room.
    flights: Mutex<HashMap<RoomId, Flight>>,
    permits: Semaphore,
}

/// The restores that one call may still wait for.
#[derive(Clone, Copy)]
pub(super) struct RestoreRounds {
    until: Instant,
    left: usize,
}

impl RestoreRounds {
    pub(super) fn new() -> Self {
        Self::since(Instant::now())
    }

    /// Those of a call that began at this time.
    pub(super) fn since(begun: Instant) -> Self {
        Self {
            until: begun + RESTORE_TIMEOUT,
            left: MAX_RESTORES,
        }
    }

    /// Those of another call of which `other` have been used.
    pub(super) fn with_as_many_as(self, other: &Self) -> Self {
        Self {
            left: other.left,
            ..self
        }
    }

    /// Whether another round may begin. If so, it counts.
    fn take(&mut self) -> bool {
        if self.left == 0 || Instant::now() >= self.until {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// The outcome of one attempt.
enum Attempt {
    /// The room can be used.
    Done,
    /// Another node holds the claim, or the room has changed since: try again.
    Again,
}

/// The reply to a claim.
pub(super) enum Claim {
    Open,
    Taken,
    Claimed(Option<HotState>),
}

/// Removes the restore of a room from those under way, however its task ends.
struct EndOfFlight(Arc<Restores>, RoomId);

impl Drop for EndOfFlight {
    fn drop(&mut self) {
        self.0.flights.lock().remove(&self.1);
    }
}

impl Restores {
    pub(super) fn new(
        link: Arc<Link>,
        source: Arc<dyn RestoreSource>,
        limits: &BackplaneLimits,
    ) -> Arc<Self> {
        Arc::new(Self {
            link,
            source,
            dedupe_ttl: millis(limits.dedupe_ttl),
            history_ttl: millis(limits.history_ttl),
            flights: Mutex::default(),
            permits: Semaphore::new(CONCURRENT_RESTORES),
        })
    }

    /// Restores rooms, or waits for the restores that are under way, as long as the call may. Dropping
    /// the future doesn't end the restores.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`: not all rooms are restored.
    pub(super) async fn restore(
        self: &Arc<Self>,
        rooms: &[RoomId],
        rounds: &mut RestoreRounds,
    ) -> Result<()> {
        if !rounds.take() {
            return Err(Fault::Unrestored.into());
        }
        let flights = join_all(rooms.iter().map(|room| self.flight(room)));
        match tokio::time::timeout_at(rounds.until, flights).await {
            Ok(ended) => ended.into_iter().collect(),
            Err(_) => Err(BackplaneError::Unavailable(
                "the restore of the room from the archive takes long".to_owned(),
            )),
        }
    }

    /// The restore of the room that is under way, which is begun if there is none.
    fn flight(self: &Arc<Self>, room: &RoomId) -> Flight {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(room) {
            return flight.clone();
        }
        let end = EndOfFlight(self.clone(), room.clone());
        let task = tokio::spawn(async move {
            let EndOfFlight(restores, room) = &end;
            restores.run(room).await
        });
        let flight = task
            .map(|ended| {
                ended.unwrap_or_else(|_| {
                    Err(BackplaneError::Unavailable(
                        "the restore of the room has failed".to_owned(),
                    ))
                })
            })
            .boxed()
            .shared();
        flights.insert(room.clone(), flight.clone());
        flight
    }

    async fn run(&self, room: &RoomId) -> Result<()> {
        let until = Instant::now() + RESTORE_TIMEOUT;
        let [mut pause, longest] = PAUSES;
        loop {
            let permit = tokio::time::timeout_at(until, self.permits.acquire()).await;
            let Ok(Ok(permit)) = permit else {
                return Err(BackplaneError::Unavailable(
                    "too many rooms are being restored".to_owned(),
                ));
            };
            if let Attempt::Done = self.attempt(room).await? {
                return Ok(());
            }
            // While another node restores the room, this one restores others.
            drop(permit);
            if Instant::now() + pause >= until {
                return Err(BackplaneError::Unavailable(
                    "another node is restoring the room".to_owned(),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    async fn attempt(&self, room: &RoomId) -> Result<Attempt> {
        let token = Uuid::new_v4().simple().to_string();
        let claim = RoomClaim::new(&self.link, room, &token);
        let restored = match self.claim(&claim).await {
            Ok(Claim::Open) => return Ok(Attempt::Done),
            Ok(Claim::Taken) => return Ok(Attempt::Again),
            Ok(Claim::Claimed(hot)) => self.restore_claimed(&claim, hot.as_ref()).await,
            // The claim may have taken effect.
            Err(fault) => Err(fault.into()),
        };
        if claim.is_lost() {
            return Ok(Attempt::Again);
        }
        if restored.is_err() {
            // If this fails, the claim expires.
            let _ = self.release(room, &token).await;
        }
        restored
    }

    async fn restore_claimed(
        &self,
        claim: &RoomClaim<'_>,
        hot: Option<&HotState>,
    ) -> Result<Attempt> {
        let mut entries = ClaimedEntries::new(claim, hot);
        let point = self.source.restore_point(claim.room, hot, &mut entries);
        let point = claim.limit(point).await?;
        point.check(hot)?;
        let install = Install {
            room: claim.room,
            token: claim.token,
            hot,
            point: &point,
        };
        Ok(self.install(&install).await?)
    }

    async fn claim(&self, claim: &RoomClaim<'_>) -> std::result::Result<Claim, Fault> {
        let args = vec![
            encode_name(claim.room.as_str()).into(),
            self.link.archive.name(),
            claim.token.into(),
            millis(CLAIM).into(),
        ];
        let partition = Partition::of_room(claim.room);
        let reply = self.link.run(&CLAIM_RESTORE, partition, args).await?;
        parse_claim(reply)
    }

    async fn release(&self, room: &RoomId, token: &str) -> std::result::Result<(), Fault> {
        let args = vec![encode_name(room.as_str()).into(), token.into()];
        let partition = Partition::of_room(room);
        self.link
            .run(&RELEASE_RESTORE, partition, args)
            .await
            .map(drop)
    }

    /// Installs the restore point: first the keys of all sends, so that no repeat of one is taken for
    /// another message once the room can be used.
    async fn install(&self, install: &Install<'_>) -> std::result::Result<Attempt, Fault> {
        let sends = &install.point.sends;
        let mut calls = sends.rchunks(SENDS_PER_CALL).peekable();
        loop {
            let sends = calls.next().unwrap_or_default();
            let is_last = calls.peek().is_none();
            let args = self.install_arguments(install, sends, is_last);
            let partition = Partition::of_room(install.room);
            let mut reply = self.link.run(&RESTORE_ROOM, partition, args).await?;
            if reply.text()? != "DONE" {
                return Ok(Attempt::Again);
            }
            if is_last {
                return Ok(Attempt::Done);
            }
        }
    }

    fn install_arguments(
        &self,
        install: &Install<'_>,
        sends: &[RestoredSend],
        is_last: bool,
    ) -> Vec<Value> {
        let Install {
            room,
            token,
            hot,
            point,
        } = install;
        let (claimed_epoch, claimed_seq) = head_arguments(hot.map(|hot| &hot.head));
        let (epoch, seq) = head_arguments(point.head.as_ref());
        let past: Vec<_> = point
            .past
            .iter()
            .map(|head| format!("{} {}", head.epoch, head.seq))
            .collect();
        let mut args: Vec<Value> = vec![
            encode_name(room.as_str()).into(),
            self.link.archive.name(),
            (*token).into(),
            i64::from(is_last).into(),
            self.dedupe_ttl.into(),
            self.history_ttl.into(),
            i64::from(is_permanent(room)).into(),
            claimed_epoch,
            claimed_seq,
            epoch,
            seq,
            past.join(" ").into(),
            point.watermark.to_string().into(),
            i64::from(point.keep_entries).into(),
        ];
        for send in sends {
            let position = &send.position;
            let (user, key) = (encode_name(send.user.as_str()), encode_name(&send.key));
            args.extend([
                format!("{user}:{key}").into(),
                format!(
                    "{} {} {} {} A",
                    position.id, position.seq, position.epoch, position.at.0
                )
                .into(),
                position.at.0.to_string().into(),
            ]);
        }
        args
    }
}

/// A restore point to install.
struct Install<'a> {
    room: &'a RoomId,
    token: &'a str,
    hot: Option<&'a HotState>,
    point: &'a RestorePoint,
}

fn head_arguments(head: Option<&Head>) -> (Value, Value) {
    match head {
        Some(head) => (head.epoch.as_str().into(), head.seq.to_string().into()),
        None => ("".into(), "".into()),
    }
}

/// Parses the reply of `claim_restore.lua`.
pub(super) fn parse_claim(mut reply: ScriptReply) -> std::result::Result<Claim, Fault> {
    match reply.text()?.as_str() {
        "OPEN" => return Ok(Claim::Open),
        "TAKEN" => return Ok(Claim::Taken),
        _ => {}
    }
    let epoch = reply.text()?;
    if epoch.is_empty() {
        return Ok(Claim::Claimed(None));
    }
    let head = Head {
        epoch: Epoch::trusted(&epoch),
        seq: reply.number()?,
    };
    let oldest = reply.number()?;
    let past = parse_past(&reply.text()?)?;
    let watermark = optional_number(&mut reply)?;
    let is_stale = reply.number()? == 1;
    let shared = optional_number(&mut reply)?;
    Ok(Claim::Claimed(Some(HotState {
        head,
        past,
        oldest,
        watermark,
        is_stale,
        shared,
        archived: parse_ranges(&reply.text()?)?,
    })))
}

/// The next value: a number, or an empty text for `None`.
fn optional_number(reply: &mut ScriptReply) -> std::result::Result<Option<u64>, Fault> {
    let value = reply.value()?;
    if value.as_str().is_some_and(|text| text.is_empty()) {
        return Ok(None);
    }
    match value.as_u64() {
        Some(number) => Ok(Some(number)),
        None => Err(Fault::broken("a value isn't a number")),
    }
}
