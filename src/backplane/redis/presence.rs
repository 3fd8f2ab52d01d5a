//! Presence in Redis: each call is one script or command on the partition of the room or the user.

use async_trait::async_trait;
use fred::types::Value;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Node;
use super::fault::Fault;
use super::frame::change_kind;
use super::keys::{Partition, encode_name};
use super::lease::PendingRepair;
use super::link::{ConnectionPool, millis};
use super::log::{CONCURRENT_READS, limit_arg, parse_span};
use super::registry::Known;
use super::restore::RestoreRounds;
use super::script::{
    CHANGES, CONNECT, EXPIRED_LEASES, JOIN, MEMBERS, RESTORE_STATUS, ROSTER, STATUS, Script,
    ScriptReply,
};
use crate::backplane::{
    BackplaneError, BusTopic, Changes, Joined, OccupantPage, Presence, Result, Roster,
};
use crate::domain::{
    ConnId, Limits, OnlineStatus, RoomChange, RoomId, Timestamp, UserId, Username,
};

#[async_trait]
impl Presence for Node {
    async fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Result<()> {
        let known = self.registry.connect(conn, user, username);
        let most = self.limits.sockets_per_user;
        match self.register(conn, user, username, most).await {
            Ok(()) => {
                self.on_registered(conn, user, known);
                Ok(())
            }
            Err(error) => {
                self.on_registration_failed(conn, user, known, &error);
                Err(error)
            }
        }
    }

    async fn join(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        room: &RoomId,
    ) -> Result<Joined> {
        self.registry.enter(conn, username, room);
        let partition = Partition::of_room(room);
        let name = encode_name(room.as_str());
        let args = |incarnation: &str| {
            vec![
                name.as_str().into(),
                incarnation.into(),
                conn.as_str().into(),
                user.as_str().into(),
                username.as_str().into(),
                limit_arg(Limits::ROSTER),
                self.link.archive.name(),
            ]
        };
        let mut rounds = RestoreRounds::new();
        let mut reply = loop {
            match self.write(&JOIN, partition, args).await {
                Err(Fault::Unrestored) => {
                    self.restore_rooms(std::slice::from_ref(room), &mut rounds)
                        .await?;
                }
                reply => break reply?,
            }
        };
        self.registry.confirm_room(conn, room);
        if !self.registry.is_in(conn, room) {
            // The connection was lost during the call, and Redis may have processed that first.
            self.registry.mark_uncertain(conn, room);
        }
        let span = parse_span(&mut reply, self.limits.history_size)?;
        self.count_changes(reply.number()?);
        self.replication_ids.record(partition, &reply.text()?);
        Ok(Joined {
            span,
            roster: parse_roster(reply)?,
        })
    }

    async fn leave(&self, conn: &ConnId, _user: &UserId, room: &RoomId) -> Result<()> {
        if let Err(fault) = self.leave_in_redis(conn, room).await {
            // For the caller the connection is still in the room, and in Redis it may not be.
            self.registry.mark_uncertain(conn, room);
            return Err(fault.into());
        }
        self.registry.leave(conn, room);
        Ok(())
    }

