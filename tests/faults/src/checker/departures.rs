//! Checks that no client is notified of a user's departure (from a room, or offline) when the user
//! was away for less than its grace.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::faults::{FaultKind, Faults};
use super::parsed_history::{ClientHistory, ParsedHistory};
use super::room_users::voluntary_departures;
use crate::history::Fact;

/// A client may observe the loss of its connection up to this many milliseconds later than the
/// server.
const LATE_OBSERVATION_MS: u64 = 100;
/// Up to this many milliseconds after a user is back, other clients may still be notified of its
/// departure.
const LATE_NOTIFICATION_MS: u64 = 5000;

/// A time during which no client of a user was present, in milliseconds since the run began.
struct Absence {
    from: u64,
    to: u64,
}

/// By user, or by room and user: the absences that were long enough for a departure.
struct LongAbsences<K> {
    absences: HashMap<K, Vec<Absence>>,
    min_length: u64,
}

/// A client of a user came or went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Came,
    Went,
}

/// Reports every departure that a client was notified of although the user wasn't away for as long
/// as the grace.
pub(super) fn check(history: &ParsedHistory<'_>, grace: u64, faults: &mut Faults) {
    let min_length = grace.saturating_sub(LATE_OBSERVATION_MS);
    let offline = offline_absences(history, min_length);
    let outside = room_absences(history, min_length);
    let voluntary = voluntary_departures(history);
    for client in &history.clients {
        for record in &client.records {
            let at = record.at;
            match &record.fact {
                Fact::Status {
                    target,
                    online: false,
                    ..
                }
                | Fact::Watching {
                    target,
                    online: false,
                    ..
                } => {
                    let is_explained = offline.explain(&target.as_str(), at);
                    if !is_explained {
                        faults.add(FaultKind::UnexpectedStatusChange, at, || {
                            format!("{} was notified that {target} is offline", client.name)
                        });
                    }
                }
                Fact::UserLeft { room, user } => {
                    let departure = (room.as_str(), user.as_str());
                    if !voluntary.contains(&departure) && !outside.explain(&departure, at) {
                        faults.add(FaultKind::UnexpectedMembershipChange, at, || {
                            format!("{} was notified that {user} left {room}", client.name)
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

/// By user: the absences in which none of its clients was connected, after one had been.
fn offline_absences<'a>(history: &ParsedHistory<'a>, min_length: u64) -> LongAbsences<&'a str> {
    let mut steps: BTreeMap<&str, Vec<(u64, Step)>> = BTreeMap::new();
    for client in &history.clients {
        let Some(user) = client.user else { continue };
        let steps = steps.entry(user).or_default();
        for record in &client.records {
            match record.fact {
                Fact::Connected { .. } => steps.push((record.at, Step::Came)),
                Fact::Disconnected => steps.push((record.at, Step::Went)),
                _ => {}
            }
        }
    }
    LongAbsences::new(steps, min_length)
}

/// By room and user: the absences in which none of its clients was in the room, after one had been.
fn room_absences<'a>(
    history: &ParsedHistory<'a>,
    min_length: u64,
) -> LongAbsences<(&'a str, &'a str)> {
    let mut steps: BTreeMap<(&str, &str), Vec<(u64, Step)>> = BTreeMap::new();
    for client in &history.clients {
        let Some(user) = client.user else { continue };
        for (room, at, step) in room_steps(client) {
            steps.entry((room, user)).or_default().push((at, step));
        }
    }
    LongAbsences::new(steps, min_length)
}

/// The times at which one client entered rooms, and at which it was no longer in them.
fn room_steps<'a>(client: &ClientHistory<'a>) -> Vec<(&'a str, u64, Step)> {
    let mut steps = Vec::new();
    let mut is_in: BTreeMap<&str, bool> = BTreeMap::new();
    for record in &client.records {
        match &record.fact {
            Fact::Joined { room, .. } => {
                let was_in = is_in.insert(room, true).unwrap_or(false);
                if !was_in {
                    steps.push((room.as_str(), record.at, Step::Came));
                }
            }
            Fact::Left { room } => {
                let was_in = is_in.insert(room, false).unwrap_or(false);
                if was_in {
                    steps.push((room.as_str(), record.at, Step::Went));
                }
            }
            Fact::Disconnected => {
                for (room, is_in) in &mut is_in {
                    if std::mem::replace(is_in, false) {
                        steps.push((room, record.at, Step::Went));
                    }
                }
            }
            _ => {}
        }
    }
    steps
}

impl<K: Hash + Eq> LongAbsences<K> {
    fn new(steps_by_key: BTreeMap<K, Vec<(u64, Step)>>, min_length: u64) -> Self {
        let mut absences = HashMap::new();
        for (key, mut steps) in steps_by_key {
            // Within a millisecond, clients that come count before clients that go.
            steps.sort_unstable();
            // An absence that does not end lasts for ever.
            steps.push((u64::MAX - LATE_NOTIFICATION_MS, Step::Came));
            absences.insert(key, long_absences(&steps, min_length));
        }
        Self {
            absences,
            min_length,
        }
    }

    /// Whether an absence explains that a client was notified of a departure at this time.
    fn explain(&self, key: &K, at: u64) -> bool {
        let absences = self.absences.get(key);
        absences.into_iter().flatten().any(|absence| {
            let earliest = absence.from + self.min_length;
            let latest = absence.to + LATE_NOTIFICATION_MS;
            (earliest..=latest).contains(&at)
        })
    }
}

fn long_absences(steps: &[(u64, Step)], min_length: u64) -> Vec<Absence> {
    let mut found = Vec::new();
    let mut present = 0;
    let mut gone_since = None;
    for (at, step) in steps {
        match step {
            Step::Came => present += 1,
            Step::Went => present -= 1,
        }
        if present == 0 {
            gone_since = Some(*at);
        } else if let Some(from) = gone_since.take()
            && at - from >= min_length
        {
            found.push(Absence { from, to: *at });
        }
    }
    found
}
