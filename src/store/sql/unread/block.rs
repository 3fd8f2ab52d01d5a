//! The map of a block: which of its numbers are messages that count as unread, and whose.
//!
//! | bytes | contents |
//! | --- | --- |
//! | 2 | the number of authors, little-endian |
//! | 8 each | the authors: the first bytes of the SHA-256 of their ids |
//! | 64 | a bit for each number: whether it is a message |
//! | 64 each | as many bits of the author's index as the number of authors needs, a plane for each |
//!
//! Planes make a count of one author's messages a few operations on words, and a block of few authors
//! small: 74 bytes for one, 322 bytes for eight. Indices of numbers that are not messages are 0.

use sha2::{Digest as _, Sha256};

use super::super::fault::{Fault, Outcome};

/// The numbers of a block: `seq` is in the block `seq / BLOCK`.
pub(super) const BLOCK: i64 = 512;
const WORDS: usize = 8;
const PLANE: usize = WORDS * 8;

/// A bit for each number of a block.
type Plane = [u64; WORDS];

/// A user, as a block has it. Equal for two users by chance only: 1 in 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Author([u8; 8]);

impl Author {
    pub(super) fn of(user: &str) -> Self {
        let digest = Sha256::digest(user.as_bytes());
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        Self(short)
    }
}

/// The block of a number.
pub(super) fn block_of(seq: i64) -> i64 {
    seq.div_euclid(BLOCK)
}

/// A decoded map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Block {
    authors: Vec<Author>,
    live: Plane,
    planes: Vec<Plane>,
}

impl Block {
    pub(super) fn decode(map: &[u8]) -> Outcome<Self> {
        Self::parse(map).ok_or_else(|| Fault::Broken("a map of messages is damaged".to_owned()))
    }

    fn parse(map: &[u8]) -> Option<Self> {
        let (count, rest) = map.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_le_bytes(*count));
        let (authors, rest) = rest.split_at_checked(8 * count)?;
        let (authors, _) = authors.as_chunks::<8>();
        let (planes, left) = rest.as_chunks::<PLANE>();
        let (live, planes) = planes.split_first()?;
        if !left.is_empty() || planes.len() != planes_for(count) {
            return None;
        }
        Some(Self {
            authors: authors.iter().copied().map(Author).collect(),
            live: words(live),
            planes: planes.iter().map(words).collect(),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.authors.len()).expect("a block has at most 512 authors");
        let length = 2 + 8 * self.authors.len() + PLANE * (1 + self.planes.len());
        let mut map = Vec::with_capacity(length);
        map.extend(count.to_le_bytes());
        for author in &self.authors {
            map.extend(author.0);
        }
        for plane in std::iter::once(&self.live).chain(&self.planes) {
            map.extend(plane.iter().flat_map(|word| word.to_le_bytes()));
        }
        map
    }

    /// Adds a message. Its number is not in the block yet.
    pub(super) fn add(&mut self, seq: i64, author: Author) {
        let index = match self.authors.iter().position(|known| *known == author) {
            Some(index) => index,
            None => {
                self.authors.push(author);
                self.planes
                    .resize(planes_for(self.authors.len()), Plane::default());
                self.authors.len() - 1
            }
        };
        let (word, bit) = place(seq);
        self.live[word] |= bit;
        for (number, plane) in self.planes.iter_mut().enumerate() {
            if index >> number & 1 == 1 {
                plane[word] |= bit;
            }
        }
    }

    /// Removes the message with this number. False if there is none.
    pub(super) fn remove(&mut self, seq: i64) -> bool {
        let (word, bit) = place(seq);
        let was_live = self.live[word] & bit != 0;
        for plane in std::iter::once(&mut self.live).chain(&mut self.planes) {
            plane[word] &= !bit;
        }
        was_live
    }

    /// Keeps the messages with numbers greater than `after`, up to `last`, of the block with this number.
    pub(super) fn retain(&mut self, block: i64, after: i64, last: i64) {
        let mask = mask(block, after, last);
        for plane in std::iter::once(&mut self.live).chain(&mut self.planes) {
            for (word, mask) in plane.iter_mut().zip(mask) {
                *word &= mask;
            }
        }
        // Authors without messages go, and with them their planes.
        let mut kept = Self::default();
        for (offset, author) in self.messages() {
            kept.add(offset, author);
        }
        *self = kept;
    }

    /// The messages of others than this author with numbers greater than `after`, up to `last`, of the
    /// block with this number.
    pub(super) fn count_of_others(&self, author: Author, block: i64, after: i64, last: i64) -> u64 {
        let mut counted = mask(block, after, last);
        let index = self.authors.iter().position(|known| *known == author);
        for (word, counted) in counted.iter_mut().enumerate() {
            *counted &= self.live[word];
            if let Some(index) = index {
                *counted &= !self.own(index, word);
            }
        }
        ones(&counted)
    }

