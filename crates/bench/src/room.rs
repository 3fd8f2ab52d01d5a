//! A room under load: the next message to say, and whether what each member hears of it has no hole, no repeat, and one
//! order.

use std::collections::{HashSet, VecDeque};
use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

/// Messages of a room that are remembered while someone has not heard them: what is said after so many more is checked by
/// numbers alone, so that a message that was lost doesn't hold the memory of all behind it.
const REMEMBERED: usize = 65_536;

/// How a mark begins.
const SIGN: &[u8] = b"~hb";
/// Digits of the sender's place, of its count, and of the time.
const DIGITS: [usize; 3] = [6, 10, 15];
/// Bytes of a mark: no message may be shorter.
pub(super) const MARK_BYTES: usize = SIGN.len() + DIGITS[0] + DIGITS[1] + DIGITS[2];

/// What stands at the beginning of each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The sender's place among those of the room who take turns.
    pub(super) sender: usize,
    /// Its how many-th message it is, from 1.
    pub(super) count: u64,
    /// When it was to be sent, in microseconds of the generator's clock.
    pub(super) sent_us: u64,
}

impl Mark {
    /// The mark in a packet, and what stands before it.
    fn find(packet: &[u8]) -> Option<(Self, &[u8])> {
        static FOUND_BY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(SIGN));
        let at = FOUND_BY.find(packet)?;
        let mut rest = packet.get(at + SIGN.len()..)?;
        let mut numbers = [0; 3];
        for (number, digits) in numbers.iter_mut().zip(DIGITS) {
            let text;
            (text, rest) = rest.split_at_checked(digits)?;
            *number = digits_of(text)?;
        }
        let [sender, count, sent_us] = numbers;
        Some((
            Self {
                sender: usize::try_from(sender).ok()?,
                count,
                sent_us,
            },
            &packet[..at],
        ))
    }
}

/// The number that digits say.
pub(super) fn digits_of(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

fn put_digits(mut number: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

/// The number behind `"seq":`.
fn seq_of(head: &[u8]) -> Option<u64> {
    static FOUND_BY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"seq\":"));
    leading_number(&head[FOUND_BY.find(head)? + FOUND_BY.needle().len()..])
}

/// The number in a packet that follows on what is looked for.
pub(super) fn number_behind(name: &Finder<'_>, packet: &[u8]) -> Option<usize> {
    let at = name.find(packet)? + name.needle().len();
    usize::try_from(leading_number(&packet[at..])?).ok()
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let len = text
        .iter()
        .take_while(|digit| digit.is_ascii_digit())
        .count();
    if len == 0 {
        None
    } else {
        digits_of(&text[..len])
    }
}

/// What went wrong. All zeros: the server kept its promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Findings {
    /// Messages that someone did not get, though the one behind them came, or the run ended.
    pub(super) holes: u64,
    /// Messages that someone got twice.
    pub(super) repeats: u64,
    /// Messages that came after a later one.
    pub(super) disorder: u64,
    /// Messages that were not the same under one number for everyone.
    pub(super) two_orders: u64,
    /// Messages without a mark or a number.
    pub(super) unreadable: u64,
    /// Refusals of messages.
    pub(super) refused: u64,
    /// Connections that were closed while they should have been open.
    pub(super) closed: u64,
    /// Joins after a storm that did not go on without a gap.
    pub(super) gaps: u64,
}

impl Findings {
    /// Whether nothing went wrong.
    pub(super) fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// A message that not everyone has heard yet.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    /// Its mark's; 0, which no message has, before the first has heard it.
    count: u64,
    sender: usize,
    /// Members who have it.
    heard_by: usize,
}

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: String,
    /// Its clients, by their place in the room.
    pub(super) members: Vec<usize>,
    /// How many of them take turns at speaking.
    senders: usize,
    turn: usize,
    /// Messages said.
    pub(super) sent: u64,
    /// Messages heard, by all members together.
    pub(super) delivered: u64,
    /// The frame of a message, made once; only the digits of its mark change.
    frame: Vec<u8>,
    digits_at: usize,
    counts: Vec<u64>,
    /// Where the server's numbering stood before the first message, if it numbers them.
    first: Option<u64>,
    /// Messages that everyone has heard.
    done: u64,
    /// What is on its way, by its place: the server's number, or without numbers the turn in which it was said.
    on_the_way: VecDeque<Said>,
    /// Places before the first of them.
    passed: u64,
    /// With numbers: the last message of each sender that everyone has heard. Without: the last that a member heard of one.
    heard: Vec<u64>,
    /// What came too late, or not yet, by member: empty as long as all is well.
    missing: HashSet<(usize, usize, u64)>,
}

