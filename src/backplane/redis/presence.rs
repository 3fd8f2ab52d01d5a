//! Presence in Redis: each call is one script on the room's or the user's partition.

use std::collections::HashSet;

use async_trait::async_trait;
use fred::types::Value;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Node;
use super::frame::change_kind;
use super::keys::{Partition, part};
use super::link::{Fault, Lane, millis};
use super::log::{PIPELINE, size, span};
use super::registry::Known;
use super::script::{CHANGES, CONDEMN, CONNECT, JOIN, LEAVE, MEMBERS, RECALL, STATUS, ScriptReply};
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
        let done = self
            .register(conn, user, username, self.limits.sockets_per_user)
            .await;
        match (&done, known) {
            (Ok(()), _) => self.registry.confirm(conn),
            // Only its name is in doubt.
            (Err(_), Known::Confirmed) => {}
            // It was refused, and never asked for before.
            (Err(error), Known::No) if !matches!(error, BackplaneError::Unavailable(_)) => {
                self.registry.forget(conn)
            }
            // This call or one before may have happened, and nobody will say that the connection is lost: so it is said
            // here.
            (Err(_), _) => drop(self.registry.lose(conn, user, &[])),
        }
        if done.is_ok() && !self.registry.is_live(conn) {
            // It was lost meanwhile, and what was said of that may have come before this.
            self.registry.lose(conn, user, &[]);
        } else if done.is_ok() && known == Known::Lost {
            // Redis may be told just now that it is lost, after it was told that it is here.
            self.lease
                .owe_partitions(false, HashSet::from([Partition::of_user(user)]));
        }
        done
    }

    async fn join(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        room: &RoomId,
    ) -> Result<Joined> {
        self.registry.enter(conn, username, room);
        let name = part(room.as_str());
        let mut answer = self
            .write(&JOIN, Partition::of_room(room), |inc| {
                let who = [
                    conn.as_str().into(),
                    user.as_str().into(),
                    username.as_str().into(),
                ];
                [name.as_str().into(), inc.into()]
                    .into_iter()
                    .chain(who)
                    .chain([size(Limits::ROSTER)])
                    .collect()
            })
            .await?;
        self.registry.confirm_room(conn, room);
        if !self.registry.is_in(conn, room) {
            // It was lost meanwhile, and what was said of that may have come before this.
            self.registry.unsettle(conn, room);
        }
        let span = span(&mut answer)?;
        self.count_changes(answer.number()?);
        self.replids.saw(Partition::of_room(room), &answer.text()?);
        Ok(Joined {
            span,
            roster: roster(answer)?,
        })
    }

    async fn leave(&self, conn: &ConnId, _user: &UserId, room: &RoomId) -> Result<()> {
        let name = part(room.as_str());
        let args = |inc: &str| vec![name.as_str().into(), inc.into(), conn.as_str().into()];
        let done = self.write(&LEAVE, Partition::of_room(room), args).await;
        // The caller takes the connection to be in the room still, and Redis may have it out of it.
        let mut answer = done.inspect_err(|_| self.registry.unsettle(conn, room))?;
        self.registry.leave(conn, room);
        self.count_changes(answer.number()?);
        Ok(())
    }

    async fn connection_lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) {
        let lost = self.registry.lose(conn, user, rooms);
        // Whatever isn't said now stays in the registry, and the node's tasks say it later.
        if self.lease.is_up() {
            self.say_lost(vec![lost]).await;
        }
    }

    async fn roster(&self, room: &RoomId, limit: usize) -> Result<Roster> {
        let args = vec![part(room.as_str()).into(), "R".into(), size(limit)];
        Ok(roster(
            self.link
                .run(&MEMBERS, Partition::of_room(room), args)
                .await?,
        )?)
    }

    async fn members(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage> {
        let after = after.map_or("", UserId::as_str);
        let args = vec![
            part(room.as_str()).into(),
            "P".into(),
            size(limit),
            after.into(),
        ];
        let mut answer = self
            .link
            .run(&MEMBERS, Partition::of_room(room), args)
            .await?;
        let total = answer.number()?;
        let mut members = Vec::new();
        while !answer.is_empty() {
            members.push((
                UserId::trusted(&answer.text()?),
                Username::trusted(&answer.text()?),
            ));
        }
        let more = members.len() > limit;
        members.truncate(limit);
        let next = members
            .last()
            .filter(|_| more)
            .map(|(user, _)| user.clone());
        Ok(OccupantPage {
            members,
            total,
            next,
        })
    }

    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        let partition = Partition::of_room(room);
        let key = format!("{}u:{}", partition.tag(), part(room.as_str()));
        let score = self
            .link
            .command(
                Lane::Presence,
                "ZSCORE",
                partition,
                vec![key.into(), user.as_str().into()],
            )
            .await?;
        Ok(!score.is_null())
    }

    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>> {
        let partition = Partition::of_user(user);
        let key = format!("{}c:{}", partition.tag(), part(user.as_str()));
        let names = self
            .link
            .command(Lane::Presence, "HKEYS", partition, vec![key.into()])
            .await?;
        let names = names
            .into_array()
            .into_iter()
            .filter_map(Value::into_string);
        Ok(names.map(|name| ConnId::trusted(&name)).collect())
    }

    async fn room_changes(&self, room: &RoomId, version: u64) -> Result<Changes<RoomChange>> {
        let name = part(room.as_str());
        Ok(self
            .changes(Partition::of_room(room), &name, 'm', version, room_change)
            .await?)
    }

    async fn status(&self, user: &UserId) -> Result<OnlineStatus> {
        let mut answer = self
            .link
            .run(
                &STATUS,
                Partition::of_user(user),
                vec![part(user.as_str()).into()],
            )
            .await?;
        let now = answer.number()?;
        let (online, version, previous) =
            (answer.text()? == "1", answer.number()?, answer.number()?);
        let (last_seen, username) = (answer.number()?, answer.text()?);
        if version == 0 {
            return Ok(OnlineStatus::never_seen(user.clone()));
        }
        let last_seen = Some(Timestamp(if online { now } else { last_seen }));
        Ok(OnlineStatus {
            user: user.clone(),
            username: Some(Username::trusted(&username)),
            online,
            last_seen,
            version,
            previous,
        })
    }

    async fn status_changes(&self, user: &UserId, version: u64) -> Result<Changes<OnlineStatus>> {
        let name = part(user.as_str());
        let changes = self.changes(
            Partition::of_user(user),
            &name,
            's',
            version,
            |version, mut fields| {
                let (online, last_seen) =
                    (fields.text()? == "1", Some(Timestamp(fields.number()?)));
                let (username, previous) =
                    (Some(Username::trusted(&fields.text()?)), fields.number()?);
                Ok((
                    previous,
                    OnlineStatus {
                        user: user.clone(),
                        username,
                        online,
                        last_seen,
                        version,
                        previous,
                    },
                ))
            },
        );
        Ok(changes.await?)
    }

    async fn restore_status(&self, seen: &OnlineStatus) -> Result<()> {
        let partition = Partition::of_user(&seen.user);
        let name = seen.username.as_ref().map_or("", Username::as_str);
        let last_seen = seen.last_seen.map_or(0, |at| at.0);
        // As long as a node may be silent that has the user, and is to put its connections back.
        let grace = self.settings.lease.max(self.limits.presence_grace);
        let args = vec![
            part(seen.user.as_str()).into(),
            i64::from(seen.online).into(),
            seen.version.to_string().into(),
            seen.previous.to_string().into(),
            last_seen.to_string().into(),
            name.into(),
            millis(grace).into(),
        ];
        if self.link.run(&RECALL, partition, args).await?.number()? > 0 {
            self.sweeps.note(partition, grace);
        }
        Ok(())
    }

    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>> {
        let keys: Vec<_> = topics
            .iter()
            .map(|topic| {
                let partition = Partition::of_topic(topic);
                let key = match topic {
                    BusTopic::Room(room) => format!("{}m:{}", partition.tag(), part(room.as_str())),
                    BusTopic::User(user) => format!("{}s:{}", partition.tag(), part(user.as_str())),
                    // Nothing is there.
                    BusTopic::Nodes => format!("{}-", partition.tag()),
                };
                (partition, key)
            })
            .collect();
        let versions = stream::iter(keys).map(|(partition, key)| async move {
            let version = self
                .link
                .command(
                    Lane::Presence,
                    "HGET",
                    partition,
                    vec![key.into(), "v".into()],
                )
                .await?;
            Ok(version.as_u64().unwrap_or(0))
        });
        versions
            .buffered(PIPELINE)
            .try_collect()
            .await
            .map_err(|fault: Fault| fault.into())
    }
}

