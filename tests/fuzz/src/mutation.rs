//! Mutates inputs.

use std::ops::Range;

/// Numbers at the limits of types and formats: signs, widths of integers, the precision of a
/// double.
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
/// Bytes with a special meaning in formats: control characters, the separator of Engine.IO payloads
/// (0x1e), quotes, the lengths and first bytes of WebSocket frames (0x7d to 0x81), lead bytes of
/// UTF-8.
const BYTES: &[u8] = &[
    0, 1, 0x0a, 0x0d, 0x1e, 0x20, b'"', b'\\', 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0xc0, 0xed, 0xf8,
    0xfe, 0xff,
];
/// The maximum number of repetitions of a piece. As nesting, it is deep enough to overflow the
/// stack of a recursive parser.
const REPETITIONS: usize = 20_000;

/// A generator of random numbers. The same seed makes the same numbers.
pub struct Random(u64);

impl Random {
    /// Creates a generator with this seed.
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

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end as u64).unwrap_or_default()
    }

    /// One of these items. There must be at least one.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A range within `length` bytes. In 75 % of the cases it is at most 16 bytes long.
    fn piece(&mut self, length: usize) -> Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 { length } else { 16 };
        start..(start + self.below(longest + 1)).min(length)
    }
}

/// Makes a new input: an input of the corpus with one to eight changes.
pub(crate) fn mutate(
    corpus: &[Vec<u8>],
    words: &[&str],
    longest: usize,
    random: &mut Random,
) -> Vec<u8> {
    // In half of the cases it is one of the newest 12.5 % of the corpus, which tend to reach
    // further into the decoder.
    let newest = &corpus[corpus.len() - corpus.len().div_ceil(8)..];
    let from = if random.below(2) == 0 { newest } else { corpus };
    let mut input = random.choose(from).clone();
    for _ in 0..=random.below(8) {
        change(&mut input, corpus, words, longest, random);
        input.truncate(longest);
    }
    input
}

fn change(
    input: &mut Vec<u8>,
    corpus: &[Vec<u8>],
    words: &[&str],
    longest: usize,
    random: &mut Random,
) {
    let at = random.below(input.len() + 1);
    match random.below(13) {
        0 if !input.is_empty() => {
            let at = random.below(input.len());
            input[at] ^= 1 << random.below(8);
        }
        1 if !input.is_empty() => {
            let at = random.below(input.len());
            input[at] = *random.choose(BYTES);
        }
        2 => input.insert(at, u8::try_from(random.below(256)).unwrap_or_default()),
        3 => drop(input.drain(random.piece(input.len()))),
        4 => {
            let piece = input[random.piece(input.len())].to_vec();
            drop(input.splice(at..at, piece));
        }
        // Rarely, because inputs with many repetitions are slow, and stay in the corpus.
        5 if random.below(16) == 0 => {
            let piece = input[random.piece(input.len())].to_vec();
            let times = random.below(REPETITIONS).min(longest / piece.len().max(1));
            drop(input.splice(at..at, piece.repeat(times)));
        }
        6 => {
            let other = random.choose(corpus);
            let piece = other[random.piece(other.len())].to_vec();
            drop(input.splice(random.piece(input.len()), piece));
        }
        7 => {
            // The beginning of this input, and the end of another.
            let other = random.choose(corpus);
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        8 if random.below(4) == 0 => input.truncate(at),
        9 => {
            if let Some(digits) = digits_from(input, at) {
                drop(input.splice(digits, random.choose(NUMBERS).bytes()));
            }
        }
        10 if random.below(8) == 0 => {
            let piece = vec![*random.choose(BYTES); random.below(512)];
            drop(input.splice(at..at, piece));
        }
        _ if words.is_empty() => {}
        _ => {
            let replaced = if random.below(2) == 0 {
                at..at
            } else {
                random.piece(input.len())
            };
            drop(input.splice(replaced, random.choose(words).bytes()));
        }
    }
}

/// The range of the first digits at or after `at`.
fn digits_from(input: &[u8], at: usize) -> Option<Range<usize>> {
    let start = at + input[at..].iter().position(u8::is_ascii_digit)?;
    let length = input[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    Some(start..start + length)
}