    async fn connection_lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) {
        let lost = self.registry.lose(conn, user, rooms);
        // While Redis is away the loss stays in the registry, and is published later.
        if self.lease.is_up() {
            self.publish_disconnects(vec![lost]).await;
        }
    }

    async fn roster(&self, room: &RoomId, limit: usize) -> Result<Roster> {
        let partition = Partition::of_room(room);
        let args = vec![encode_name(room.as_str()).into(), limit_arg(limit)];
        let reply = self.link.run(&ROSTER, partition, args).await?;
        Ok(parse_roster(reply)?)
    }

    async fn members(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage> {
        let args = vec![
            encode_name(room.as_str()).into(),
            limit_arg(limit),
            after.map_or("", UserId::as_str).into(),
        ];
        let partition = Partition::of_room(room);
        let mut reply = self.link.run(&MEMBERS, partition, args).await?;
        let total = reply.number()?;
        let mut members = Vec::new();
        while !reply.is_empty() {
            let user = UserId::trusted(&reply.text()?);
            members.push((user, Username::trusted(&reply.text()?)));
        }
        let has_more = members.len() > limit;
        members.truncate(limit);
        let next = match members.last() {
            Some((user, _)) if has_more => Some(user.clone()),
            _ => None,
        };
        Ok(OccupantPage {
            members,
            total,
            next,
        })
    }

    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        let args = vec![self.link.keys.members(room).into(), user.as_str().into()];
        let partition = Partition::of_room(room);
        let score = self
            .link
            .command(ConnectionPool::Presence, "ZSCORE", partition, args)
            .await?;
        Ok(!score.is_null())
    }

    async fn room_changes(&self, room: &RoomId, version: u64) -> Result<Changes<RoomChange>> {
        let args = vec![
            encode_name(room.as_str()).into(),
            "m:".into(),
            version.to_string().into(),
        ];
        let partition = Partition::of_room(room);
        let reply = self.link.run(&CHANGES, partition, args).await?;
        Ok(parse_changes(reply, version, parse_room_change)?)
    }

    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>> {
        let args = vec![self.link.keys.connections(user).into()];
        let partition = Partition::of_user(user);
        let names = self
            .link
            .command(ConnectionPool::Presence, "HKEYS", partition, args)
            .await?;
        let names = ScriptReply::new(names).texts()?;
        Ok(names.iter().map(|name| ConnId::trusted(name)).collect())
    }

    async fn status(&self, user: &UserId) -> Result<OnlineStatus> {
        let args = vec![encode_name(user.as_str()).into()];
        let partition = Partition::of_user(user);
        let mut reply = self.link.run(&STATUS, partition, args).await?;
        let now = reply.number()?;
        let online = reply.text()? == "1";
        let (version, previous) = (reply.number()?, reply.number()?);
        let last_change = reply.number()?;
        let username = Username::trusted(&reply.text()?);
        if version == 0 {
            return Ok(OnlineStatus::never_seen(user.clone()));
        }
        Ok(OnlineStatus {
            user: user.clone(),
            username: Some(username),
            online,
            last_seen: Some(Timestamp(if online { now } else { last_change })),
            version,
            previous,
        })
    }

    async fn status_changes(&self, user: &UserId, version: u64) -> Result<Changes<OnlineStatus>> {
        let args = vec![
            encode_name(user.as_str()).into(),
            "s:".into(),
            version.to_string().into(),
        ];
        let partition = Partition::of_user(user);
        let reply = self.link.run(&CHANGES, partition, args).await?;
        let parse = |version, fields| parse_status_change(user, version, fields);
        Ok(parse_changes(reply, version, parse)?)
    }

    async fn restore_status(&self, seen: &OnlineStatus) -> Result<()> {
        let partition = Partition::of_user(&seen.user);
        // As long as a node that has a connection of the user may be silent, until it registers the
        // connection again.
        let grace = self.settings.lease.max(self.limits.presence_grace);
        let args = vec![
            encode_name(seen.user.as_str()).into(),
            i64::from(seen.online).into(),
            seen.version.to_string().into(),
            seen.previous.to_string().into(),
            seen.last_seen.map_or(0, |at| at.0).to_string().into(),
            seen.username.as_ref().map_or("", Username::as_str).into(),
            millis(grace).into(),
        ];
        let mut reply = self.link.run(&RESTORE_STATUS, partition, args).await?;
        let is_restored = reply.number()? == 1;
        if is_restored {
            self.sweeps.schedule(partition, grace);
        }
        Ok(())
    }

    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>> {
        let versions: Vec<_> = topics.iter().map(|topic| self.version(topic)).collect();
        stream::iter(versions)
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await
            .map_err(|fault: Fault| fault.into())
    }
}

impl Node {
    fn on_registered(&self, conn: &ConnId, user: &UserId, known: Known) {
        self.registry.confirm(conn);
        if !self.registry.is_live(conn) {
            // The connection was lost during the call, and Redis may have processed that first: as a
            // new loss it is published again.
            self.registry.lose(conn, user, &[]);
        } else if known == Known::Lost {
            // A call that is still under way may tell Redis that the connection is lost, behind this
            // registration.
            let partition = Partition::of_user(user);
            self.lease.request_repair(PendingRepair::of(partition));
        }
    }

    fn on_registration_failed(
        &self,
        conn: &ConnId,
        user: &UserId,
        known: Known,
        error: &BackplaneError,
    ) {
        let is_refused = !matches!(error, BackplaneError::Unavailable(_));
        match known {
            // The connection stays registered; only its name is in doubt.
            Known::Confirmed => {}
            Known::No if is_refused => self.registry.forget(conn),
            // This call, or an earlier one, may have registered the connection, and the caller won't
            // report it as lost.
            Known::No | Known::Requested | Known::Lost => {
                self.registry.lose(conn, user, &[]);
            }
        }
    }

    /// Registers a connection with Redis. If the user has too many connections, finds out which of
    /// them are of dead nodes, and leaves those out of the count.
    pub(super) async fn register(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        most: usize,
    ) -> Result<()> {
        let partition = Partition::of_user(user);
        let name = encode_name(user.as_str());
        let mut dead: Vec<String> = Vec::new();
        loop {
            let args = |incarnation: &str| {
                let mut args = vec![
                    name.as_str().into(),
                    incarnation.into(),
                    conn.as_str().into(),
                    username.as_str().into(),
                    limit_arg(most),
                ];
                args.extend(dead.iter().map(|dead| Value::from(dead.as_str())));
                args
            };
            let mut reply = self.write(&CONNECT, partition, args).await?;
            if reply.text()? == "OK" {
                self.count_changes(reply.number()?);
                self.replication_ids.record(partition, &reply.text()?);
                return Ok(());
            }
            let holders = reply.texts()?;
            let known_dead = dead.len();
            dead.extend(self.expired_leases(holders).await?);
            dead.sort_unstable();
            dead.dedup();
            if dead.len() == known_dead {
                return Err(BackplaneError::TooManyConnections);
            }
        }
    }

