//! How an input becomes another one.

use std::ops::Range;

/// Numbers at which something changes: signs, widths, what a double still knows.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "1.0",
    "1e999",
    "-0",
    "127",
    "128",
    "200",
    "201",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740991",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "00",
    "0x1",
];
/// Bytes at which something changes.
const BYTES: &[u8] = &[
    0, 1, 0x0a, 0x0d, 0x1e, 0x20, b'"', b'\\', 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0xc0, 0xed, 0xf8,
    0xfe, 0xff,
];
/// The most repetitions of a piece: nesting that a recursive parser would not survive.
const REPETITIONS: usize = 20_000;

/// Random numbers, the same from the same seed.
pub struct Chance(u64);

impl Chance {
    /// Begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (Steele, Lea and Flood's SplitMix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which isn't 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end as u64).unwrap_or_default()
    }

    /// One of them, which are not none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A piece of `length` bytes, mostly a short one.
    fn piece(&mut self, length: usize) -> Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 { length } else { 16 };
        start..(start + self.below(longest + 1)).min(length)
    }
}

/// A new input out of one of the corpus, changed in one to eight places.
pub(crate) fn descendant(
    corpus: &[Vec<u8>],
    words: &[&str],
    longest: usize,
    chance: &mut Chance,
) -> Vec<u8> {
    // The newest half of the time: they went further.
    let newest = &corpus[corpus.len() - corpus.len().div_ceil(8)..];
    let from = if chance.below(2) == 0 { newest } else { corpus };
    let mut input = chance.one(from).clone();
    for _ in 0..=chance.below(8) {
        change(&mut input, corpus, words, longest, chance);
        input.truncate(longest);
    }
    input
}

fn change(
    input: &mut Vec<u8>,
    corpus: &[Vec<u8>],
    words: &[&str],
    longest: usize,
    chance: &mut Chance,
) {
    let at = chance.below(input.len() + 1);
    match chance.below(13) {
        0 if !input.is_empty() => {
            let at = chance.below(input.len());
            input[at] ^= 1 << chance.below(8);
        }
        1 if !input.is_empty() => {
            let at = chance.below(input.len());
            input[at] = *chance.one(BYTES);
        }
        2 => input.insert(at, u8::try_from(chance.below(256)).unwrap_or_default()),
        3 => drop(input.drain(chance.piece(input.len()))),
        4 => {
            let piece = input[chance.piece(input.len())].to_vec();
            drop(input.splice(at..at, piece));
        }
        // Rarely many times: such inputs are slow, and stay in the corpus.
        5 if chance.below(16) == 0 => {
            let piece = input[chance.piece(input.len())].to_vec();
            let times = chance.below(REPETITIONS).min(longest / piece.len().max(1));
            drop(input.splice(at..at, piece.repeat(times)));
        }
        6 => {
            let other = chance.one(corpus);
            let piece = other[chance.piece(other.len())].to_vec();
            drop(input.splice(chance.piece(input.len()), piece));
        }
        7 => {
            // The head of one, the tail of another.
            let other = chance.one(corpus);
            input.truncate(at);
            input.extend_from_slice(&other[chance.below(other.len() + 1)..]);
        }
        8 if chance.below(4) == 0 => input.truncate(at),
        9 => {
            if let Some(digits) = number(input, at) {
                drop(input.splice(digits, chance.one(NUMBERS).bytes()));
            }
        }
        10 if chance.below(8) == 0 => {
            let piece = vec![*chance.one(BYTES); chance.below(512)];
            drop(input.splice(at..at, piece));
        }
        _ if words.is_empty() => {}
        _ => {
            let over = if chance.below(2) == 0 {
                at..at
            } else {
                chance.piece(input.len())
            };
            drop(input.splice(over, chance.one(words).bytes()));
        }
    }
}

/// The digits around or after `at`.
fn number(input: &[u8], at: usize) -> Option<Range<usize>> {
    let start = at + input[at..].iter().position(u8::is_ascii_digit)?;
    let length = input[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    Some(start..start + length)
}
