//! Making Redis agree with this node again: what is still to be said, what was lost, and what should no longer be there.

use std::collections::HashMap;

use fred::types::Value;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::Node;
use super::keys::{Partition, name, part};
use super::link::{Fault, millis};
use super::registry::Connection;
use super::script::{CHECK, DISCONNECT, HELD, LEAVE, LOSE, REJOIN};
use crate::domain::{ConnId, RoomId};

/// Connections put back or taken out in one call.
const STEP: usize = 50;
/// Calls of one kind that are under way at a time.
const CALLS: usize = 32;

/// The replid under which each partition was last seen to be whole.
#[derive(Default)]
pub(super) struct Replids(Mutex<HashMap<Partition, String>>);

impl Replids {
    /// Whether it is still that one; the first one seen is.
    fn agrees(&self, partition: Partition, replid: &str) -> bool {
        self.0.lock().entry(partition).or_insert_with(|| replid.to_owned()) == replid
    }

    fn set(&self, replids: HashMap<Partition, String>) {
        self.0.lock().extend(replids);
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
            let _ = self.say_lost(unsaid).await;
        }
        if let Some(data_lost) = self.lease.take_owed()
            && let Err(fault) = self.put_back(data_lost, |_| true).await
        {
            tracing::debug!(?fault, "redis: not all is put back yet");
            self.lease.owe(data_lost);
        }
    }

    /// Looks whether partitions that this node uses were restarted, promoted or flushed, and puts back what they lack.
    pub(super) async fn check_partitions(&self) -> Result<(), Fault> {
        let incarnation = self.lease.incarnation()?;
        let used: Vec<_> = Partition::all().filter(|partition| self.registry.uses(*partition)).collect();
        let checks = stream::iter(used).map(|partition| {
            let args = vec![(&*incarnation).into()];
            async move {
                let mut answer = self.link.run(&CHECK, partition, args).await?;
                Ok::<_, Fault>((partition, answer.text()?, answer.number()? == 1))
            }
        });
        let mut doubtful = HashMap::new();
        let mut checks = checks.buffer_unordered(CALLS);
        while let Some(check) = checks.next().await {
            let (partition, replid, present) = check?;
            if present && self.replids.agrees(partition, &replid) {
                continue;
            }
            doubtful.insert(partition, replid);
        }
        drop(checks);
        if !doubtful.is_empty() {
            self.put_back(true, |partition| doubtful.contains_key(&partition)).await?;
            for partition in doubtful.keys() {
                self.take_out(*partition, &incarnation).await?;
            }
            self.replids.set(doubtful);
        }
        Ok(())
    }

    /// Registers everything live again, as far as it lies where `lost` says. Whoever still counts causes no change.
    async fn put_back(&self, data_lost: bool, lost: impl Fn(Partition) -> bool) -> Result<(), Fault> {
        let live = self.registry.live();
        let users = live.iter().filter(|one| lost(Partition::of_user(&one.user)));
        let users: Vec<_> = users.map(|one| self.register(&one.conn, &one.user, &one.username, usize::MAX)).collect();
        let mut users = stream::iter(users).buffer_unordered(CALLS);
        while let Some(done) = users.next().await {
            done.map_err(Fault::Backplane)?;
        }
        drop(users);
        let mut places: HashMap<Partition, Vec<Value>> = HashMap::new();
        for one in &live {
            for room in one.rooms.iter().filter(|room| lost(Partition::of_room(room))) {
                let who = [one.conn.as_str().into(), one.user.as_str().into(), one.username.as_str().into()];
                let place = [part(room.as_str()).into()].into_iter().chain(who);
                places.entry(Partition::of_room(room)).or_default().extend(place);
            }
        }
        let calls: Vec<_> = places
            .iter()
            .flat_map(|(partition, places)| places.chunks(4 * STEP).map(|step| (*partition, step)))
            .map(|(partition, step)| async move {
                let args = |inc: &str| {
                    [inc.into(), i64::from(data_lost).into()].into_iter().chain(step.iter().cloned()).collect()
                };
                self.write(&REJOIN, partition, args).await
            })
            .collect();
        let mut calls = stream::iter(calls).buffer_unordered(CALLS);
        while let Some(answer) = calls.next().await {
            self.count_changes(answer?.number()?);
        }
        drop(calls);
        self.undo_late(live).await
    }

    /// Takes out what Redis holds of this incarnation but this node doesn't: a promotion forgets departures too.
    async fn take_out(&self, partition: Partition, incarnation: &str) -> Result<(), Fault> {
        let what = if partition.holds_rooms() { "R" } else { "U" };
        let mut held = self.link.run(&HELD, partition, vec![incarnation.into(), what.into()]).await?;
        let mut stray: Vec<Value> = Vec::new();
        while !held.is_empty() {
            let (part, conn) = (held.text()?, ConnId::trusted(&held.text()?));
            // Entries here are made before Redis is asked: what isn't here is gone for good.
            let known = match name(&part) {
                Some(name) if partition.holds_rooms() => self.registry.is_in(&conn, &RoomId::trusted(&name)),
                _ => self.registry.is_live(&conn),
            };
            if !known {
                stray.extend([part.into(), conn.as_str().into()]);
            }
        }
        for step in stray.chunks(2 * STEP) {
            self.say_step(partition, step).await?;
        }
        Ok(())
    }

    /// Takes out again what went away while it was put back.
    async fn undo_late(&self, live: Vec<Connection>) -> Result<(), Fault> {
        for one in &live {
            if !self.registry.is_live(&one.conn) {
                self.say_lost(vec![one.clone()]).await?;
                continue;
            }
            for room in one.rooms.iter().filter(|room| !self.registry.is_in(&one.conn, room)) {
                let args = |inc: &str| vec![part(room.as_str()).into(), inc.into(), one.conn.as_str().into()];
                self.count_changes(self.write(&LEAVE, Partition::of_room(room), args).await?.number()?);
            }
        }
        Ok(())
    }

    /// Tells Redis that connections are lost; those it has learned of are forgotten here.
    pub(super) async fn say_lost(&self, lost: Vec<Connection>) -> Result<(), Fault> {
        let mut steps: HashMap<Partition, Vec<Value>> = HashMap::new();
        for one in &lost {
            let user = [part(one.user.as_str()).into(), one.conn.as_str().into()];
            steps.entry(Partition::of_user(&one.user)).or_default().extend(user);
            for room in &one.rooms {
                let place = [part(room.as_str()).into(), one.conn.as_str().into()];
                steps.entry(Partition::of_room(room)).or_default().extend(place);
            }
        }
        let calls: Vec<_> = steps
            .iter()
            .flat_map(|(partition, places)| places.chunks(2 * STEP).map(|step| (*partition, step)))
            .map(|(partition, step)| self.say_step(partition, step))
            .collect();
        let mut calls = stream::iter(calls).buffer_unordered(CALLS);
        let mut done = Ok(());
        while let Some(call) = calls.next().await {
            done = done.and(call);
        }
        drop(calls);
        done?;
        for one in &lost {
            self.registry.forget_lost(&one.conn);
        }
        Ok(())
    }

    /// One call of [`say_lost`](Self::say_lost): rooms or users, each with a connection.
    async fn say_step(&self, partition: Partition, step: &[Value]) -> Result<(), Fault> {
        let grace = self.limits.presence_grace;
        let script = if partition.holds_rooms() { &LOSE } else { &DISCONNECT };
        let args = |inc: &str| [inc.into(), millis(grace).into()].into_iter().chain(step.iter().cloned()).collect();
        if self.write(script, partition, args).await?.number()? > 0 {
            self.sweeps.note(partition, grace);
        }
        Ok(())
    }
}
