//! Nothing is missing: what is in a room's numbering has come to every member, or its loss was announced.
//!
//! A room's places are in one order: by epoch, then by number. A client's stretches lie on that line; what is between two
//! of them was announced as lost, or not asked for, or is missing. What comes after the last is missing, unless the client
//! left.

use std::collections::{BTreeMap, BTreeSet};

use super::epochs::Ranks;
use super::faults::{Faults, Kind};
use super::figures::Figures;
use super::ledger::Ledger;
use super::names::{Name, Names};
use super::rooms::{Way, Ways};
use super::story::Story;
use super::walk::{Entry, Stretch};

/// A message on the line of its room.
struct Spot {
    rank: usize,
    seq: u64,
    epoch: Name,
    /// Somebody but its sender heard of the epoch.
    seen: bool,
    acked: Option<u64>,
    at: u64,
}

/// One room, when all is over.
struct Room<'s> {
    name: &'s str,
    /// In order.
    spots: Vec<Spot>,
    ranks: Ranks,
    head: Option<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    epoch: Name,
    seq: u64,
    at: u64,
    /// Something was said in this epoch.
    spoken: bool,
}

/// What a message is to who never got it. Who begins anew may pass over it twice: the first time counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    NotOwed,
    Announced,
    LostWithData,
    Missing,
}

pub(super) struct Judge<'r, 'a> {
    pub names: &'r mut Names<'a>,
    pub faults: &'r mut Faults,
    pub figures: &'r mut Figures,
    pub data_loss: bool,
    /// From when to when what was acknowledged may have been lost with data; none: that isn't known.
    pub losses: &'r [(u64, u64)],
}

