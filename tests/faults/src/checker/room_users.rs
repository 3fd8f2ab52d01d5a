//! Checks presence in rooms: the joins and departures that each member was notified of, and its
//! lists of users.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::faults::{FaultKind, Faults};
use super::parsed_history::{ClientHistory, ParsedHistory};
use super::stats::Stats;
use crate::history::{Fact, Record};

/// A `room_users` names at most this many users.
const MAX_LISTED_USERS: usize = 1000;
/// At most this many users are named in the report of a fault.
const MAX_REPORTED_USERS: usize = 10;

/// One client's knowledge about the users of one room.
#[derive(Default)]
struct RoomView<'a> {
    joined: bool,
    /// A `room_users` came since the join.
    listed: bool,
    /// `None` while the exact set isn't known.
    users: Option<BTreeSet<&'a str>>,
    /// The users at the time at which the client became unaffected.
    users_at_baseline: Option<BTreeSet<&'a str>>,
    /// By user: the events since that time.
    since_baseline: BTreeMap<&'a str, Movements>,
}

#[derive(Default)]
struct Movements {
    joined: usize,
    left: usize,
    /// The time of the last event.
    last: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Movement {
    Joined,
    Left,
}

pub(super) struct RoomUsersCheck<'r, 'a> {
    pub history: &'r ParsedHistory<'a>,
    pub faults: &'r mut Faults,
    pub stats: &'r mut Stats,
    /// Members must be notified of every join and departure exactly once.
    pub exact: bool,
}

impl<'a> RoomUsersCheck<'_, 'a> {
    pub fn check(&mut self) {
        let voluntary = voluntary_departures(self.history);
        for client in &self.history.clients {
            for (room, view) in self.read_client(client) {
                if view.joined && !client.ended {
                    self.check_final_members(client, room, &view);
                }
                if self.exact {
                    self.check_unaffected(client, room, &view, &voluntary);
                }
            }
        }
    }

    fn read_client(&mut self, client: &ClientHistory<'a>) -> BTreeMap<&'a str, RoomView<'a>> {
        let mut views: BTreeMap<&str, RoomView<'a>> = BTreeMap::new();
        // Taken when the client becomes unaffected.
        let mut upcoming_mark = client.unaffected;
        for record in &client.records {
            if upcoming_mark.take_if(|mark| record.at >= mark.at).is_some() {
                views.values_mut().for_each(RoomView::set_baseline);
            }
            match &record.fact {
                Fact::Joined { room, .. } => {
                    let view = views.entry(room).or_default();
                    view.joined = true;
                    view.listed = false;
                    view.users = None;
                }
                Fact::Left { room } => views.entry(room).or_default().joined = false,
                Fact::Disconnected => {
                    for view in views.values_mut() {
                        view.joined = false;
                    }
                }
                Fact::RoomUsers { room, users, total } => {
                    self.stats.room_users += 1;
                    let view = views.entry(room).or_default();
                    self.check_list(client, room, record, users, *total, view);
                }
                Fact::UserJoined { room, user } => {
                    self.stats.user_joined += 1;
                    let view = views.entry(room).or_default();
                    self.check_movement(client, room, record, user, Movement::Joined, view);
                }
                Fact::UserLeft { room, user } => {
                    self.stats.user_left += 1;
                    let view = views.entry(room).or_default();
                    self.check_movement(client, room, record, user, Movement::Left, view);
                }
                _ => {}
            }
        }
        if upcoming_mark.is_some() {
            views.values_mut().for_each(RoomView::set_baseline);
        }
        views
    }

    fn check_list(
        &mut self,
        client: &ClientHistory<'a>,
        room: &str,
        record: &Record,
        users: &'a [String],
        total: u64,
        view: &mut RoomView<'a>,
    ) {
        let is_first = !view.listed;
        view.listed = true;
        let set: BTreeSet<&str> = users.iter().map(String::as_str).collect();
        let count = users.len() as u64;
        let error = if !view.joined {
            Some("the client isn't in the room")
        } else if set.len() < users.len() {
            Some("a user is listed twice")
        } else if count > total || (total > 0 && count == 0 && is_first) {
            Some("the total doesn't fit the list")
        } else if count > 0 && count < total && users.len() < MAX_LISTED_USERS {
            Some("the list is incomplete")
        } else if is_first && client.user.is_some_and(|user| !set.contains(user)) {
            Some("the client's own user isn't listed")
        } else {
            None
        };
        if let Some(error) = error {
            self.faults.add(FaultKind::WrongRoomUsers, record.at, || {
                format!(
                    "{} received a room_users of {room} with {count} users and a total of {total}: \
                     {error}",
                    client.name
                )
            });
        }
        view.users = if count == total { Some(set) } else { None };
    }

