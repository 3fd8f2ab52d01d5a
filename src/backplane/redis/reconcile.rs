//! Makes Redis agree with this node's [registry](super::registry) again: publishes pending
//! disconnects, restores what Redis has lost, and removes what should no longer be there.

use std::collections::{HashMap, HashSet};

use fred::types::Value;
use futures_util::stream::{self, StreamExt};

use super::Node;
use super::fault::Fault;
use super::keys::{Partition, decode_name, encode_name};
use super::lease::{PendingRepair, RepairScope};
use super::link::millis;
use super::registry::{Connection, DesiredState, Forgotten};
use super::restore::RestoreRounds;
use super::script::{CHECK, DISCONNECT, HELD_ROOMS, HELD_USERS, LEAVE, LOSE, REJOIN};
use crate::domain::{ConnId, RoomId, UserId, Username};

/// Connections that one call restores or removes.
const CONNECTIONS_PER_CALL: usize = 50;
/// Concurrent calls of one kind.
const CONCURRENT_CALLS: usize = 32;
/// Disconnects that one round publishes.
const DISCONNECTS_PER_ROUND: usize = 1024;

/// The arguments of calls that handle many connections: for each partition the values of all items,
/// in the order in which the script takes them.
type Items = HashMap<Partition, Vec<Value>>;

/// Runs calls concurrently. Returns the partitions for which at least one call failed.
async fn failed_partitions<E>(
    calls: impl IntoIterator<Item = impl Future<Output = (Partition, Result<(), E>)>>,
) -> HashSet<Partition> {
    let mut results = stream::iter(calls).buffer_unordered(CONCURRENT_CALLS);
    let mut failed = HashSet::new();
    while let Some((partition, result)) = results.next().await {
        if result.is_err() {
            failed.insert(partition);
        }
    }
    failed
}

/// Splits items into those of each call: at most [`CONNECTIONS_PER_CALL`], each of `width` values.
fn split_into_calls(items: &Items, width: usize) -> Vec<(Partition, &[Value])> {
    let mut calls = Vec::new();
    for (partition, values) in items {
        for call in values.chunks(width * CONNECTIONS_PER_CALL) {
            calls.push((*partition, call));
        }
    }
    calls
}

impl Node {
    /// One round: publishes pending disconnects, flushes uncertain rooms and makes a pending repair.
    pub(super) async fn reconcile(&self) {
        if self.lease.incarnation().is_err() || !self.link.is_connected_to_leases() {
            return;
        }
        let pending = self.registry.pending_disconnects(DISCONNECTS_PER_ROUND);
        if !pending.is_empty() {
            self.publish_disconnects(pending).await;
        }
        self.flush_uncertain_rooms().await;
        if let Some(repair) = self.lease.take_repair() {
            let failed = self
                .restore(repair.data_lost, |partition| {
                    repair.scope.contains(partition)
                })
                .await;
            if !failed.is_empty() {
                tracing::debug!(
                    partitions = failed.len(),
                    "redis: some connections are not restored yet"
                );
                self.lease.request_repair(PendingRepair {
                    data_lost: repair.data_lost,
                    scope: RepairScope::Partitions(failed),
                });
            }
        }
    }

    /// Checks whether partitions that this node uses were restarted, promoted or flushed, and
    /// restores what they lack.
    pub(super) async fn check_partitions(&self) -> Result<(), Fault> {
        let incarnation = self.lease.incarnation()?;
        let (doubtful, mut result) = self.find_doubtful_partitions(&incarnation).await;
        if doubtful.is_empty() {
            return result;
        }
        let failed = self
            .restore(true, |partition| doubtful.contains_key(&partition))
            .await;
        for (partition, replid) in doubtful {
            if failed.contains(&partition) {
                continue;
            }
            match self.remove_strays(partition, &incarnation).await {
                Ok(()) => self.replication_ids.set_complete(partition, replid),
                Err(fault) => result = Err(fault),
            }
        }
        result
    }

    /// The partitions that may lack something of this node, with their replication ids. The result
    /// is the last error, if any: a server that is down must not hide the losses of another one.
    async fn find_doubtful_partitions(
        &self,
        incarnation: &str,
    ) -> (HashMap<Partition, String>, Result<(), Fault>) {
        let mut checks = Vec::new();
        for partition in Partition::all() {
            let is_used = self.registry.uses(partition);
            if is_used || self.replication_ids.has_written(partition) {
                checks.push(self.check_partition(partition, is_used, incarnation));
            }
        }
        let mut checks = stream::iter(checks).buffer_unordered(CONCURRENT_CALLS);
        let mut doubtful = HashMap::new();
        let mut result = Ok(());
        while let Some(check) = checks.next().await {
            match check {
                Ok((partition, Some(replid))) => {
                    self.replication_ids.set_incomplete(partition);
                    doubtful.insert(partition, replid);
                }
                Ok((_, None)) => {}
                Err(fault) => result = Err(fault),
            }
        }
        (doubtful, result)
    }

