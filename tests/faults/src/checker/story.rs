//! A history sorted out: what each client told, what the lab told, and what of it makes no sense at all.

use std::collections::{BTreeMap, HashMap};

use super::faults::{Faults, Kind};
use crate::history::{Fact, Record};

/// Who writes what only the lab can know.
const LAB: &str = "lab";
/// So long after data was lost the last acks from before are written down, in milliseconds.
const LATE: u64 = 1000;

/// The history, by who told it.
#[derive(Default)]
pub(super) struct Story<'a> {
    pub clients: Vec<Client<'a>>,
    /// By target, the changes that the lab caused, in order.
    pub changes: HashMap<&'a str, Vec<Change>>,
    pub heads: BTreeMap<&'a str, (u64, &'a str, u64)>,
    pub members: BTreeMap<&'a str, (u64, &'a [String])>,
    pub states: BTreeMap<&'a str, (u64, bool, u64)>,
    pub data_lost: bool,
    /// From when to when what was acknowledged may have been lost with data.
    pub losses: Vec<(u64, u64)>,
    calm: BTreeMap<&'a str, (u64, usize)>,
}

/// What one client told.
pub(super) struct Client<'a> {
    pub who: &'a str,
    /// `None` for who only sends over REST.
    pub user: Option<&'a str>,
    pub records: Vec<&'a Record>,
    /// Since when the client is calm: the time, and the number of the lab's record that says so.
    pub calm: Option<(u64, usize)>,
    /// It ended by its own will before all was over.
    pub ended: bool,
}

/// The truth about a user changed.
pub(super) struct Change {
    pub online: bool,
    /// The number of the lab's record that says so.
    pub number: usize,
}

/// A client while its records are sorted out.
struct Sifted<'a> {
    client: Client<'a>,
    open: bool,
}

impl<'a> Story<'a> {
    /// Sorts a history out. Records that make no sense become faults and are left out.
    pub fn of(history: &'a [Record], faults: &mut Faults) -> Self {
        let mut story = Self::default();
        story.read_lab(history, faults);
        let over = over(history);
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut clients: Vec<Sifted<'a>> = Vec::new();
        for (number, record) in history
            .iter()
            .enumerate()
            .filter(|(_, record)| !is_labs(&record.fact))
        {
            let place = *places.entry(&record.who).or_insert_with(|| {
                clients.push(Sifted::new(&record.who));
                clients.len() - 1
            });
            clients[place].take(
                record,
                over.is_some_and(|over| (record.at, number) > over),
                faults,
            );
        }
        for (who, since) in std::mem::take(&mut story.calm) {
            match places.get(who) {
                Some(place) => clients[*place].client.calm = Some(since),
                None => faults.add(Kind::Malformed, since.0, || {
                    format!("{who} is calm, and never told anything")
                }),
            }
        }
        story.clients = clients
            .into_iter()
            .map(|sifted| sifted.end(faults))
            .collect();
        story
    }

    fn read_lab(&mut self, history: &'a [Record], faults: &mut Faults) {
        let mut saved = 0;
        for (number, record) in history
            .iter()
            .filter(|record| is_labs(&record.fact))
            .enumerate()
        {
            if record.who != LAB {
                faults.add(Kind::Malformed, record.at, || {
                    format!("{} wrote {:?}", record.who, record.fact)
                });
                continue;
            }
            match &record.fact {
                Fact::Saved => saved = record.at,
                Fact::DataLost => {
                    self.data_lost = true;
                    self.losses.push((saved, record.at + LATE));
                    saved = 0;
                }
                Fact::Change { target, online } => {
                    self.changes.entry(target).or_default().push(Change {
                        online: *online,
                        number,
                    });
                }
                Fact::Calm { client } => {
                    self.calm.entry(client).or_insert((record.at, number));
                }
                Fact::Head { room, epoch, seq } => {
                    self.heads.insert(room, (record.at, epoch, *seq));
                }
                Fact::Members { room, users } => {
                    self.members.insert(room, (record.at, users));
                }
                Fact::State {
                    target,
                    online,
                    version,
                } => {
                    self.states.insert(target, (record.at, *online, *version));
                }
                _ => {}
            }
        }
    }
}

impl<'a> Sifted<'a> {
    fn new(who: &'a str) -> Self {
        let client = Client {
            who,
            user: None,
            records: Vec::new(),
            calm: None,
            ended: false,
        };
        Self {
            client,
            open: false,
        }
    }

    /// What clients close, leave and end when all is over is clearing up, and excuses nothing.
    fn take(&mut self, record: &'a Record, over: bool, faults: &mut Faults) {
        let clearing_up = matches!(record.fact, Fact::Closed | Fact::Ended | Fact::Left { .. });
        if over && clearing_up {
            return;
        }
        if let Some(why) = self.nonsense(record) {
            let who = self.client.who;
            let came = matches!(record.fact, Fact::Got { .. } | Fact::Reset { .. });
            let kind = if self.client.ended && came {
                Kind::Uninvited
            } else {
                Kind::Malformed
            };
            faults.add(kind, record.at, || {
                format!("{who} {why}: {:?}", record.fact)
            });
            return;
        }
        match &record.fact {
            Fact::Opened { user } => {
                self.open = true;
                self.client.user = Some(user);
            }
            Fact::Closed => self.open = false,
            Fact::Ended => self.client.ended = true,
            _ => {}
        }
        self.client.records.push(record);
    }

    fn nonsense(&self, record: &Record) -> Option<&'static str> {
        match &record.fact {
            Fact::Closed if !self.open => Some("closed what wasn't open"),
            Fact::Closed => None,
            _ if self.client.ended => Some("had ended, and went on"),
            Fact::Opened { .. } if self.open => Some("opened twice"),
            Fact::Opened { user } if self.client.user.is_some_and(|known| known != user) => {
                Some("came as another user")
            }
            Fact::Opened { .. }
            | Fact::Ended
            | Fact::Sent { .. }
            | Fact::Acked { .. }
            | Fact::Refused { .. } => None,
            _ if !self.open => Some("wasn't connected"),
            _ => None,
        }
    }

    fn end(self, faults: &mut Faults) -> Client<'a> {
        if self.client.user.is_some() && !self.open && !self.client.ended {
            let (who, at) = (
                self.client.who,
                self.client.records.last().map_or(0, |record| record.at),
            );
            faults.add(Kind::Malformed, at, || {
                format!("{who} closed, never came back, and hasn't ended")
            });
        }
        self.client
    }
}

fn is_labs(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Step { .. }
            | Fact::DataLost
            | Fact::Saved
            | Fact::Change { .. }
            | Fact::Calm { .. }
            | Fact::Head { .. }
            | Fact::Members { .. }
            | Fact::State { .. }
    )
}

/// When all was over: the first record that says how things are in the end.
fn over(history: &[Record]) -> Option<(u64, usize)> {
    let mut last = history.iter().enumerate();
    let found = last.find(|(_, record)| {
        matches!(
            record.fact,
            Fact::Head { .. } | Fact::Members { .. } | Fact::State { .. }
        ) && record.who == LAB
    });
    found.map(|(number, record)| (record.at, number))
}
