//! Making Redis agree with this node again: what is still to be said, what was lost, and what should no longer be there.

use std::collections::{HashMap, HashSet};

use fred::types::Value;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::Node;
use super::keys::{Partition, name, part};
use super::lease::Owed;
use super::link::{Fault, millis};
use super::registry::{Connection, Place};
use super::script::{CHECK, DISCONNECT, HELD, LEAVE, LOSE, REJOIN};
use crate::domain::{ConnId, RoomId, UserId, Username};

/// Connections put back or taken out in one call.
const STEP: usize = 50;
/// Calls of one kind that are under way at a time.
const CALLS: usize = 32;

/// The replid under which each partition is known to have all that this node has put there: that of the first call which
/// put something there, until all was looked at. Empty where what may be lost isn't put back yet.
#[derive(Default)]
pub(super) struct Replids(Mutex<HashMap<Partition, String>>);

impl Replids {
    /// Something was put there, in this history. What was put there in another one may be lost.
    pub(super) fn saw(&self, partition: Partition, replid: &str) {
        let mut known = self.0.lock();
        let known = known.entry(partition).or_insert_with(|| replid.to_owned());
        if known != replid {
            known.clear();
        }
    }

    /// Whether this node has ever put something there. If all of it is gone, its going may be forgotten.
    fn knows(&self, partition: Partition) -> bool {
        self.0.lock().contains_key(&partition)
    }

    /// Whether it is still that one. Where nothing is known to have been put, nothing is missing.
    fn agrees(&self, partition: Partition, replid: &str) -> bool {
        self.0
            .lock()
            .get(&partition)
            .is_none_or(|known| known == replid)
    }

    /// The partition is whole no more, until `set` says so, whatever is there meanwhile.
    fn doubt(&self, partition: Partition) {
        self.0.lock().insert(partition, String::new());
    }

    fn set(&self, partition: Partition, replid: String) {
        self.0.lock().insert(partition, replid);
    }
}

impl Node {
    /// Says what is still to be said, and puts back what was lost.
    pub(super) async fn catch_up(&self) {
        if self.lease.incarnation().is_err() || !self.link.client_is_connected() {
            return;
        }
        let unsaid = self.registry.unsaid(1024);
        if !unsaid.is_empty() {
            self.say_lost(unsaid).await;
        }
        self.settle_places().await;
        if let Some(Owed { data_lost, only }) = self.lease.take_owed() {
            let concerned = |partition| only.as_ref().is_none_or(|only| only.contains(&partition));
            let failed = self.put_back(data_lost, concerned).await;
            if !failed.is_empty() {
                tracing::debug!(partitions = failed.len(), "redis: not all is put back yet");
                self.lease.owe_partitions(data_lost, failed);
            }
        }
    }

    /// Looks whether partitions that this node uses were restarted, promoted or flushed, and puts back what they lack.
    pub(super) async fn check_partitions(&self) -> Result<(), Fault> {
        let incarnation = self.lease.incarnation()?;
        let used = Partition::all().map(|partition| (partition, self.registry.uses(partition)));
        let used: Vec<_> = used
            .filter(|(partition, uses)| *uses || self.replids.knows(*partition))
            .collect();
        let checks = stream::iter(used).map(|(partition, uses)| {
            let args = vec![(&*incarnation).into()];
            async move {
                let mut answer = self.link.run(&CHECK, partition, args).await?;
                Ok::<_, Fault>((partition, answer.text()?, answer.number()? == 1 || !uses))
            }
        });
        let (mut doubtful, mut done) = (HashMap::new(), Ok(()));
        let mut checks = checks.buffer_unordered(CALLS);
        while let Some(check) = checks.next().await {
            match check {
                Ok((partition, replid, present)) => {
                    if !self.replids.agrees(partition, &replid) || !present {
                        self.replids.doubt(partition);
                        doubtful.insert(partition, replid);
                    }
                }
                // One server that is away must not hide what another one has lost.
                Err(fault) => done = Err(fault),
            }
        }
        drop(checks);
        if doubtful.is_empty() {
            return done;
        }
        let failed = self
            .put_back(true, |partition| doubtful.contains_key(&partition))
            .await;
        for (partition, replid) in doubtful {
            if failed.contains(&partition) {
                continue;
            }
            match self.take_out(partition, &incarnation).await {
                Ok(()) => self.replids.set(partition, replid),
                Err(fault) => done = Err(fault),
            }
        }
        done
    }