impl Room {
    /// A room whose members say messages of `bytes` bytes, at least [`MARK_BYTES`].
    pub(super) fn new(name: String, members: Vec<usize>, senders: usize, bytes: usize) -> Self {
        let filler = "x".repeat(bytes.saturating_sub(MARK_BYTES));
        let digits = "0".repeat(MARK_BYTES - SIGN.len());
        let packet = format!(
            "42[\"message\",{{\"room_id\":\"{name}\",\"content\":\"~hb{digits}{filler}\"}}]"
        );
        let mut frame = Vec::new();
        super::frame::encode(super::frame::TEXT, packet.as_bytes(), &mut frame);
        let digits_at = memmem::find(&frame, SIGN).map_or(0, |at| at + SIGN.len());
        let senders = senders.clamp(1, members.len().max(1));
        Self {
            name,
            members,
            senders,
            turn: 0,
            sent: 0,
            delivered: 0,
            frame,
            digits_at,
            counts: vec![0; senders],
            first: None,
            done: 0,
            on_the_way: VecDeque::new(),
            passed: 0,
            heard: Vec::new(),
            missing: HashSet::new(),
        }
    }

    /// A member has joined; the server's numbering stands at `seq`, if it has one.
    pub(super) fn joined(&mut self, seq: Option<u64>) {
        if self.heard.is_empty() {
            self.first = seq;
            let listeners = if seq.is_some() { 1 } else { self.members.len() };
            self.heard = vec![0; self.senders * listeners];
        }
    }

    /// Whether the server numbers this room's messages.
    pub(super) fn is_numbered(&self) -> bool {
        self.first.is_some()
    }

    /// The next message: who says it, and its frame.
    pub(super) fn next(&mut self, sent_us: u64) -> (usize, &[u8]) {
        let sender = self.turn;
        self.turn = (self.turn + 1) % self.senders;
        self.sent += 1;
        self.counts[sender] += 1;
        let mut at = self.digits_at;
        for (number, digits) in [sender as u64, self.counts[sender], sent_us]
            .into_iter()
            .zip(DIGITS)
        {
            put_digits(number, &mut self.frame[at..at + digits]);
            at += digits;
        }
        (self.members[sender], &self.frame)
    }

    /// Messages that every member has heard.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Whether everyone has heard everything.
    pub(super) fn is_quiet(&self) -> bool {
        self.delivered >= self.sent * self.members.len() as u64
    }

    /// Member `place`, whose last number was `last`, hears a packet. Returns when it was to be sent, unless it counts for
    /// nothing.
    pub(super) fn heard(
        &mut self,
        place: usize,
        last: &mut u64,
        packet: &[u8],
        found: &mut Findings,
    ) -> Option<u64> {
        let Some((mark, head)) =
            Mark::find(packet).filter(|(mark, _)| mark.sender < self.senders && mark.count > 0)
        else {
            found.unreadable += 1;
            return None;
        };
        let (at, stream, number, before) = if let Some(first) = self.first {
            let Some(seq) = seq_of(head) else {
                found.unreadable += 1;
                return None;
            };
            (seq.checked_sub(first + 1), 0, seq, last)
        } else {
            let turn = (mark.count - 1)
                .checked_mul(self.senders as u64)?
                .checked_add(mark.sender as u64);
            (
                turn,
                mark.sender,
                mark.count,
                self.heard.get_mut(place * self.senders + mark.sender)?,
            )
        };
        let is_new = if number == *before + 1 {
            *before = number;
            true
        } else if number > *before {
            found.holes += number - *before - 1;
            self.missing.extend(
                (*before + 1..number)
                    .take(1000)
                    .map(|missing| (place, stream, missing)),
            );
            *before = number;
            true
        } else if self.missing.remove(&(place, stream, number)) {
            found.holes -= 1;
            found.disorder += 1;
            true
        } else {
            found.repeats += 1;
            false
        };
        if let Some(at) = at {
            self.arrived(at, mark, is_new, found);
        }
        if !is_new {
            return None;
        }
        self.delivered += 1;
        Some(mark.sent_us)
    }