    /// Those of the incarnations that have no lease any more.
    async fn expired_leases(
        &self,
        incarnations: Vec<String>,
    ) -> std::result::Result<Vec<String>, Fault> {
        let args = incarnations.into_iter().map(Value::from).collect();
        self.link
            .run(&EXPIRED_LEASES, Partition::LEASES, args)
            .await?
            .texts()
    }

    /// Runs a script that writes as this node's incarnation. If the incarnation was reaped, takes
    /// another one first.
    pub(super) async fn write(
        &self,
        script: &Script,
        partition: Partition,
        args: impl Fn(&str) -> Vec<Value> + Send,
    ) -> std::result::Result<ScriptReply, Fault> {
        for _ in 0..2 {
            let incarnation = self.lease.incarnation()?;
            let args = args(&incarnation);
            match self.link.run(script, partition, args).await {
                Err(Fault::Fenced) => self.renew_incarnation(&incarnation).await?,
                result => return result,
            }
        }
        Err(Fault::Fenced)
    }

    async fn version(&self, topic: &BusTopic) -> std::result::Result<u64, Fault> {
        let key = match topic {
            BusTopic::Room(room) => self.link.keys.numbering(room),
            BusTopic::User(user) => self.link.keys.status(user),
            BusTopic::Nodes => return Ok(0),
        };
        let args = vec![key.into(), "v".into()];
        let version = self
            .link
            .command(
                ConnectionPool::Presence,
                "HGET",
                Partition::of_topic(topic),
                args,
            )
            .await?;
        Ok(version.as_u64().unwrap_or(0))
    }
}

/// Parses the reply of `changes.lua`: the changes after `version`. `parse` makes a change from its
/// version and its fields, and returns the previous version with it.
pub(super) fn parse_changes<T>(
    mut reply: ScriptReply,
    version: u64,
    parse: impl Fn(u64, ScriptReply) -> std::result::Result<(u64, T), Fault>,
) -> std::result::Result<Changes<T>, Fault> {
    let newest = reply.number()?;
    if newest == version {
        return Ok(Changes::Since(Vec::new()));
    }
    let mut entries = ScriptReply::new(reply.value()?);
    let mut changes = Vec::new();
    let mut reached = version;
    while !entries.is_empty() {
        let mut entry = ScriptReply::new(entries.value()?);
        let id = entry.text()?;
        let version = id
            .split('-')
            .next()
            .and_then(|version| version.parse().ok())
            .ok_or_else(|| Fault::broken("the id of a change isn't a version"))?;
        // Names and values alternate, in the order in which the script wrote them.
        let fields = entry.value()?.into_array().into_iter();
        let values = fields.skip(1).step_by(2).collect();
        let (previous, change) = parse(version, ScriptReply::new(Value::Array(values)))?;
        if previous != reached {
            return Ok(Changes::TooOld);
        }
        reached = version;
        changes.push(change);
    }
    if reached == newest {
        Ok(Changes::Since(changes))
    } else {
        Ok(Changes::TooOld)
    }
}

/// Parses a membership change. Returns the previous version with it.
pub(super) fn parse_room_change(
    version: u64,
    mut fields: ScriptReply,
) -> std::result::Result<(u64, RoomChange), Fault> {
    let kind = change_kind(&fields.text()?)
        .ok_or_else(|| Fault::broken("a membership change is of an unknown kind"))?;
    let user = UserId::trusted(&fields.text()?);
    let username = Username::trusted(&fields.text()?);
    let (total, previous) = (fields.number()?, fields.number()?);
    let change = RoomChange {
        version,
        previous,
        kind,
        user,
        username,
        total,
    };
    Ok((previous, change))
}

/// Parses a status change of the user. Returns the previous version with it.
fn parse_status_change(
    user: &UserId,
    version: u64,
    mut fields: ScriptReply,
) -> std::result::Result<(u64, OnlineStatus), Fault> {
    let online = fields.text()? == "1";
    let last_seen = Timestamp(fields.number()?);
    let username = Username::trusted(&fields.text()?);
    let previous = fields.number()?;
    let status = OnlineStatus {
        user: user.clone(),
        username: Some(username),
        online,
        last_seen: Some(last_seen),
        version,
        previous,
    };
    Ok((previous, status))
}

/// Parses the number of members, the version and the ids at the end of a reply.
pub(super) fn parse_roster(mut reply: ScriptReply) -> std::result::Result<Roster, Fault> {
    let (total, version) = (reply.number()?, reply.number()?);
    let users = reply.texts()?;
    Ok(Roster {
        users: users.iter().map(|user| UserId::trusted(user)).collect(),
        total,
        version,
    })
}