    /// Registers everything live again, as far as it lies where `lost` says. Whoever still counts causes no change. The
    /// partitions where that failed.
    async fn put_back(
        &self,
        data_lost: bool,
        lost: impl Fn(Partition) -> bool,
    ) -> HashSet<Partition> {
        let live = self.registry.live();
        let mut failed = HashSet::new();
        let users = live
            .iter()
            .filter(|one| lost(Partition::of_user(&one.user)));
        let users: Vec<_> = users
            .map(|one| async {
                let done = self
                    .register(&one.conn, &one.user, &one.username, usize::MAX)
                    .await;
                (Partition::of_user(&one.user), done)
            })
            .collect();
        let mut users = stream::iter(users).buffer_unordered(CALLS);
        while let Some((partition, done)) = users.next().await {
            if done.is_err() {
                failed.insert(partition);
            }
        }
        drop(users);
        let mut places: HashMap<Partition, Vec<Value>> = HashMap::new();
        for one in &live {
            for room in one
                .rooms
                .iter()
                .filter(|room| lost(Partition::of_room(room)))
            {
                let place = place(&one.conn, room, &one.user, &one.username);
                places
                    .entry(Partition::of_room(room))
                    .or_default()
                    .extend(place);
            }
        }
        let calls: Vec<_> = places
            .iter()
            .flat_map(|(partition, places)| places.chunks(4 * STEP).map(|step| (*partition, step)))
            .map(|(partition, step)| async move {
                (partition, self.rejoin(partition, data_lost, step).await)
            })
            .collect();
        let mut calls = stream::iter(calls).buffer_unordered(CALLS);
        while let Some((partition, done)) = calls.next().await {
            if done.is_err() {
                failed.insert(partition);
            }
        }
        drop(calls);
        // What went away while it was put back is taken out again, also when something failed: part of it is back.
        for one in &live {
            self.registry.put_back(one);
        }
        failed
    }

    async fn rejoin(
        &self,
        partition: Partition,
        data_lost: bool,
        places: &[Value],
    ) -> Result<(), Fault> {
        let args = |inc: &str| {
            [inc.into(), i64::from(data_lost).into()]
                .into_iter()
                .chain(places.iter().cloned())
        };
        let mut answer = self
            .write(&REJOIN, partition, |inc| args(inc).collect())
            .await?;
        self.count_changes(answer.number()?);
        self.replids.saw(partition, &answer.text()?);
        Ok(())
    }

    /// Takes out what Redis holds of this incarnation but this node doesn't: a promotion forgets departures too.
    async fn take_out(&self, partition: Partition, incarnation: &str) -> Result<(), Fault> {
        let what = if partition.holds_rooms() { "R" } else { "U" };
        let mut held = self
            .link
            .run(&HELD, partition, vec![incarnation.into(), what.into()])
            .await?;
        let (mut stray, mut strays): (Vec<Value>, _) = (Vec::new(), Vec::new());
        while !held.is_empty() {
            let (part, conn) = (held.text()?, ConnId::trusted(&held.text()?));
            let room = name(&part)
                .filter(|_| partition.holds_rooms())
                .map(|name| RoomId::trusted(&name));
            // Entries here are made before Redis is asked: what isn't here is gone for good.
            if !self.has(&conn, room.as_ref()) {
                stray.extend([part.into(), conn.as_str().into()]);
                strays.push((conn, room));
            }
        }
        for step in stray.chunks(2 * STEP) {
            self.say_step(partition, step).await?;
        }
        // But for what has come (again) since we looked.
        for (conn, room) in strays
            .iter()
            .filter(|(conn, room)| self.has(conn, room.as_ref()))
        {
            match room {
                Some(room) => self.registry.unsettle(conn, room),
                None => self.lease.owe_partitions(false, HashSet::from([partition])),
            }
        }
        Ok(())
    }

