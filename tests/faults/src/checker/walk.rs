//! One client's way through one room: each message is the one after the last, unless a loss was announced.

use super::names::Name;

/// Where a client stands: it has had everything up to `seq`, or was told that it won't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand {
    pub epoch: Name,
    pub seq: u64,
}

/// Why a stretch begins where it does, and so what becomes of what lies between it and the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The client asked for no more: nothing is owed.
    Fresh,
    /// It was told that messages are lost.
    Announced,
    /// Another epoch went on at the next number: nothing may lie between.
    Clean,
    /// A fault that was told already.
    Faulted,
}

/// Messages that followed each other without a hole: those of `epoch` after `after`, up to `until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub epoch: Name,
    pub after: u64,
    pub until: u64,
    pub entry: Entry,
}

/// What was wrong with a message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misstep {
    /// The client isn't in the room.
    Uninvited,
    /// It had it.
    Repeat,
    /// It lies before where the client stands.
    Disorder,
    /// Its epoch was left before.
    LeftEpoch,
    /// Messages after where the client stood were skipped.
    Hole,
}

/// What became of a message that came.
#[derive(Default)]
pub(super) struct Step {
    pub misstep: Option<Misstep>,
    /// The client had it, and asked for it again.
    pub shown_again: bool,
    /// The epoch of the message before, if it was another.
    pub from: Option<Name>,
}

/// What a join brings: it may show again what the client had, but stands after now.
#[derive(Clone, Copy)]
struct Replay {
    until: u64,
    entry: Entry,
}

#[derive(Default)]
pub(super) struct Walk {
    /// Kept over connections, and after leaving.
    pub at: Option<Stand>,
    /// What the epoch of `at` was called before the last resume.
    alias: Option<Name>,
    /// On the present connection.
    pub joined: bool,
    /// It was in the room, and left.
    pub left: bool,
    /// The `seq` up to which messages come before `room_users`; `None` when that has come.
    pub opening: Option<u64>,
    pub stretches: Vec<Stretch>,
    /// The stretch that begins at `at` with the next message.
    pending: Option<Entry>,
    replay: Option<Replay>,
    /// The epoch of the last message since the last join that wasn't a resume.
    spoken: Option<Name>,
    /// Epochs left since then.
    behind: Vec<Name>,
    /// The greatest number had of each epoch.
    tops: Vec<(Name, u64)>,
}

impl Walk {
    /// The client goes on from where it stood, and is sent all up to `until`; the epoch may have got a new name. It may
    /// stand amid a replay that broke off, and then it is shown the rest of that.
    pub fn resume(&mut self, epoch: Name, until: u64) {
        let Some(at) = &mut self.at else { return };
        let broken_off = self.replay.filter(|replay| at.seq < replay.until);
        self.replay = Some(Replay {
            until,
            entry: broken_off.map_or(Entry::Clean, |replay| replay.entry),
        });
        self.alias = Some(std::mem::replace(&mut at.epoch, epoch));
    }

    /// A join that wasn't a resume: the client begins at `after`, and is shown all up to `until`.
    pub fn begin(&mut self, entry: Entry, epoch: Name, after: u64, until: u64) {
        self.jump(entry, Stand { epoch, seq: after });
        self.replay = Some(Replay { until, entry });
        self.spoken = None;
        self.behind.clear();
    }

    /// The client stands elsewhere from now on.
    pub fn jump(&mut self, entry: Entry, to: Stand) {
        self.settle();
        self.pending = Some(entry);
        self.replay = None;
        self.alias = None;
        self.at = Some(to);
    }

    /// A stretch in which nothing came is one too.
    pub fn settle(&mut self) {
        if let (Some(entry), Some(at)) = (self.pending.take(), self.at) {
            self.stretches.push(Stretch {
                epoch: at.epoch,
                after: at.seq,
                until: at.seq,
                entry,
            });
        }
    }

    /// Whether a client may say that it stands there. After a resume, the epoch's former name is as good as the answer's.
    pub fn stands_at(&self, epoch: Name, seq: u64) -> bool {
        self.at
            .is_some_and(|at| at.seq == seq && (at.epoch == epoch || self.alias == Some(epoch)))
    }

    /// A message came.
    pub fn step(&mut self, epoch: Name, seq: u64) -> Step {
        let Some(at) = self.at.filter(|_| self.joined) else {
            return Step {
                misstep: Some(Misstep::Uninvited),
                ..Step::default()
            };
        };
        let replay = self.replay.filter(|replay| seq <= replay.until);
        let seen = self.top(epoch) >= seq;
        // A replay may show it again, but onwards only.
        let stale = seen && (replay.is_none() || seq <= at.seq);
        let misstep = if stale {
            Some(if self.has(epoch, seq) {
                Misstep::Repeat
            } else {
                Misstep::Disorder
            })
        } else if self.behind.contains(&epoch) {
            Some(Misstep::LeftEpoch)
        } else if seq > at.seq + 1 {
            Some(Misstep::Hole)
        } else if seq <= at.seq {
            Some(Misstep::Disorder)
        } else {
            None
        };
        let shown_again = seen && misstep.is_none() && self.has(epoch, seq);
        // What the client had, or can't place, moves it nowhere.
        if stale || misstep == Some(Misstep::LeftEpoch) {
            return Step {
                misstep,
                ..Step::default()
            };
        }
        let from = self.spoken.replace(epoch).filter(|spoken| *spoken != epoch);
        self.behind.extend(from);
        let entry = match misstep {
            Some(_) => Entry::Faulted,
            None => replay.map_or(Entry::Clean, |replay| replay.entry),
        };
        self.extend(epoch, seq, misstep.is_some(), entry);
        Step {
            misstep,
            shown_again,
            from: from.filter(|_| misstep.is_none()),
        }
    }

    fn extend(&mut self, epoch: Name, seq: u64, faulted: bool, entry: Entry) {
        if faulted {
            self.settle();
        }
        let pending = self.pending.take();
        match self.stretches.last_mut() {
            Some(last) if pending.is_none() && last.epoch == epoch && last.until + 1 == seq => {
                last.until = seq
            }
            _ => {
                let after = seq.saturating_sub(1);
                self.stretches.push(Stretch {
                    epoch,
                    after,
                    until: seq,
                    entry: pending.unwrap_or(entry),
                });
            }
        }
        self.alias = None;
        self.at = Some(Stand { epoch, seq });
        match self.tops.iter_mut().find(|(known, _)| *known == epoch) {
            Some((_, top)) => *top = seq.max(*top),
            None => self.tops.push((epoch, seq)),
        }
    }

    fn top(&self, epoch: Name) -> u64 {
        self.tops
            .iter()
            .find(|(known, _)| *known == epoch)
            .map_or(0, |(_, top)| *top)
    }

    /// Whether this message came.
    pub fn has(&self, epoch: Name, seq: u64) -> bool {
        self.stretches
            .iter()
            .any(|stretch| stretch.epoch == epoch && stretch.after < seq && seq <= stretch.until)
    }
}
