//! Random numbers and texts, the same for the same seed.

use uuid::Uuid;

/// Words, the most frequent first.
const WORDS: &[&str] = &[
    "the",
    "to",
    "a",
    "and",
    "it",
    "is",
    "in",
    "we",
    "of",
    "that",
    "for",
    "on",
    "you",
    "this",
    "be",
    "with",
    "have",
    "not",
    "are",
    "but",
    "can",
    "at",
    "if",
    "do",
    "will",
    "just",
    "was",
    "so",
    "or",
    "what",
    "they",
    "all",
    "now",
    "there",
    "from",
    "when",
    "here",
    "today",
    "about",
    "time",
    "see",
    "release",
    "server",
    "please",
    "thanks",
    "update",
    "meeting",
    "tomorrow",
    "check",
    "deploy",
    "branch",
    "message",
    "channel",
    "ticket",
    "customer",
    "question",
    "answer",
    "maybe",
    "release",
    "latency",
    "coffee",
    "lunch",
    "design",
    "review",
    "merged",
    "issue",
    "backup",
    "queue",
    "cluster",
    "naïve",
    "café",
    "größer",
    "señor",
    "日本語",
    "привет",
    "🎉",
    "👍",
    "🚀",
    "¯\\_(ツ)_/¯",
    "\"quoted\"",
];
/// The bytes of a text: at least, and how many more at most.
const BYTES: (u64, u64) = (60, 480);

/// SplitMix64: small, fast, and good enough for demo data.
pub(super) struct Random(u64);

impl Random {
    /// A sequence for these numbers.
    pub fn new(seed: &[u64]) -> Self {
        let mut random = Self(0x9e37_79b9_7f4a_7c15);
        for number in seed {
            random.0 ^= number.wrapping_mul(0xd134_2543_de82_ef95);
            random.0 = random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_u128(u128::from(self.next()) << 64 | u128::from(self.next()))
            .with_version(uuid::Version::Random)
            .with_variant(uuid::Variant::RFC4122)
            .into_uuid()
    }
}

/// A text in which some words are frequent and most are rare.
pub(super) fn text(random: &mut Random) -> String {
    let (least, more) = BYTES;
    let length = usize::try_from(least + random.below(more)).unwrap_or(usize::MAX);
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        if !text.is_empty() {
            text.push(' ');
        }
        // The smallest of three makes the first words frequent.
        let count = WORDS.len() as u64;
        let index = (0..3).map(|_| random.below(count)).min().unwrap_or(0);
        text.push_str(WORDS[usize::try_from(index).unwrap_or(0)]);
    }
    text
}