    /// How many messages each author has.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Author, u64)> {
        self.authors.iter().enumerate().map(|(index, author)| {
            let own: Plane = std::array::from_fn(|word| self.own(index, word));
            (*author, ones(&own))
        })
    }

    /// A word of the messages of the author with this index.
    fn own(&self, index: usize, word: usize) -> u64 {
        let mut own = self.live[word];
        for (number, plane) in self.planes.iter().enumerate() {
            if index >> number & 1 == 1 {
                own &= plane[word];
            } else {
                own &= !plane[word];
            }
        }
        own
    }

    fn messages(&self) -> impl Iterator<Item = (i64, Author)> {
        (0..BLOCK).filter_map(|offset| {
            let (word, bit) = place(offset);
            if self.live[word] & bit == 0 {
                return None;
            }
            let mut index = 0;
            for (number, plane) in self.planes.iter().enumerate() {
                if plane[word] & bit != 0 {
                    index |= 1 << number;
                }
            }
            Some((offset, *self.authors.get(index)?))
        })
    }
}

/// The bits that the index of one of so many authors needs.
fn planes_for(authors: usize) -> usize {
    let last = authors.saturating_sub(1);
    (usize::BITS - last.leading_zeros()) as usize
}

fn words(plane: &[u8; PLANE]) -> Plane {
    let (words, _) = plane.as_chunks::<8>();
    std::array::from_fn(|word| u64::from_le_bytes(words[word]))
}

fn ones(plane: &Plane) -> u64 {
    plane.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// The word and the bit of a number.
fn place(seq: i64) -> (usize, u64) {
    let offset = usize::try_from(seq.rem_euclid(BLOCK)).expect("a remainder is not negative");
    (offset / 64, 1 << (offset % 64))
}

/// The numbers of a block that are greater than `after`, up to `last`.
fn mask(block: i64, after: i64, last: i64) -> Plane {
    let first = block.saturating_mul(BLOCK);
    let from = after
        .saturating_add(1)
        .saturating_sub(first)
        .clamp(0, BLOCK);
    let to = last.saturating_add(1).saturating_sub(first).clamp(0, BLOCK);
    std::array::from_fn(|word| {
        let start = 64 * i64::try_from(word).expect("a block has 8 words");
        up_to(to - start) & !up_to(from - start)
    })
}

/// A word with so many of its lowest bits; all from 64 on.
fn up_to(bits: i64) -> u64 {
    match bits {
        ..=0 => 0,
        1..=63 => (1 << bits) - 1,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn author(number: u64) -> Author {
        Author::of(&format!("user-{number}"))
    }

    /// A block and the same as a list.
    fn filled(block: i64, messages: &BTreeMap<i64, u64>) -> Block {
        let mut filled = Block::default();
        for (offset, user) in messages {
            filled.add(block * BLOCK + offset, author(*user));
        }
        filled
    }

    fn messages() -> impl Strategy<Value = BTreeMap<i64, u64>> {
        let user = prop_oneof![0..2_u64, 0..9_u64, 0..600_u64];
        proptest::collection::btree_map(0..BLOCK, user, 0..512)
    }

    proptest! {
        #[test]
        fn a_map_is_what_was_encoded(messages in messages()) {
            let block = filled(3, &messages);
            prop_assert_eq!(Block::decode(&block.encode()).unwrap(), block);
        }

        #[test]
        fn a_count_leaves_out_the_users_own(
            messages in messages(), user in 0..9_u64, after in -1..1100_i64, last in 400..1200_i64,
        ) {
            let block = filled(1, &messages);
            let is_counted = |(offset, by): &(&i64, &u64)| {
                let seq = BLOCK + **offset;
                **by != user && seq > after && seq <= last
            };
            let expected = messages.iter().filter(is_counted).count() as u64;
            prop_assert_eq!(block.count_of_others(author(user), 1, after, last), expected);
            let own = |(by, count): (Author, u64)| (by == author(user)).then_some(count);
            let own: u64 = block.counts().filter_map(own).sum();
            let expected = messages.values().filter(|by| **by == user).count() as u64;
            prop_assert_eq!(own, expected);
        }

        #[test]
        fn removed_messages_are_as_if_they_had_never_been_added(
            mut messages in messages(), removed in proptest::collection::vec(0..BLOCK, 0..40),
            after in 1000..1600_i64, last in 1000..1600_i64,
        ) {
            let mut block = filled(2, &messages);
            for offset in removed {
                let was_there = messages.remove(&offset).is_some();
                prop_assert_eq!(block.remove(2 * BLOCK + offset), was_there);
            }
            let total = |block: &Block| block.count_of_others(author(700), 2, 0, i64::MAX);
            prop_assert_eq!(total(&block), messages.len() as u64);
            block.retain(2, after, last);
            messages.retain(|offset, _| (after + 1..=last).contains(&(2 * BLOCK + *offset)));
            prop_assert_eq!(block, filled(2, &messages));
        }

        #[test]
        fn foreign_bytes_are_an_error_or_a_map(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(block) = Block::decode(&bytes) {
                prop_assert!(block.count_of_others(author(0), 0, -1, BLOCK) <= 512);
            }
        }
    }

    #[test]
    fn a_map_grows_with_the_number_of_its_authors() {
        for (authors, bytes) in [(1, 74), (2, 146), (8, 322), (512, 4738)] {
            let messages: BTreeMap<i64, u64> = (0..BLOCK)
                .map(|offset| (offset, offset as u64 % authors))
                .collect();
            assert_eq!(
                filled(0, &messages).encode().len(),
                bytes,
                "{authors} authors"
            );
        }
    }

    #[test]
    fn blocks_begin_at_multiples_of_their_size() {
        assert_eq!([0, 511, 512, 1535].map(block_of), [0, 0, 1, 2]);
    }
}