    /// Checks a `user_joined` or a `user_left`.
    fn check_movement(
        &mut self,
        client: &ClientHistory<'a>,
        room: &str,
        record: &Record,
        user: &'a str,
        movement: Movement,
        view: &mut RoomView<'a>,
    ) {
        let name = client.name;
        let has_joined = movement == Movement::Joined;
        if client.user == Some(user) {
            self.faults.add(FaultKind::OwnUser, record.at, || {
                let event = movement.event();
                format!("{name} received {event} of its own user {user} in {room}")
            });
            return;
        }
        if !view.joined || !view.listed {
            self.faults.add(FaultKind::WrongRoomUsers, record.at, || {
                let event = movement.event();
                format!("{name} received {event} of {user} in {room}, without a room_users before")
            });
            return;
        }
        if view.users_at_baseline.is_some() {
            let movements = view.since_baseline.entry(user).or_default();
            match movement {
                Movement::Joined => movements.joined += 1,
                Movement::Left => movements.left += 1,
            }
            movements.last = record.at;
        }
        let Some(users) = &mut view.users else { return };
        let changed = if has_joined {
            users.insert(user)
        } else {
            users.remove(user)
        };
        if changed || !self.exact {
            return;
        }
        match movement {
            Movement::Joined => self.faults.add(FaultKind::JoinedTwice, record.at, || {
                format!(
                    "{name} received user_joined of {user} in {room}: the user was in it already"
                )
            }),
            Movement::Left => self.faults.add(FaultKind::LeftWhileAbsent, record.at, || {
                format!("{name} received user_left of {user} in {room}: the user wasn't in it")
            }),
        }
    }

    /// At the end, a member must know the true set of users.
    fn check_final_members(&mut self, client: &ClientHistory<'a>, room: &str, view: &RoomView<'a>) {
        let Some(members) = self.history.final_members.get(room) else {
            return;
        };
        let at = members.at;
        let Some(users) = &view.users else {
            if !view.listed {
                self.faults.add(FaultKind::WrongRoomUsers, at, || {
                    format!("{} never received a room_users of {room}", client.name)
                });
            }
            return;
        };
        let members: BTreeSet<&str> = members.users.iter().map(String::as_str).collect();
        if *users != members {
            self.faults.add(FaultKind::WrongFinalMembers, at, || {
                format!(
                    "{} doesn't know that these users are in {room}: {}; and wrongly believes \
                     that these are: {}",
                    client.name,
                    list(members.difference(users).collect()),
                    list(users.difference(&members).collect())
                )
            });
        }
    }

    /// An unaffected member must not be notified of more than the lab caused: a user joins or
    /// leaves only when the lab takes it online or offline, or when it leaves by its own decision.
    fn check_unaffected(
        &mut self,
        client: &ClientHistory<'a>,
        room: &'a str,
        view: &RoomView<'a>,
        voluntary: &VoluntaryDepartures<'a>,
    ) {
        let (Some(users), Some(mark)) = (&view.users_at_baseline, client.unaffected) else {
            return;
        };
        for (user, movements) in &view.since_baseline {
            if voluntary.contains(&(room, *user)) {
                continue;
            }
            let changes = self.history.presence_changes.get(user);
            let changes: Vec<bool> = changes
                .into_iter()
                .flatten()
                .filter(|change| change.lab_index > mark.lab_index)
                .map(|change| change.online)
                .collect();
            let went_online = changes.iter().filter(|online| **online).count();
            let may_leave = changes.len() - went_online;
            // A user that wasn't in the room may join it once, without a change by the lab.
            let may_join = went_online.max(usize::from(!users.contains(user)));
            if movements.joined > may_join || movements.left > may_leave {
                self.faults.add(
                    FaultKind::UnexpectedMembershipChange,
                    movements.last,
                    || {
                        format!(
                            "unaffected {} was notified that {user} joined {room} {} times and \
                             left it {} times; \
                             at most {may_join} and {may_leave} are possible",
                            client.name, movements.joined, movements.left
                        )
                    },
                );
            }
        }
    }
}

impl Movement {
    fn event(self) -> &'static str {
        match self {
            Self::Joined => "user_joined",
            Self::Left => "user_left",
        }
    }
}

impl RoomView<'_> {
    /// The client becomes unaffected: remembers the users that it knows.
    fn set_baseline(&mut self) {
        if self.joined && self.listed {
            self.users_at_baseline = self.users.clone();
        }
    }
}

/// A few of these users, and their number.
fn list(users: Vec<&&str>) -> String {
    let listed = &users[..users.len().min(MAX_REPORTED_USERS)];
    format!("{listed:?} ({})", users.len())
}

/// Pairs of a room and a user that left it by its own decision at some time.
pub(super) type VoluntaryDepartures<'a> = HashSet<(&'a str, &'a str)>;

pub(super) fn voluntary_departures<'a>(history: &ParsedHistory<'a>) -> VoluntaryDepartures<'a> {
    let mut departures = VoluntaryDepartures::new();
    for client in &history.clients {
        let Some(user) = client.user else { continue };
        for record in &client.records {
            if let Fact::Left { room } = &record.fact {
                departures.insert((room, user));
            }
        }
    }
    departures
}
