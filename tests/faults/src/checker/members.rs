//! Presence in rooms: who came and went, as each member was told it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::faults::{Faults, Kind};
use super::figures::Figures;
use super::story::{Client, Story};
use crate::history::{Fact, Record};

/// `room_users` names no more users than this.
const ROSTER: usize = 1000;

/// What one client knows of one room's users.
#[derive(Default)]
struct View<'a> {
    joined: bool,
    /// There was a `room_users` since the join.
    listed: bool,
    /// `None` while it isn't known who exactly is in.
    users: Option<BTreeSet<&'a str>>,
    /// Who was in when the client became calm.
    at_calm: Option<BTreeSet<&'a str>>,
    /// Since then: how often each user came and went, and when that was last.
    since: BTreeMap<&'a str, Moves>,
}

#[derive(Default)]
struct Moves {
    entered: usize,
    went: usize,
    last: u64,
}

pub(super) struct Memberships<'r, 'a> {
    pub story: &'r Story<'a>,
    pub faults: &'r mut Faults,
    pub figures: &'r mut Figures,
    /// Every coming and going is told once.
    pub exact: bool,
}

impl<'a> Memberships<'_, 'a> {
    pub fn judge(&mut self) {
        let leavers = leavers(self.story);
        for client in &self.story.clients {
            for (room, view) in self.read(client) {
                if view.joined && !client.ended {
                    self.in_the_end(client, room, &view);
                }
                if self.exact {
                    self.calm(client, room, &view, &leavers);
                }
            }
        }
    }

    fn read(&mut self, client: &Client<'a>) -> BTreeMap<&'a str, View<'a>> {
        let mut views: BTreeMap<&str, View<'a>> = BTreeMap::new();
        let mut calm = client.calm;
        for record in &client.records {
            if calm.take_if(|(at, _)| record.at >= *at).is_some() {
                views.values_mut().for_each(View::become_calm);
            }
            match &record.fact {
                Fact::Joined { room, .. } => {
                    let view = views.entry(room).or_default();
                    (view.joined, view.listed, view.users) = (true, false, None);
                }
                Fact::Left { room } => views.entry(room).or_default().joined = false,
                Fact::Closed => views.values_mut().for_each(|view| view.joined = false),
                Fact::Roster { room, users, total } => {
                    self.figures.rosters += 1;
                    self.listed(
                        client,
                        room,
                        record,
                        users,
                        *total,
                        views.entry(room).or_default(),
                    );
                }
                Fact::Entered { room, user } => {
                    self.figures.entered += 1;
                    self.moved(
                        client,
                        room,
                        record,
                        user,
                        true,
                        views.entry(room).or_default(),
                    );
                }
                Fact::Went { room, user } => {
                    self.figures.went += 1;
                    self.moved(
                        client,
                        room,
                        record,
                        user,
                        false,
                        views.entry(room).or_default(),
                    );
                }
                _ => {}
            }
        }
        if calm.is_some() {
            views.values_mut().for_each(View::become_calm);
        }
        views
    }

    fn listed(
        &mut self,
        client: &Client<'a>,
        room: &str,
        record: &Record,
        users: &'a [String],
        total: u64,
        view: &mut View<'a>,
    ) {
        let first = !std::mem::replace(&mut view.listed, true);
        let set: BTreeSet<&str> = users.iter().map(String::as_str).collect();
        let why = if !view.joined {
            Some("isn't in the room")
        } else if set.len() < users.len() {
            Some("got one user twice")
        } else if users.len() as u64 > total || (total > 0 && users.is_empty() && first) {
            Some("got another total than that of the users")
        } else if !users.is_empty() && (users.len() as u64) < total && users.len() < ROSTER {
            Some("got fewer users than there are")
        } else if first && client.user.is_some_and(|user| !set.contains(user)) {
            Some("isn't itself among the users")
        } else {
            None
        };
        if let Some(why) = why {
            let (who, count) = (client.who, users.len());
            self.faults.add(Kind::Roster, record.at, || {
                format!(
                    "{who} got a room_users of {room} with {count} users, total {total}, and {why}"
                )
            });
        }
        view.users = (users.len() as u64 == total).then_some(set);
    }

    /// Someone came, or went.
    fn moved(
        &mut self,
        client: &Client<'a>,
        room: &str,
        record: &Record,
        user: &'a str,
        came: bool,
        view: &mut View<'a>,
    ) {
        let who = client.who;
        if client.user == Some(user) {
            let text = || format!("{who} was told that its own user {user} came or went in {room}");
            self.faults.add(Kind::OwnUser, record.at, text);
            return;
        }
        if !view.joined || !view.listed {
            let text =
                || format!("{who} was told of {user} in {room}, without a room_users before");
            self.faults.add(Kind::Roster, record.at, text);
            return;
        }
        if view.at_calm.is_some() {
            let moves = view.since.entry(user).or_default();
            moves.entered += usize::from(came);
            moves.went += usize::from(!came);
            moves.last = record.at;
        }
        let Some(users) = &mut view.users else { return };
        let news = if came {
            users.insert(user)
        } else {
            users.remove(user)
        };
        if !news && self.exact {
            let (kind, what) = if came {
                (Kind::EnteredTwice, "came, who was in")
            } else {
                (Kind::WentAbsent, "went, who wasn't in")
            };
            self.faults.add(kind, record.at, || {
                format!("{who} was told that {user} {what}, in {room}")
            });
        }
    }

    fn in_the_end(&mut self, client: &Client<'a>, room: &str, view: &View<'a>) {
        let Some((at, members)) = self.story.members.get(room) else {
            return;
        };
        let members: BTreeSet<&str> = members.iter().map(String::as_str).collect();
        let Some(users) = &view.users else {
            if !view.listed {
                self.faults.add(Kind::Roster, *at, || {
                    format!("{} never got a room_users of {room}", client.who)
                });
            }
            return;
        };
        if *users != members {
            self.faults.add(Kind::FinalMembers, *at, || {
                let few = |users: Vec<&&str>| {
                    format!("{:?} ({})", &users[..users.len().min(10)], users.len())
                };
                let missing = few(members.difference(users).collect());
                let gone = few(users.difference(&members).collect());
                format!(
                    "{} doesn't know that in {room} are {missing}, and believes in {gone}",
                    client.who
                )
            });
        }
    }

    /// A calm member is told of no more than the lab did: a user comes or goes when it goes on- or offline, or leaves.
    fn calm(&mut self, client: &Client<'a>, room: &'a str, view: &View<'a>, leavers: &Leavers<'a>) {
        let (Some(before), Some((_, number))) = (&view.at_calm, client.calm) else {
            return;
        };
        let mut allowed: HashMap<&str, (usize, usize)> = HashMap::new();
        for (user, moves) in view
            .since
            .iter()
            .filter(|(user, _)| !leavers.contains(&(room, *user)))
        {
            let (entered, went) = allowed.entry(user).or_insert_with(|| {
                let changes = self.story.changes.get(user).map_or(&[][..], Vec::as_slice);
                let changes = || changes.iter().filter(|change| change.number > number);
                let online = changes().filter(|change| change.online).count();
                (
                    online.max(usize::from(!before.contains(user))),
                    changes().filter(|change| !change.online).count(),
                )
            });
            if moves.entered > *entered || moves.went > *went {
                self.faults.add(Kind::RoomNoise, moves.last, || {
                    format!(
                        "calm {} was told that {user} came {} times and went {} times in {room}; it may be {entered} and {went}",
                        client.who, moves.entered, moves.went
                    )
                });
            }
        }
    }
}

impl View<'_> {
    fn become_calm(&mut self) {
        if self.joined && self.listed {
            self.at_calm = self.users.clone();
        }
    }
}

/// By room, the users who left it of their own will at some time.
pub(super) type Leavers<'a> = HashSet<(&'a str, &'a str)>;

pub(super) fn leavers<'a>(story: &Story<'a>) -> Leavers<'a> {
    let mut leavers = Leavers::new();
    for client in &story.clients {
        let Some(user) = client.user else { continue };
        for record in &client.records {
            if let Fact::Left { room } = &record.fact {
                leavers.insert((room, user));
            }
        }
    }
    leavers
}