impl Node {
    /// Registers a connection with Redis. When the user has too many, those of dead nodes are found out and left out.
    pub(super) async fn register(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        most: usize,
    ) -> Result<()> {
        let (name, partition) = (part(user.as_str()), Partition::of_user(user));
        let mut dead: Vec<String> = Vec::new();
        loop {
            let args = |inc: &str| {
                let who = [
                    name.as_str().into(),
                    inc.into(),
                    conn.as_str().into(),
                    username.as_str().into(),
                    size(most),
                ];
                who.into_iter()
                    .chain(dead.iter().map(|inc| inc.as_str().into()))
                    .collect()
            };
            let mut answer = self.write(&CONNECT, partition, args).await?;
            if answer.text()? == "OK" {
                self.count_changes(answer.number()?);
                self.replids.saw(partition, &answer.text()?);
                return Ok(());
            }
            let mut question: Vec<Value> = vec!["".into(), "WHO".into()];
            question.extend(answer.texts()?.into_iter().map(Value::from));
            let known = dead.len();
            dead.extend(
                self.link
                    .run(&CONDEMN, Partition::LEASES, question)
                    .await?
                    .texts()?,
            );
            dead.sort_unstable();
            dead.dedup();
            if dead.len() == known {
                return Err(BackplaneError::TooManyConnections);
            }
        }
    }