impl<'a> Judge<'_, 'a> {
    /// Judges all rooms.
    pub fn judge(&mut self, story: &Story<'a>, ledger: &Ledger, mut ways: Ways) {
        let mut spots: BTreeMap<Name, Vec<Spot>> = BTreeMap::new();
        for (place, message) in &ledger.places {
            let spot = Spot {
                rank: 0,
                seq: place.seq,
                epoch: place.epoch,
                seen: false,
                acked: message.acked,
                at: message.at,
            };
            spots.entry(place.room).or_default().push(spot);
            ways.epochs
                .entry(place.room)
                .or_default()
                .hear(place.epoch, message.at);
        }
        let mut heads = BTreeMap::new();
        for (room, (at, epoch, seq)) in &story.heads {
            let (room, epoch) = (self.names.name(room), self.names.name(epoch));
            ways.epochs.entry(room).or_default().see(epoch, *at);
            heads.insert(
                room,
                Head {
                    epoch,
                    seq: *seq,
                    at: *at,
                    spoken: false,
                },
            );
        }
        self.figures.rooms = ways.epochs.len();
        for (name, epochs) in &ways.epochs {
            let text = self.names.text(*name);
            let ranks = epochs.rank(text, self.names, self.faults);
            let mut spots = spots.remove(name).unwrap_or_default();
            for spot in &mut spots {
                spot.seen = epochs.is_seen(spot.epoch);
                spot.rank = ranks.get(&spot.epoch).copied().unwrap_or_default();
            }
            spots.sort_by_key(|spot| (spot.rank, spot.seq));
            if let Some(head) = heads.get_mut(name) {
                head.spoken = spots.iter().any(|spot| spot.epoch == head.epoch);
            }
            let room = Room {
                name: text,
                spots,
                ranks,
                head: heads.get(name).copied(),
            };
            self.figures.epochs += epochs.len();
            self.acks(&room);
            for way in ways.rooms.get(name).into_iter().flatten() {
                self.way(&room, way);
            }
        }
    }

    /// What was acknowledged is in the log, and numbers go on over epochs.
    fn acks(&mut self, room: &Room<'_>) {
        for spot in &room.spots {
            let Some(at) = spot.acked else { continue };
            let (seq, name, epoch) = (spot.seq, room.name, self.names.text(spot.epoch));
            if !spot.seen && !self.data_loss {
                self.faults.add(Kind::FalseAck, at, || {
                    format!("{epoch}/{seq} in {name}, and nobody saw that epoch")
                });
                continue;
            }
            let Some(head) = room.head else { continue };
            if seq > head.seq && (head.epoch == spot.epoch || !self.data_loss) {
                let end = self.names.text(head.epoch);
                self.faults.add(Kind::FalseAck, at, || {
                    format!("{epoch}/{seq} in {name}, which ends at {end}/{}", head.seq)
                });
            }
        }
        if self.data_loss {
            return;
        }
        for pair in room.spots.windows(2) {
            let [one, next] = pair else { continue };
            if one.rank < next.rank && one.seq >= next.seq {
                let [old, new] =
                    [one, next].map(|spot| format!("{}/{}", self.names.text(spot.epoch), spot.seq));
                self.faults.add(Kind::Epochs, next.at, || {
                    format!("{} has {old}, and then {new}", room.name)
                });
            }
        }
    }

    fn way(&mut self, room: &Room<'_>, way: &Way) {
        let mut fates: BTreeMap<usize, Fate> = BTreeMap::new();
        for pair in way.walk.stretches.windows(2) {
            let [before, next] = pair else { continue };
            let from = room.after(before.epoch, before.until);
            let to = room.after(next.epoch, next.after);
            for index in from..to.max(from) {
                fates
                    .entry(index)
                    .or_insert_with(|| self.between(next, &room.spots[index]));
            }
        }
        let stands_right = way.over || self.stands_at_head(room, way);
        if let Some(last) = way
            .walk
            .stretches
            .last()
            .filter(|_| !way.over && stands_right)
        {
            for index in room.after(last.epoch, last.until)..room.spots.len() {
                fates
                    .entry(index)
                    .or_insert_with(|| self.beyond(room, &room.spots[index]));
            }
        }
        fates.retain(|index, _| {
            !way.walk
                .has(room.spots[*index].epoch, room.spots[*index].seq)
        });
        self.tell(room, way, &fates);
    }

    /// What a message is that lies between a stretch and the next one.
    fn between(&self, next: &Stretch, spot: &Spot) -> Fate {
        match next.entry {
            Entry::Fresh | Entry::Faulted => Fate::NotOwed,
            Entry::Announced => Fate::Announced,
            // Another one has its number, or a later one: the data had gone back to before it. Below that all is kept.
            Entry::Clean if self.data_loss && (spot.seq > next.after || !spot.seen) => {
                Fate::LostWithData
            }
            Entry::Clean => Fate::Missing,
        }
    }

    /// What a message is that lies after the last stretch of who is still there.
    fn beyond(&self, room: &Room<'_>, spot: &Spot) -> Fate {
        match room.head {
            // Told as a false ack, or by whoever got it.
            Some(head) if spot.seq > head.seq && head.epoch == spot.epoch => Fate::NotOwed,
            Some(head) if spot.seq > head.seq && self.data_loss => Fate::LostWithData,
            Some(_) if self.data_loss && !spot.seen => Fate::LostWithData,
            _ => Fate::Missing,
        }
    }

    /// Whether who is still there has come to the room's end.
    fn stands_at_head(&mut self, room: &Room<'_>, way: &Way) -> bool {
        let (Some(head), Some(at)) = (room.head, way.walk.at) else {
            return true;
        };
        if at.seq == head.seq && (at.epoch == head.epoch || !head.spoken) {
            return true;
        }
        let [who, end, epoch] = [way.who, head.epoch, at.epoch].map(|name| self.names.text(name));
        self.faults.add(Kind::Missing, head.at, || {
            let stands = format!(
                "{who} in {} stands at {epoch}/{}, and the room at {end}/{}",
                room.name, at.seq, head.seq
            );
            if at.seq < head.seq {
                format!("{stands}: {}..{} never came", at.seq + 1, head.seq)
            } else {
                stands
            }
        });
        false
    }

    fn tell(&mut self, room: &Room<'_>, way: &Way, fates: &BTreeMap<usize, Fate>) {
        let who = self.names.text(way.who);
        let acked = |fate: Fate| {
            fates
                .iter()
                .filter(|(index, found)| **found == fate && room.spots[**index].acked.is_some())
                .count() as u64
        };
        let announced = acked(Fate::Announced);
        let kept = |fate: Fate, at: u64| {
            let gone = matches!(fate, Fate::LostWithData | Fate::Announced);
            gone && self.data_loss
                && !self
                    .losses
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&at))
        };
        for (index, fate) in fates {
            let spot = &room.spots[*index];
            if let Some(at) = spot
                .acked
                .filter(|at| !self.losses.is_empty() && kept(*fate, *at))
            {
                let (name, epoch, seq) = (room.name, self.names.text(spot.epoch), spot.seq);
                self.faults.add(Kind::Missing, at, || {
                    format!("to {who} in {name}: {epoch}/{seq}, which had been saved")
                });
            }
        }
        if announced > 0 {
            *self
                .figures
                .announced_lost
                .entry(who.to_owned())
                .or_default() += announced;
        }
        self.figures.lost_with_data += acked(Fate::LostWithData);
        let missing: BTreeSet<usize> = fates
            .iter()
            .filter(|(_, fate)| **fate == Fate::Missing)
            .map(|(index, _)| *index)
            .collect();
        let Some(first) = missing.first() else { return };
        self.faults.add(Kind::Missing, room.spots[*first].at, || {
            let acked = missing
                .iter()
                .filter(|index| room.spots[**index].acked.is_some())
                .count();
            let count = missing.len();
            format!(
                "to {who} in {}: {} ({count}, {acked} acknowledged)",
                room.name,
                room.ranges(&missing, self.names)
            )
        });
    }
}

impl Room<'_> {
    /// The index of the first spot after this place.
    fn after(&self, epoch: Name, seq: u64) -> usize {
        let rank = self.ranks.get(&epoch).copied().unwrap_or_default();
        self.spots
            .partition_point(|spot| (spot.rank, spot.seq) <= (rank, seq))
    }

    /// Spots as text: `e1/4..7, e2/9`.
    fn ranges(&self, spots: &BTreeSet<usize>, names: &Names<'_>) -> String {
        let mut ranges: Vec<(Name, u64, u64)> = Vec::new();
        for spot in spots.iter().map(|index| &self.spots[*index]) {
            match ranges.last_mut() {
                Some((epoch, _, to)) if *epoch == spot.epoch && *to + 1 == spot.seq => {
                    *to = spot.seq
                }
                _ => ranges.push((spot.epoch, spot.seq, spot.seq)),
            }
        }
        let more = ranges.len().saturating_sub(10);
        let shown = ranges
            .iter()
            .take(10)
            .map(|(epoch, from, to)| format!("{}/{from}..{to}", names.text(*epoch)));
        let mut text = shown.collect::<Vec<_>>().join(", ");
        if more > 0 {
            text += &format!(" and {more} more ranges");
        }
        text
    }
}
