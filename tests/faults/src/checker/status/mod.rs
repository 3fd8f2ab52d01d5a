//! Checks the status events: compares the watchers' events with the changes that the lab caused.

mod unaffected;

use std::collections::{BTreeMap, HashMap};

use self::unaffected::KnownVersions;
use super::faults::{FaultKind, Faults};
use super::parsed_history::{ClientHistory, ParsedHistory};
use super::stats::Stats;
use crate::history::{Fact, LAB, Record};

/// A state of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    online: bool,
    version: u64,
}

/// A change that a watcher was notified of.
#[derive(Clone, Copy)]
struct NotifiedChange {
    state: State,
    at: u64,
}

/// The knowledge of one watcher about one user.
#[derive(Default)]
struct Watch {
    /// The client watches the user on its present connection.
    is_active: bool,
    /// The newest state, whether it came as an answer, as an initial state or as a change.
    newest: Option<State>,
    /// The greatest version that came as a change.
    changed: Option<u64>,
    /// The version that the watcher knew when it became unaffected.
    baseline: Option<u64>,
    /// The changes since then.
    since_baseline: Vec<NotifiedChange>,
}

/// A version of a user's state that a client or the lab was notified of.
struct Notification<'a> {
    target: &'a str,
    version: u64,
    source: &'a str,
    at: u64,
}

/// The first notification of a version.
#[derive(Clone, Copy)]
struct Meaning<'a> {
    online: bool,
    source: &'a str,
}

pub(super) struct StatusCheck<'r, 'a> {
    history: &'r ParsedHistory<'a>,
    faults: &'r mut Faults,
    stats: &'r mut Stats,
    /// Unaffected watchers must be notified of every change separately, and of nothing else.
    exact: bool,
    data_loss: bool,
    /// By user and version.
    meanings: HashMap<(&'a str, u64), Meaning<'a>>,
    notifications: Vec<Notification<'a>>,
    /// By user.
    known_versions: HashMap<&'a str, KnownVersions>,
}

impl<'r, 'a> StatusCheck<'r, 'a> {
    pub fn new(
        history: &'r ParsedHistory<'a>,
        faults: &'r mut Faults,
        stats: &'r mut Stats,
        exact: bool,
        data_loss: bool,
    ) -> Self {
        Self {
            history,
            faults,
            stats,
            exact,
            data_loss,
            meanings: HashMap::new(),
            notifications: Vec::new(),
            known_versions: HashMap::new(),
        }
    }

    pub fn check(mut self) {
        let history = self.history;
        for (target, status) in &history.final_statuses {
            let state = State {
                online: status.online,
                version: status.version,
            };
            self.check_meaning(target, state, LAB, status.at);
            self.notifications.push(Notification {
                target,
                version: status.version,
                source: LAB,
                at: status.at,
            });
        }
        for client in &history.clients {
            for (target, watch) in self.read_client(client) {
                self.check_final_status(client, target, &watch);
                if self.exact {
                    self.check_unaffected(client, target, &watch);
                }
            }
        }
        self.check_versions();
    }