    /// Checks one partition; the replication id is given if the partition may lack something.
    /// `is_used`: whether anything in the registry lies in the partition.
    async fn check_partition(
        &self,
        partition: Partition,
        is_used: bool,
        incarnation: &str,
    ) -> Result<(Partition, Option<String>), Fault> {
        let args = vec![incarnation.into()];
        let mut reply = self.link.run(&CHECK, partition, args).await?;
        let replid = reply.text()?;
        let is_present = reply.number()? == 1;
        let is_complete =
            self.replication_ids.matches(partition, &replid) && (is_present || !is_used);
        Ok((partition, if is_complete { None } else { Some(replid) }))
    }

    /// Registers live connections and joins their rooms again, as far as they lie in partitions that
    /// `is_lost` accepts. A user that still counts causes no change. Returns the partitions for
    /// which that failed.
    async fn restore(
        &self,
        data_lost: bool,
        is_lost: impl Fn(Partition) -> bool,
    ) -> HashSet<Partition> {
        let live = self.registry.live();
        let users: Vec<_> = live
            .iter()
            .filter(|connection| is_lost(Partition::of_user(&connection.user)))
            .map(|connection| self.restore_user(connection))
            .collect();
        let mut failed = failed_partitions(users).await;
        let mut joins = Items::new();
        for connection in &live {
            for room in &connection.rooms {
                let partition = Partition::of_room(room);
                if is_lost(partition) {
                    let (user, username) = (&connection.user, &connection.username);
                    let join = rejoin_args(&connection.conn, room, user, username);
                    joins.entry(partition).or_default().extend(join);
                }
            }
        }
        let rooms: Vec<_> = split_into_calls(&joins, 4)
            .into_iter()
            .map(|(partition, joins)| async move {
                (partition, self.rejoin(partition, data_lost, joins).await)
            })
            .collect();
        failed.extend(failed_partitions(rooms).await);
        // Connections that were lost during the restoration are removed again, also after a failure,
        // because part of it may have succeeded.
        for connection in &live {
            self.registry.restored(connection);
        }
        failed
    }

    async fn restore_user(
        &self,
        connection: &Connection,
    ) -> (Partition, crate::backplane::Result<()>) {
        let Connection {
            conn,
            user,
            username,
            ..
        } = connection;
        let result = self.register(conn, user, username, usize::MAX).await;
        (Partition::of_user(user), result)
    }

    async fn rejoin(
        &self,
        partition: Partition,
        data_lost: bool,
        joins: &[Value],
    ) -> Result<(), Fault> {
        let args = |incarnation: &str| {
            let mut args = vec![
                incarnation.into(),
                i64::from(data_lost).into(),
                self.link.archive.name(),
            ];
            args.extend_from_slice(joins);
            args
        };
        let mut rounds = RestoreRounds::new();
        loop {
            let mut reply = self.write(&REJOIN, partition, args).await?;
            self.count_changes(reply.number()?);
            self.replication_ids.record(partition, &reply.text()?);
            let mut unrestored = Vec::new();
            for name in reply.texts()? {
                let name = decode_name(&name).ok_or(Fault::broken("a room's name is malformed"))?;
                unrestored.push(RoomId::trusted(&name));
            }
            if unrestored.is_empty() {
                return Ok(());
            }
            // A repeat of the call has no effect on the other rooms.
            self.restore_rooms(&unrestored, &mut rounds)
                .await
                .map_err(Fault::Backplane)?;
        }
    }

    /// Removes connections that Redis has under this incarnation but this node doesn't know: a
    /// promoted replica may have missed disconnects too.
    async fn remove_strays(&self, partition: Partition, incarnation: &str) -> Result<(), Fault> {
        let script = if partition.holds_rooms() {
            &HELD_ROOMS
        } else {
            &HELD_USERS
        };
        let args = vec![incarnation.into()];
        let mut held = self.link.run(script, partition, args).await?;
        let mut strays = Vec::new();
        let mut items = Vec::new();
        while !held.is_empty() {
            let (name, conn) = (held.text()?, ConnId::trusted(&held.text()?));
            let room = if partition.holds_rooms() {
                decode_name(&name).map(|name| RoomId::trusted(&name))
            } else {
                None
            };
            // The registry has a connection before Redis does: one that is missing here is gone for
            // good.
            if !self.is_registered(&conn, room.as_ref()) {
                items.extend([name.into(), conn.as_str().into()]);
                strays.push((conn, room));
            }
        }
        for call in items.chunks(2 * CONNECTIONS_PER_CALL) {
            self.publish_disconnect_call(partition, call).await?;
        }
        // Except for those that were registered (again) since the check above.
        for (conn, room) in strays {
            if self.is_registered(&conn, room.as_ref()) {
                self.repair_removed(partition, &conn, room.as_ref());
            }
        }
        Ok(())
    }

