//! Presence by status: what watchers were told of their targets, against what the lab did.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::faults::{Faults, Kind};
use super::figures::Figures;
use super::story::{Client, Story};
use crate::history::{Fact, Record};

/// What one watcher was told of one target.
#[derive(Default)]
struct Watch {
    /// On the present connection.
    watching: bool,
    /// The newest state told, in whatever way.
    newest: Option<(u64, bool)>,
    /// The greatest version told as a change.
    changed: Option<u64>,
    /// The version known when it became calm.
    floor: Option<u64>,
    /// The changes told since then: version, online, when.
    since: Vec<(u64, bool, u64)>,
}

/// What calm watchers know of a target.
#[derive(Default)]
struct Heard {
    /// They were told of every change after this version.
    floor: u64,
    versions: HashSet<u64>,
}

/// A state that somebody was told, to be compared with what calm watchers heard.
struct Told<'a> {
    target: &'a str,
    version: u64,
    who: &'a str,
    at: u64,
}

pub(super) struct Statuses<'r, 'a> {
    pub story: &'r Story<'a>,
    pub faults: &'r mut Faults,
    pub figures: &'r mut Figures,
    /// Every change is owed singly to calm watchers, and nothing else may be told.
    pub exact: bool,
    pub data_loss: bool,
    /// What each version of a target means: online, and who was told so first.
    pub meanings: HashMap<(&'a str, u64), (bool, &'a str)>,
}