    fn has(&self, conn: &ConnId, room: Option<&RoomId>) -> bool {
        room.map_or_else(
            || self.registry.is_live(conn),
            |room| self.registry.is_in(conn, room),
        )
    }

    /// Makes Redis agree with this node where a call may or may not have happened.
    async fn settle_places(&self) {
        let calls: Vec<_> = self
            .registry
            .unsettled()
            .into_iter()
            .map(|(conn, room)| async move {
                let partition = Partition::of_room(&room);
                let (done, in_it) = match self.registry.place(&conn, &room) {
                    Place::In(user, username) => {
                        let place: Vec<_> = place(&conn, &room, &user, &username).into();
                        (self.rejoin(partition, false, &place).await, true)
                    }
                    Place::Out => {
                        let args = |inc: &str| {
                            vec![part(room.as_str()).into(), inc.into(), conn.as_str().into()]
                        };
                        let left = self.write(&LEAVE, partition, args).await;
                        (
                            left.and_then(|mut answer| answer.number())
                                .map(|changes| self.count_changes(changes)),
                            false,
                        )
                    }
                    // The join that is under way, or the loss that follows when it fails, makes it certain.
                    Place::Asked => return,
                };
                if done.is_ok() {
                    self.registry.settle(&conn, &room, in_it);
                }
            })
            .collect();
        stream::iter(calls)
            .buffer_unordered(CALLS)
            .collect::<()>()
            .await;
    }

    /// Tells Redis that connections are lost; those it has learned of are forgotten here.
    pub(super) async fn say_lost(&self, lost: Vec<Connection>) {
        let mut steps: HashMap<Partition, Vec<Value>> = HashMap::new();
        for one in &lost {
            let user = [part(one.user.as_str()).into(), one.conn.as_str().into()];
            steps
                .entry(Partition::of_user(&one.user))
                .or_default()
                .extend(user);
            for room in &one.rooms {
                let place = [part(room.as_str()).into(), one.conn.as_str().into()];
                steps
                    .entry(Partition::of_room(room))
                    .or_default()
                    .extend(place);
            }
        }
        let calls: Vec<_> =
            steps
                .iter()
                .flat_map(|(partition, places)| {
                    places.chunks(2 * STEP).map(|step| (*partition, step))
                })
                .map(|(partition, step)| async move {
                    (partition, self.say_step(partition, step).await)
                })
                .collect();
        let mut calls = stream::iter(calls).buffer_unordered(CALLS);
        let mut failed = HashSet::new();
        while let Some((partition, done)) = calls.next().await {
            if done.is_err() {
                failed.insert(partition);
            }
        }
        drop(calls);
        for one in &lost {
            let user = Partition::of_user(&one.user);
            let mut partitions = one.rooms.iter().map(Partition::of_room).chain([user]);
            if partitions.any(|partition| failed.contains(&partition)) {
                self.registry.postpone(one);
            } else if self.registry.forget_lost(one) {
                self.lease.owe_partitions(false, HashSet::from([user]));
            }
        }
    }

    /// One call of [`say_lost`](Self::say_lost): rooms or users, each with a connection.
    async fn say_step(&self, partition: Partition, step: &[Value]) -> Result<(), Fault> {
        let grace = self.limits.presence_grace;
        let script = if partition.holds_rooms() {
            &LOSE
        } else {
            &DISCONNECT
        };
        let args = |inc: &str| {
            [inc.into(), millis(grace).into()]
                .into_iter()
                .chain(step.iter().cloned())
                .collect()
        };
        if self.write(script, partition, args).await?.number()? > 0 {
            self.sweeps.note(partition, grace);
        }
        Ok(())
    }
}

/// As `rejoin.lua` takes it.
fn place(conn: &ConnId, room: &RoomId, user: &UserId, username: &Username) -> [Value; 4] {
    [
        part(room.as_str()).into(),
        conn.as_str().into(),
        user.as_str().into(),
        username.as_str().into(),
    ]
}
