//! Tries a decoder with many inputs that grow from good ones by chance, and keeps the one that breaks it.
//!
//! A target stands beside its decoder, as a test whose name begins with `fuzz_`:
//!
//! ```
//! let target = hubbub_fuzz::Target { name: "numbers", seeds: &[b"17"], words: &["-", "e9"], longest: 64 };
//! target.run(|input| std::str::from_utf8(input).ok().and_then(|text| text.parse::<u64>().ok()).is_some());
//! ```
//!
//! What the check returns is the *shape* of what happened; an input with a shape that wasn't seen before joins the corpus, so
//! that later ones start from there. The check asserts whatever must hold. An input that breaks it, or takes longer than
//! [`PATIENCE`], is named and kept in a file. Each input is in that file before it is tried: a stack that overflows ends the
//! process without a word.
//!
//! | variable | means | default |
//! | --- | --- | --- |
//! | `HUBBUB_FUZZ_SECONDS` | how long each target is tried | 1, and without end when there are cases |
//! | `HUBBUB_FUZZ_CASES` | how many inputs each target gets | as many as the time allows |
//! | `HUBBUB_FUZZ_SEED` | where chance begins; the same seed, the same inputs | 1 |
//! | `HUBBUB_FUZZ_INPUT` | a file: only this input is tried, by the target that its name begins with | |
//! | `HUBBUB_FUZZ_DIR` | where inputs are kept | `hubbub-fuzz` in the system's temporary directory |

mod mutation;

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

pub use mutation::Chance;

/// The longest that one input may take. No decoder needs a hundredth of it, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Inputs that later ones may start from.
const CORPUS: usize = 4096;

/// A decoder to be tried.
pub struct Target<'a> {
    /// Names the target, and the files of inputs that break it.
    pub name: &'a str,
    /// Good inputs, of every kind there is.
    pub seeds: &'a [&'a [u8]],
    /// What means something to the decoder.
    pub words: &'a [&'a str],
    /// The longest input, in bytes.
    pub longest: usize,
}

/// How long it goes on.
struct Budget {
    cases: u64,
    until: Option<Instant>,
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(format!("HUBBUB_FUZZ_{name}"))
        .ok()
        .filter(|value| !value.is_empty())?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("HUBBUB_FUZZ_{name}={value} makes no sense")),
    )
}

impl Budget {
    fn set() -> Self {
        let cases = setting("CASES");
        let seconds = setting("SECONDS").or_else(|| cases.is_none().then_some(1.0));
        Self {
            cases: cases.unwrap_or(u64::MAX),
            until: seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds)),
        }
    }

    fn allows(&self, case: u64) -> bool {
        // To ask for the time costs about as much as a small case.
        case < self.cases
            && (!case.is_multiple_of(64) || self.until.is_none_or(|until| Instant::now() < until))
    }
}

/// The input that is tried now, in a file.
struct Kept {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Kept {
    fn new(directory: &Path, target: &str) -> Self {
        std::fs::create_dir_all(directory).expect("inputs can be kept");
        // Several runs may go on at once.
        let path = directory.join(format!("{target}-{}", std::process::id()));
        let file = File::create(&path).expect("an input can be kept");
        Self {
            file,
            path,
            length: 0,
        }
    }

