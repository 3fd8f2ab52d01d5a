//! Nobody is told that someone has gone who was hardly away.

use std::collections::{BTreeMap, HashMap};

use super::faults::{Faults, Kind};
use super::members::leavers;
use super::story::Story;
use crate::history::Fact;

/// So much later than the server a client may hear of its loss, in milliseconds.
const EARLY: u64 = 100;
/// So long after somebody was back others may still be told that they had gone.
const LATE: u64 = 5000;

/// Of a user: from when to when none of its clients was there, where that was for long.
type Absences<'a, K> = HashMap<K, Vec<(u64, u64)>>;

/// Whoever was told that somebody is offline, or went from a room, who wasn't away for long was told so wrongly.
pub(super) fn nobody_gone(story: &Story<'_>, grace: u64, faults: &mut Faults) {
    let long = grace.saturating_sub(EARLY);
    let (offline, outside, leavers) = (offline(story, long), outside(story, long), leavers(story));
    for client in &story.clients {
        for record in &client.records {
            let excuses = |(from, to): &(u64, u64)| (from + long..=to + LATE).contains(&record.at);
            let excused = |absences: Option<&Vec<(u64, u64)>>| {
                absences.is_some_and(|all| all.iter().any(excuses))
            };
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
                } if !excused(offline.get(target.as_str())) => {
                    faults.add(Kind::Noise, record.at, || {
                        format!("{} was told that {target} is offline", client.who)
                    });
                }
                Fact::Went { room, user }
                    if !leavers.contains(&(room.as_str(), user.as_str()))
                        && !excused(outside.get(&(room.as_str(), user.as_str()))) =>
                {
                    let text = || format!("{} was told that {user} went from {room}", client.who);
                    faults.add(Kind::RoomNoise, record.at, text);
                }
                _ => {}
            }
        }
    }
}

/// By user: when none of its clients was connected, after one had been.
fn offline<'a>(story: &Story<'a>, long: u64) -> Absences<'a, &'a str> {
    let mut steps: BTreeMap<&str, Vec<(u64, i32)>> = BTreeMap::new();
    for client in &story.clients {
        let Some(user) = client.user else { continue };
        let step = |fact: &Fact| match fact {
            Fact::Opened { .. } => Some(1),
            Fact::Closed => Some(-1),
            _ => None,
        };
        let found = client
            .records
            .iter()
            .filter_map(|record| Some((record.at, step(&record.fact)?)));
        steps.entry(user).or_default().extend(found);
    }
    absences(steps, long)
}

/// By room and user: when none of its clients was in the room, after one had been.
fn outside<'a>(story: &Story<'a>, long: u64) -> Absences<'a, (&'a str, &'a str)> {
    let mut steps: BTreeMap<(&str, &str), Vec<(u64, i32)>> = BTreeMap::new();
    for client in &story.clients {
        let Some(user) = client.user else { continue };
        let mut rooms: BTreeMap<&str, bool> = BTreeMap::new();
        for record in &client.records {
            let told: Vec<(&str, bool)> = match &record.fact {
                Fact::Joined { room, .. } => vec![(room, true)],
                Fact::Left { room } => vec![(room, false)],
                Fact::Closed => rooms.keys().map(|room| (*room, false)).collect(),
                _ => Vec::new(),
            };
            for (room, inside) in told {
                if rooms.insert(room, inside).unwrap_or(false) != inside {
                    steps
                        .entry((room, user))
                        .or_default()
                        .push((record.at, if inside { 1 } else { -1 }));
                }
            }
        }
    }
    absences(steps, long)
}

/// From comings (1) and goings (-1) with their times.
fn absences<'a, K: std::hash::Hash + Eq>(
    steps: BTreeMap<K, Vec<(u64, i32)>>,
    long: u64,
) -> Absences<'a, K> {
    let mut absences = HashMap::new();
    for (who, mut steps) in steps {
        // Within a millisecond, who comes comes first.
        steps.sort_unstable_by_key(|(at, step)| (*at, -step));
        let (mut there, mut gone_at, mut found) = (0, None, Vec::new());
        for (at, step) in steps.into_iter().chain([(u64::MAX - LATE, 1)]) {
            there += step;
            if there == 0 {
                gone_at = Some(at);
            } else if let Some(from) = gone_at.take().filter(|from| at - from >= long) {
                found.push((from, at));
            }
        }
        absences.insert(who, found);
    }
    absences
}