    /// Runs a script that writes as this node; when the node was given up for dead, it takes a new incarnation first.
    pub(super) async fn write(
        &self,
        script: &super::script::Script,
        partition: Partition,
        args: impl Fn(&str) -> Vec<Value> + Send,
    ) -> std::result::Result<ScriptReply, Fault> {
        for _ in 0..2 {
            let inc = self.lease.incarnation()?;
            match self.link.run(script, partition, args(&inc)).await {
                Err(Fault::Fenced) => self.renew(&inc).await?,
                done => return done,
            }
        }
        Err(Fault::Fenced)
    }

    /// The changes after `version`, if the stream reaches back to exactly there.
    async fn changes<T>(
        &self,
        partition: Partition,
        name: &str,
        hash: char,
        version: u64,
        read: impl Fn(u64, ScriptReply) -> std::result::Result<(u64, T), Fault>,
    ) -> std::result::Result<Changes<T>, Fault> {
        let args = vec![
            format!("p:{name}").into(),
            format!("{hash}:{name}").into(),
            version.to_string().into(),
        ];
        changes_since(
            self.link.run(&CHANGES, partition, args).await?,
            version,
            read,
        )
    }
}

/// What `changes.lua` answers: the changes after `version`, each read by `read` from its fields, with the one before.
pub(super) fn changes_since<T>(
    mut answer: ScriptReply,
    version: u64,
    read: impl Fn(u64, ScriptReply) -> std::result::Result<(u64, T), Fault>,
) -> std::result::Result<Changes<T>, Fault> {
    let last = answer.number()?;
    if last == version {
        return Ok(Changes::Since(Vec::new()));
    }
    let mut found = ScriptReply::new(answer.value()?);
    let (mut changes, mut reached) = (Vec::new(), version);
    while !found.is_empty() {
        let mut entry = ScriptReply::new(found.value()?);
        let id = entry.text()?;
        let number = id.split('-').next().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| Fault::nonsense("not a version"))?;
        // Names and values alternate, in the order in which the script wrote them.
        let values = entry
            .value()?
            .into_array()
            .into_iter()
            .skip(1)
            .step_by(2)
            .collect();
        let (previous, change) = read(number, ScriptReply::new(Value::Array(values)))?;
        if previous != reached {
            return Ok(Changes::TooOld);
        }
        reached = number;
        changes.push(change);
    }
    Ok(if reached == last {
        Changes::Since(changes)
    } else {
        Changes::TooOld
    })
}

/// A change of membership, from its fields and with the one before.
pub(super) fn room_change(
    version: u64,
    mut fields: ScriptReply,
) -> std::result::Result<(u64, RoomChange), Fault> {
    let kind =
        change_kind(&fields.text()?).ok_or_else(|| Fault::nonsense("not a kind of change"))?;
    let (user, username) = (
        UserId::trusted(&fields.text()?),
        Username::trusted(&fields.text()?),
    );
    let (total, previous) = (fields.number()?, fields.number()?);
    Ok((
        previous,
        RoomChange {
            version,
            previous,
            kind,
            user,
            username,
            total,
        },
    ))
}

pub(super) fn roster(mut answer: ScriptReply) -> std::result::Result<Roster, Fault> {
    let (total, version) = (answer.number()?, answer.number()?);
    let users = answer
        .texts()?
        .iter()
        .map(|user| UserId::trusted(user))
        .collect();
    Ok(Roster {
        users,
        total,
        version,
    })
}