    fn keep(&mut self, input: &[u8]) {
        self.file
            .write_all_at(input, 0)
            .expect("an input can be kept");
        let length = input.len() as u64;
        if length < self.length {
            self.file.set_len(length).expect("an input can be kept");
        }
        self.length = length;
    }
}

impl Target<'_> {
    /// Tries the decoder until the budget is spent.
    ///
    /// # Panics
    /// When `check` does, or takes too long; the message names the file that has the input.
    pub fn run<S: Hash>(&self, check: impl Fn(&[u8]) -> S) {
        if let Some(path) = setting::<PathBuf>("INPUT") {
            return self.replay(&path, check);
        }
        let directory = setting("DIR").unwrap_or_else(|| std::env::temp_dir().join("hubbub-fuzz"));
        let mut kept = Kept::new(&directory, self.name);
        let mut chance = Chance::new(setting("SEED").unwrap_or(1));
        let mut corpus: Vec<Vec<u8>> = self.seeds.iter().map(|seed| seed.to_vec()).collect();
        let (mut shapes, budget, began) = (HashSet::new(), Budget::set(), Instant::now());
        let (mut case, mut slowest) = (0, Duration::ZERO);
        while budget.allows(case) {
            // The good ones come first, as they are.
            let input = match usize::try_from(case)
                .ok()
                .and_then(|case| self.seeds.get(case))
            {
                Some(seed) => seed.to_vec(),
                None => mutation::descendant(&corpus, self.words, self.longest, &mut chance),
            };
            kept.keep(&input);
            let (shape, took) = self.tried(&input, &kept.path, &check);
            slowest = slowest.max(took);
            if shapes.insert(shape) && corpus.len() < CORPUS {
                corpus.push(input);
            }
            case += 1;
        }
        let _ = std::fs::remove_file(&kept.path);
        println!(
            "fuzz: {}: {case} cases in {:.1} s, {} shapes, the slowest {} µs",
            self.name,
            began.elapsed().as_secs_f64(),
            shapes.len(),
            slowest.as_micros()
        );
    }

    fn tried<S: Hash>(
        &self,
        input: &[u8],
        path: &Path,
        check: &impl Fn(&[u8]) -> S,
    ) -> (u64, Duration) {
        let began = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| {
            let mut hasher = DefaultHasher::new();
            check(input).hash(&mut hasher);
            hasher.finish()
        }));
        let took = began.elapsed();
        let shape = done.unwrap_or_else(|panic| {
            eprintln!(
                "fuzz: {}: broken by the input in {}",
                self.name,
                path.display()
            );
            resume_unwind(panic)
        });
        assert!(
            took < PATIENCE,
            "fuzz: {}: {took:?} for the input in {}",
            self.name,
            path.display()
        );
        (shape, took)
    }

    fn replay<S: Hash>(&self, path: &Path, check: impl Fn(&[u8]) -> S) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.rsplit_once('-').map_or(name, |(target, _)| target) == self.name {
            let input = std::fs::read(path).expect("the input can be read");
            let (_, took) = self.tried(&input, path, &check);
            println!(
                "fuzz: {}: {} bytes, {} µs, nothing broken",
                self.name,
                input.len(),
                took.as_micros()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const NUMBERS: Target<'_> = Target {
        name: "self_test",
        seeds: &[b"[1,2]", b"{\"a\":1}"],
        words: &["\\ud800", "null"],
        longest: 4096,
    };

    #[test]
    fn a_fault_is_found_and_its_input_kept() {
        let tried = Cell::new(0);
        let found = catch_unwind(AssertUnwindSafe(|| {
            NUMBERS.run(|input| {
                tried.set(tried.get() + 1);
                // Two things at once that no seed has.
                let text = String::from_utf8_lossy(input);
                assert!(
                    !(text.contains("\\ud800") && text.contains("[[[")),
                    "a fault"
                );
                (text.len().checked_ilog2(), text.contains("[["))
            });
        }));
        assert!(found.is_err(), "not found in {} cases", tried.get());
        let directory = setting("DIR").unwrap_or_else(|| std::env::temp_dir().join("hubbub-fuzz"));
        let path = directory.join(format!("self_test-{}", std::process::id()));
        let kept = std::fs::read(&path).expect("the input is kept");
        let kept = String::from_utf8_lossy(&kept);
        assert!(kept.contains("\\ud800") && kept.contains("[[["), "{kept}");
        std::fs::remove_file(path).expect("it was there");
    }

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let corpus = vec![b"[1,2]".to_vec(), b"{\"a\":1}".to_vec()];
        let inputs = |seed| {
            let mut chance = Chance::new(seed);
            (0..200)
                .map(|_| mutation::descendant(&corpus, NUMBERS.words, 4096, &mut chance))
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
        assert!(inputs(7).iter().all(|input| input.len() <= 4096));
    }
}