    /// A member has the message at this place, from 0: the first who hears it says which it is, the others must agree.
    fn arrived(&mut self, at: u64, mark: Mark, is_new: bool, found: &mut Findings) {
        // Who hears what was passed is late or hears it again, which its number tells. Numbers that jump far are not followed.
        let Some(ahead) = at.checked_sub(self.passed) else {
            return;
        };
        let Some(index) = usize::try_from(ahead)
            .ok()
            .filter(|index| *index < 2 * REMEMBERED)
        else {
            return;
        };
        if index >= self.on_the_way.len() {
            self.on_the_way.resize(index + 1, Said::default());
        }
        let said = &mut self.on_the_way[index];
        if said.count == 0 {
            (said.sender, said.count) = (mark.sender, mark.count);
        } else if (said.sender, said.count) != (mark.sender, mark.count) {
            found.two_orders += 1;
        }
        if is_new {
            said.heard_by += 1;
            self.done += u64::from(said.heard_by == self.members.len());
        }
        self.pass(found);
    }

    /// Forgets the first of what is on its way, as far as everyone has it.
    fn pass(&mut self, found: &mut Findings) {
        while let Some(said) = self.on_the_way.front() {
            let is_whole = said.heard_by >= self.members.len();
            if !is_whole && self.on_the_way.len() <= REMEMBERED {
                break;
            }
            if self.first.is_some() && said.count > 0 {
                // A sender's own messages keep their order, and none takes two places.
                let last = &mut self.heard[said.sender];
                found.two_orders += u64::from(said.count <= *last);
                *last = said.count.max(*last);
            }
            self.on_the_way.pop_front();
            self.passed += 1;
        }
    }