    fn read_client(&mut self, client: &ClientHistory<'a>) -> BTreeMap<&'a str, Watch> {
        let mut watches: BTreeMap<&str, Watch> = BTreeMap::new();
        // Taken when the client becomes unaffected.
        let mut upcoming_mark = if self.exact { client.unaffected } else { None };
        for record in &client.records {
            if upcoming_mark.take_if(|mark| record.at >= mark.at).is_some() {
                set_baselines(&mut watches);
            }
            match &record.fact {
                Fact::Watching {
                    target,
                    online,
                    version,
                } => {
                    let (online, version) = (*online, *version);
                    let watch = watches.entry(target).or_default();
                    watch.is_active = true;
                    self.add_notification(client.name, record, target, version);
                    self.check_state(
                        client.name,
                        record,
                        target,
                        State { online, version },
                        watch,
                    );
                }
                Fact::Status {
                    target,
                    online,
                    version,
                    initial,
                } => {
                    let state = State {
                        online: *online,
                        version: *version,
                    };
                    let watch = watches.entry(target).or_default();
                    if !watch.is_active {
                        self.faults.add(FaultKind::NotSubscribed, record.at, || {
                            format!(
                                "{} doesn't watch {target}, and was notified of a status",
                                client.name
                            )
                        });
                        continue;
                    }
                    self.add_notification(client.name, record, target, state.version);
                    if *initial {
                        self.check_state(client.name, record, target, state, watch);
                    } else {
                        self.check_change(client.name, record, target, state, watch);
                    }
                }
                Fact::Disconnected => {
                    self.check_disconnect(client, record);
                    for watch in watches.values_mut() {
                        watch.is_active = false;
                    }
                }
                _ => {}
            }
        }
        if upcoming_mark.is_some() {
            set_baselines(&mut watches);
        }
        watches
    }

    fn add_notification(
        &mut self,
        source: &'a str,
        record: &Record,
        target: &'a str,
        version: u64,
    ) {
        self.notifications.push(Notification {
            target,
            version,
            source,
            at: record.at,
        });
    }

    /// An unaffected client must stay connected.
    fn check_disconnect(&mut self, client: &ClientHistory<'a>, record: &Record) {
        let is_unaffected = client.unaffected.is_some_and(|mark| record.at >= mark.at);
        if self.exact && !client.ended && is_unaffected {
            self.faults.add(FaultKind::Malformed, record.at, || {
                format!(
                    "{} was unaffected, and yet its connection closed",
                    client.name
                )
            });
        }
    }

    /// A state that the watcher asked for must not be older than the one that it knew.
    fn check_state(
        &mut self,
        watcher: &'a str,
        record: &Record,
        target: &'a str,
        state: State,
        watch: &mut Watch,
    ) {
        self.check_meaning(target, state, watcher, record.at);
        if let Some(newest) = watch.newest
            && state.version < newest.version
            && !self.data_loss
        {
            self.faults.add(FaultKind::StaleStatus, record.at, || {
                format!(
                    "{watcher} was given version {} of {target} as its state, and knew version {}",
                    state.version, newest.version
                )
            });
            return;
        }
        watch.newest = Some(state);
    }

    /// A change must be newer than all states before it.
    fn check_change(
        &mut self,
        watcher: &'a str,
        record: &Record,
        target: &'a str,
        state: State,
        watch: &mut Watch,
    ) {
        self.stats.statuses += 1;
        self.check_meaning(target, state, watcher, record.at);
        let newest = watch.newest.map(|newest| newest.version);
        if let Some(known) = newest.max(watch.changed)
            && state.version <= known
        {
            self.faults.add(FaultKind::StaleStatus, record.at, || {
                format!(
                    "{watcher} was notified of version {} of {target} as a change, and knew \
                     version {known}",
                    state.version
                )
            });
            return;
        }
        watch.newest = Some(state);
        watch.changed = Some(state.version);
        if watch.baseline.is_some() {
            let at = record.at;
            watch.since_baseline.push(NotifiedChange { state, at });
        }
    }

    /// A version of a user must mean the same to every client: online or offline.
    fn check_meaning(&mut self, target: &'a str, state: State, source: &'a str, at: u64) {
        let State { online, version } = state;
        let first = *self
            .meanings
            .entry((target, version))
            .or_insert(Meaning { online, source });
        if first.online != online {
            self.faults.add(FaultKind::ConflictingStatus, at, || {
                format!(
                    "for {source}, {target} is {} in version {version}; for {}, it is {}",
                    word(online),
                    first.source,
                    word(first.online)
                )
            });
        }
    }

    /// At the end, a watcher must know the true status.
    fn check_final_status(&mut self, client: &ClientHistory<'a>, target: &str, watch: &Watch) {
        if client.ended {
            return;
        }
        let Some(status) = self.history.final_statuses.get(target) else {
            return;
        };
        let truth = State {
            online: status.online,
            version: status.version,
        };
        if watch.newest == Some(truth) {
            return;
        }
        self.faults.add(FaultKind::WrongFinalStatus, status.at, || {
            let known = watch.newest.map_or("nothing".to_owned(), State::describe);
            format!(
                "{} knows of {target}: {known}; the truth is: {}",
                client.name,
                truth.describe()
            )
        });
    }
}

/// The client becomes unaffected: remembers the versions that it knows.
fn set_baselines(watches: &mut BTreeMap<&str, Watch>) {
    for watch in watches.values_mut() {
        if watch.is_active {
            watch.baseline = watch.newest.map(|newest| newest.version);
        }
    }
}

impl State {
    fn describe(self) -> String {
        format!("version {}, {}", self.version, word(self.online))
    }
}

fn word(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}