    fn is_registered(&self, conn: &ConnId, room: Option<&RoomId>) -> bool {
        match room {
            Some(room) => self.registry.is_in(conn, room),
            None => self.registry.is_live(conn),
        }
    }

    /// Requests that a connection is added again that was removed although it is live.
    fn repair_removed(&self, partition: Partition, conn: &ConnId, room: Option<&RoomId>) {
        match room {
            Some(room) => self.registry.mark_uncertain(conn, room),
            None => self.lease.request_repair(PendingRepair::of(partition)),
        }
    }

    /// Makes Redis agree with the registry about rooms for which the outcome of a call is unknown.
    async fn flush_uncertain_rooms(&self) {
        let calls: Vec<_> = self
            .registry
            .uncertain()
            .into_iter()
            .map(|(conn, room)| async move { self.flush_uncertain_room(&conn, &room).await })
            .collect();
        stream::iter(calls)
            .buffer_unordered(CONCURRENT_CALLS)
            .collect::<()>()
            .await;
    }

    async fn flush_uncertain_room(&self, conn: &ConnId, room: &RoomId) {
        let partition = Partition::of_room(room);
        let (result, is_in) = match self.registry.desired_state(conn, room) {
            DesiredState::Joined(user, username) => {
                let join = rejoin_args(conn, room, &user, &username);
                (self.rejoin(partition, false, &join).await, true)
            }
            DesiredState::Absent => (self.leave_in_redis(conn, room).await, false),
            // The join that is under way ends the uncertainty, or the loss that follows when it
            // fails.
            DesiredState::Joining => return,
        };
        if result.is_ok() {
            self.registry.mark_certain(conn, room, is_in);
        }
    }

    /// Removes the connection from the room in Redis, not in the registry.
    pub(super) async fn leave_in_redis(&self, conn: &ConnId, room: &RoomId) -> Result<(), Fault> {
        let name = encode_name(room.as_str());
        let args = |incarnation: &str| {
            vec![
                name.as_str().into(),
                incarnation.into(),
                conn.as_str().into(),
            ]
        };
        let mut reply = self.write(&LEAVE, Partition::of_room(room), args).await?;
        self.count_changes(reply.number()?);
        Ok(())
    }

    /// Tells Redis that connections are lost, and forgets those of which it knows then.
    pub(super) async fn publish_disconnects(&self, lost: Vec<Connection>) {
        let mut items = Items::new();
        for connection in &lost {
            let conn = connection.conn.as_str();
            let user = [encode_name(connection.user.as_str()).into(), conn.into()];
            items
                .entry(Partition::of_user(&connection.user))
                .or_default()
                .extend(user);
            for room in &connection.rooms {
                let room_item = [encode_name(room.as_str()).into(), conn.into()];
                items
                    .entry(Partition::of_room(room))
                    .or_default()
                    .extend(room_item);
            }
        }
        let calls: Vec<_> = split_into_calls(&items, 2)
            .into_iter()
            .map(|(partition, call)| async move {
                let result = self.publish_disconnect_call(partition, call).await;
                (partition, result)
            })
            .collect();
        let failed = failed_partitions(calls).await;
        for connection in &lost {
            let user = Partition::of_user(&connection.user);
            let rooms = connection.rooms.iter().map(Partition::of_room);
            if rooms
                .chain([user])
                .any(|partition| failed.contains(&partition))
            {
                self.registry.postpone(connection);
            } else if self.registry.forget_lost(connection) == Forgotten::Reconnected {
                self.lease.request_repair(PendingRepair::of(user));
            }
        }
    }

    /// One call of [`publish_disconnects`](Self::publish_disconnects): rooms or users, each with a
    /// connection.
    async fn publish_disconnect_call(
        &self,
        partition: Partition,
        items: &[Value],
    ) -> Result<(), Fault> {
        let grace = self.limits.presence_grace;
        let script = if partition.holds_rooms() {
            &LOSE
        } else {
            &DISCONNECT
        };
        let args = |incarnation: &str| {
            let mut args = vec![incarnation.into(), millis(grace).into()];
            args.extend_from_slice(items);
            args
        };
        let graces = self.write(script, partition, args).await?.number()?;
        if graces > 0 {
            self.sweeps.schedule(partition, grace);
        }
        Ok(())
    }
}

/// The arguments of `rejoin.lua` for one connection in one room.
fn rejoin_args(conn: &ConnId, room: &RoomId, user: &UserId, username: &Username) -> [Value; 4] {
    [
        encode_name(room.as_str()).into(),
        conn.as_str().into(),
        user.as_str().into(),
        username.as_str().into(),
    ]
}