    /// Counts what was said and not heard by everyone.
    pub(super) fn close(&self, found: &mut Findings) {
        let missing = (self.sent * self.members.len() as u64).saturating_sub(self.delivered);
        // Holes in the middle are missing at the end too.
        found.holes += missing.saturating_sub(self.missing.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A room of two with a message said by each in turn, as a server that numbers them would send it.
    fn said(room: &mut Room, seq: u64) -> Vec<u8> {
        let (_, frame) = room.next(seq * 10);
        let content = String::from_utf8(frame[room_start(frame)..].to_vec()).unwrap();
        format!(
            "42[\"message\",{{\"seq\":{seq},\"epoch\":\"e\",{}",
            &content[1..]
        )
        .into_bytes()
    }

    fn room_start(frame: &[u8]) -> usize {
        memmem::find(frame, b"{\"room_id\"").unwrap()
    }

    fn room(seq: Option<u64>) -> Room {
        let mut room = Room::new("r".into(), vec![7, 8], 2, 100);
        room.joined(seq);
        room
    }

    #[test]
    fn a_message_is_as_long_as_asked_and_carries_its_mark() {
        let mut room = room(Some(0));
        let packet = said(&mut room, 1);
        let content = memmem::find(&packet, SIGN).unwrap();
        assert_eq!(memmem::find(&packet[content..], b"\"").unwrap(), 100);
        assert_eq!(
            Mark::find(&packet).unwrap().0,
            Mark {
                sender: 0,
                count: 1,
                sent_us: 10
            }
        );
        let (client, _) = room.next(0);
        assert_eq!(client, 8, "members take turns");
    }

    #[test]
    fn what_goes_well_is_found_clean() {
        let (mut room, mut found, mut last) = (room(Some(5)), Findings::default(), [5, 5]);
        for seq in 6..20 {
            let packet = said(&mut room, seq);
            for (place, last) in last.iter_mut().enumerate() {
                assert_eq!(room.heard(place, last, &packet, &mut found), Some(seq * 10));
            }
        }
        room.close(&mut found);
        assert!(found.is_clean(), "{found:?}");
        assert_eq!(room.done(), 14);
    }

    #[test]
    fn a_message_is_done_when_every_member_has_it_and_is_then_forgotten() {
        for seq in [Some(0), None] {
            let (mut room, mut found, mut last) = (room(seq), Findings::default(), [0, 0]);
            let packets: Vec<_> = (1..=4).map(|seq| said(&mut room, seq)).collect();
            for packet in &packets {
                room.heard(0, &mut last[0], packet, &mut found);
            }
            assert_eq!(
                (room.done(), room.is_quiet(), room.on_the_way.len()),
                (0, false, 4),
                "one of two has all"
            );
            room.heard(1, &mut last[1], &packets[0], &mut found);
            assert_eq!((room.done(), room.on_the_way.len()), (1, 3));
            for packet in &packets[1..] {
                room.heard(1, &mut last[1], packet, &mut found);
            }
            assert_eq!(
                (room.done(), room.is_quiet(), room.on_the_way.len()),
                (4, true, 0)
            );
            assert!(found.is_clean(), "{found:?}");
        }
    }

    #[test]
    fn a_lost_message_holds_the_memory_of_few() {
        let (mut room, mut found, mut last) = (room(Some(0)), Findings::default(), [0, 0]);
        for seq in 1..=(REMEMBERED as u64 + 100) {
            let packet = said(&mut room, seq);
            room.heard(0, &mut last[0], &packet, &mut found);
            if seq != 5 {
                room.heard(1, &mut last[1], &packet, &mut found);
            }
        }
        assert!(
            room.on_the_way.len() <= REMEMBERED,
            "{}",
            room.on_the_way.len()
        );
        assert_eq!(room.done(), room.sent - 1);
        assert_eq!(
            found,
            Findings {
                holes: 1,
                ..Findings::default()
            }
        );
    }

    #[test]
    fn a_sender_whose_messages_change_places_is_found() {
        let (mut room, mut found, mut last) = (room(Some(0)), Findings::default(), [0, 0]);
        let packets: Vec<_> = [3, 2, 1]
            .map(|seq| said(&mut room, seq))
            .into_iter()
            .rev()
            .collect();
        for packet in &packets {
            for (place, last) in last.iter_mut().enumerate() {
                room.heard(place, last, packet, &mut found);
            }
        }
        assert_eq!(
            found,
            Findings {
                two_orders: 1,
                ..Findings::default()
            },
            "its second message came first"
        );
    }

    #[test]
    fn holes_repeats_and_disorder_are_told_apart() {
        let (mut room, mut found, mut last) = (room(Some(0)), Findings::default(), 0);
        let packets: Vec<_> = (1..=4).map(|seq| said(&mut room, seq)).collect();
        room.heard(0, &mut last, &packets[0], &mut found);
        room.heard(0, &mut last, &packets[0], &mut found);
        assert_eq!(
            found,
            Findings {
                repeats: 1,
                ..Findings::default()
            }
        );
        room.heard(0, &mut last, &packets[3], &mut found);
        assert_eq!(
            found,
            Findings {
                repeats: 1,
                holes: 2,
                ..Findings::default()
            }
        );
        room.heard(0, &mut last, &packets[1], &mut found);
        assert_eq!(
            found,
            Findings {
                repeats: 1,
                holes: 1,
                disorder: 1,
                ..Findings::default()
            }
        );
    }

    #[test]
    fn what_never_came_is_a_hole_at_the_end() {
        let (mut room, mut found, mut last) = (room(Some(0)), Findings::default(), 0);
        let packets: Vec<_> = (1..=3).map(|seq| said(&mut room, seq)).collect();
        room.heard(0, &mut last, &packets[0], &mut found);
        room.heard(0, &mut last, &packets[2], &mut found);
        room.close(&mut found);
        assert_eq!(found.holes, 4, "one of this member, three of the other");
    }

    #[test]
    fn two_members_with_two_orders_are_found() {
        let (mut room, mut found, mut last) = (room(Some(0)), Findings::default(), [0, 0]);
        let one = said(&mut room, 1);
        let other = said(&mut room, 1);
        room.heard(0, &mut last[0], &one, &mut found);
        room.heard(1, &mut last[1], &other, &mut found);
        assert_eq!(
            found,
            Findings {
                two_orders: 1,
                ..Findings::default()
            }
        );
    }

    #[test]
    fn without_numbers_each_senders_own_count_is_checked() {
        let (mut room, mut found, mut last) = (room(None), Findings::default(), 0);
        let packets: Vec<_> = (1..=4).map(|seq| said(&mut room, seq)).collect();
        // Another order between senders is nothing that such a server promises.
        for index in [1, 0, 2] {
            room.heard(1, &mut last, &packets[index], &mut found);
        }
        assert!(found.is_clean(), "{found:?}");
        room.heard(1, &mut last, &packets[2], &mut found);
        assert_eq!(
            found,
            Findings {
                repeats: 1,
                ..Findings::default()
            }
        );
    }

    #[test]
    fn a_message_of_someone_else_is_no_delivery() {
        let (mut room, mut found, mut last) = (room(Some(0)), Findings::default(), 0);
        let packet = b"42[\"message\",{\"seq\":1,\"content\":\"hello\"}]";
        assert_eq!(room.heard(0, &mut last, packet, &mut found), None);
        assert_eq!((found.unreadable, room.delivered), (1, 0));
    }
}