impl<'a> Statuses<'_, 'a> {
    pub fn judge(&mut self) {
        let story = self.story;
        let mut told: Vec<Told<'a>> = Vec::new();
        let mut heard: HashMap<&str, Heard> = HashMap::new();
        let states = story.states.iter().map(|(target, state)| (*target, *state));
        for (target, (at, online, version)) in states {
            self.mean(target, version, online, "lab", at);
            told.push(Told {
                target,
                version,
                who: "lab",
                at,
            });
        }
        for client in &story.clients {
            let watches = self.read(client, &mut told);
            for (target, watch) in &watches {
                self.in_the_end(client, target, watch);
                if self.exact {
                    self.calm(client, target, watch, &mut heard);
                }
            }
        }
        for told in told {
            let Some(heard) = heard.get(told.target) else {
                continue;
            };
            if told.version > heard.floor && !heard.versions.contains(&told.version) {
                self.faults.add(Kind::Invented, told.at, || {
                    format!(
                        "{} was told version {} of {}, and no calm watcher was",
                        told.who, told.version, told.target
                    )
                });
            }
        }
    }

    fn read(&mut self, client: &Client<'a>, told: &mut Vec<Told<'a>>) -> BTreeMap<&'a str, Watch> {
        let mut watches: BTreeMap<&str, Watch> = BTreeMap::new();
        let mut calm = client.calm.filter(|_| self.exact);
        for record in &client.records {
            if calm.take_if(|(at, _)| record.at >= *at).is_some() {
                let watched = watches.values_mut().filter(|watch| watch.watching);
                watched.for_each(|watch| watch.floor = watch.newest.map(|(version, _)| version));
            }
            match &record.fact {
                Fact::Watching {
                    target,
                    online,
                    version,
                } => {
                    let watch = watches.entry(target).or_default();
                    watch.watching = true;
                    self.state(client.who, record, target, *online, *version, watch);
                    told.push(Told {
                        target,
                        version: *version,
                        who: client.who,
                        at: record.at,
                    });
                }
                Fact::Status {
                    target,
                    online,
                    version,
                    initial,
                } => {
                    let watch = watches.entry(target).or_default();
                    if !watch.watching {
                        let text = || {
                            format!(
                                "{} was told of {target}, whom it isn't watching",
                                client.who
                            )
                        };
                        self.faults.add(Kind::Uninvited, record.at, text);
                        continue;
                    }
                    told.push(Told {
                        target,
                        version: *version,
                        who: client.who,
                        at: record.at,
                    });
                    if *initial {
                        self.state(client.who, record, target, *online, *version, watch);
                    } else {
                        self.change(client.who, record, target, *online, *version, watch);
                    }
                }
                Fact::Closed => {
                    if self.exact
                        && !client.ended
                        && client.calm.is_some_and(|(at, _)| record.at >= at)
                    {
                        let text =
                            || format!("{} was calm, and yet its connection closed", client.who);
                        self.faults.add(Kind::Malformed, record.at, text);
                    }
                    watches
                        .values_mut()
                        .for_each(|watch| watch.watching = false);
                }
                _ => {}
            }
        }
        if calm.is_some() {
            let watched = watches.values_mut().filter(|watch| watch.watching);
            watched.for_each(|watch| watch.floor = watch.newest.map(|(version, _)| version));
        }
        watches
    }

    /// A state was told because the watcher asked: it isn't older than what it knew.
    fn state(
        &mut self,
        who: &'a str,
        record: &Record,
        target: &'a str,
        online: bool,
        version: u64,
        watch: &mut Watch,
    ) {
        self.mean(target, version, online, who, record.at);
        let fallen = watch.newest.filter(|(newest, _)| version < *newest);
        if let Some((newest, _)) = fallen.filter(|_| !self.data_loss) {
            self.faults.add(Kind::StatusOrder, record.at, || {
                format!(
                    "{who} was told version {version} of {target} as its state, and knew {newest}"
                )
            });
        }
        if fallen.is_none() || self.data_loss {
            watch.newest = Some((version, online));
        }
    }

    /// A change was told: it is newer than all before.
    fn change(
        &mut self,
        who: &'a str,
        record: &Record,
        target: &'a str,
        online: bool,
        version: u64,
        watch: &mut Watch,
    ) {
        self.figures.statuses += 1;
        self.mean(target, version, online, who, record.at);
        let known = watch.newest.map(|(version, _)| version).max(watch.changed);
        if let Some(known) = known.filter(|known| version <= *known) {
            self.faults.add(Kind::StatusOrder, record.at, || {
                format!(
                    "{who} was told version {version} of {target} as a change, and knew {known}"
                )
            });
            return;
        }
        (watch.newest, watch.changed) = (Some((version, online)), Some(version));
        if watch.floor.is_some() {
            watch.since.push((version, online, record.at));
        }
    }

    /// A version means the same to everybody.
    fn mean(&mut self, target: &'a str, version: u64, online: bool, who: &'a str, at: u64) {
        let (known, first) = *self
            .meanings
            .entry((target, version))
            .or_insert((online, who));
        if known != online {
            self.faults.add(Kind::StatusMeaning, at, || {
                format!("{who} was told that {target} is online: {online} in version {version}; {first}: {known}")
            });
        }
    }

    /// What a watcher knows in the end is so.
    fn in_the_end(&mut self, client: &Client<'a>, target: &str, watch: &Watch) {
        let Some((at, online, version)) = self.story.states.get(target).filter(|_| !client.ended)
        else {
            return;
        };
        if watch.newest != Some((*version, *online)) {
            self.faults.add(Kind::FinalState, *at, || {
                let known = watch
                    .newest
                    .map_or("nothing".to_owned(), |(version, online)| {
                        tell(version, online)
                    });
                format!(
                    "{} knows of {target}: {known}; it is: {}",
                    client.who,
                    tell(*version, *online)
                )
            });
        }
    }

    /// A calm watcher was told of each change, and of nothing else.
    fn calm(
        &mut self,
        client: &Client<'a>,
        target: &'a str,
        watch: &Watch,
        heard: &mut HashMap<&'a str, Heard>,
    ) {
        let (Some(floor), Some((at, number))) = (watch.floor, client.calm) else {
            return;
        };
        let changes = self
            .story
            .changes
            .get(target)
            .map_or(&[][..], Vec::as_slice);
        let owed: Vec<bool> = changes
            .iter()
            .filter(|change| change.number > number)
            .map(|change| change.online)
            .collect();
        let seen: Vec<bool> = watch.since.iter().map(|(_, online, _)| *online).collect();
        self.figures.presence_expected += owed.len() as u64;
        self.figures.presence_seen += seen.len() as u64;
        let right = if client.ended {
            owed.starts_with(&seen)
        } else {
            owed == seen
        };
        if !right {
            let kind = if seen.len() > owed.len() {
                Kind::Noise
            } else {
                Kind::Missed
            };
            // From where it first differs.
            let same = owed
                .iter()
                .zip(&seen)
                .take_while(|(owed, seen)| owed == seen)
                .count();
            let at = watch
                .since
                .get(same)
                .or(watch.since.last())
                .map_or(at, |(_, _, at)| *at);
            self.faults.add(kind, at, || {
                let [owed_text, seen_text] = [&owed, &seen].map(|states| words(&states[same..]));
                let (owed, seen, who) = (owed.len(), seen.len(), client.who);
                format!(
                    "calm {who} was told of {seen} changes of {target}, and there were {owed}; after {same} that agree, \
                     told: {seen_text}; so it was: {owed_text}"
                )
            });
        }
        if !client.ended {
            let heard = heard.entry(target).or_insert_with(|| Heard {
                floor,
                ..Heard::default()
            });
            heard.floor = floor.min(heard.floor);
            heard
                .versions
                .extend(watch.since.iter().map(|(version, _, _)| *version));
        }
    }
}

fn tell(version: u64, online: bool) -> String {
    format!("version {version}, {}", word(online))
}

fn word(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

fn words(states: &[bool]) -> String {
    let more = states.len().saturating_sub(10);
    let mut text = states
        .iter()
        .take(10)
        .map(|online| word(*online))
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        text
    }
}
