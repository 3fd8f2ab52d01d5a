//! Fuzzes a decoder: tries many inputs that are random mutations of valid ones, and keeps the one
//! that breaks it.
//!
//! A target stands beside its decoder, as a test whose name begins with `fuzz_`:
//!
//! ```
//! let target = hubbub_fuzz::Target {
//!     name: "numbers",
//!     seeds: &[b"17"],
//!     words: &["-", "e9"],
//!     longest: 64,
//! };
//! target.run(|input| {
//!     let text = std::str::from_utf8(input).ok();
//!     text.and_then(|text| text.parse::<u64>().ok()).is_some()
//! });
//! ```
//!
//! The check asserts the properties that must hold for every input. It returns a summary of the
//! decoder's behaviour; an input with a new summary joins the corpus, so that later inputs are
//! mutations of it, too. An input that breaks the check, or takes longer than [`MAX_INPUT_TIME`],
//! is reported and kept in a file. Each input is written to that file before it is tried, because a
//! stack overflow ends the process without a report.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `HUBBUB_FUZZ_SECONDS` | how long each target is fuzzed | 1; unlimited if `HUBBUB_FUZZ_CASES` is set |
//! | `HUBBUB_FUZZ_CASES` | the number of inputs of each target | unlimited |
//! | `HUBBUB_FUZZ_SEED` | the seed of the random numbers; the same seed makes the same inputs | 1 |
//! | `HUBBUB_FUZZ_INPUT` | a file: only this input is tried, by the target that its name begins with | |
//! | `HUBBUB_FUZZ_DIR` | the directory in which inputs are kept | `hubbub-fuzz` in the system's temporary directory |

mod mutation;

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

pub use mutation::Random;

/// The longest time that one input may take. No decoder needs 1 % of it, even on a busy machine.
pub const MAX_INPUT_TIME: Duration = Duration::from_secs(5);
/// The maximum number of inputs in the corpus.
const MAX_CORPUS: usize = 4096;
const DEFAULT_SEED: u64 = 1;
const DEFAULT_SECONDS: f64 = 1.0;
/// The clock is read once in this many cases, because reading it costs about as much as a small
/// case.
const CASES_PER_CLOCK_READ: u64 = 64;

/// A decoder to fuzz.
pub struct Target<'a> {
    /// The name of the target. The files of inputs that break it begin with it.
    pub name: &'a str,
    /// Valid inputs, of every kind that the decoder knows.
    pub seeds: &'a [&'a [u8]],
    /// Pieces of text that have a meaning to the decoder (a fuzzing dictionary).
    pub words: &'a [&'a str],
    /// The maximum length of an input, in bytes.
    pub longest: usize,
}

/// The limits of a run.
struct Budget {
    cases: u64,
    deadline: Option<Instant>,
}

/// Reads the variable `HUBBUB_FUZZ_<name>`. An empty one counts as not set.
fn setting<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(format!("HUBBUB_FUZZ_{name}")).ok()?;
    if value.is_empty() {
        return None;
    }
    match value.parse() {
        Ok(value) => Some(value),
        Err(_) => panic!("HUBBUB_FUZZ_{name}={value} is not valid"),
    }
}

fn directory() -> PathBuf {
    setting("DIR").unwrap_or_else(|| std::env::temp_dir().join("hubbub-fuzz"))
}

impl Budget {
    fn from_env() -> Self {
        let cases = setting("CASES");
        let seconds = match setting("SECONDS") {
            None if cases.is_none() => Some(DEFAULT_SECONDS),
            seconds => seconds,
        };
        Self {
            cases: cases.unwrap_or(u64::MAX),
            deadline: seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds)),
        }
    }

    fn allows(&self, case: u64) -> bool {
        if case >= self.cases {
            return false;
        }
        if !case.is_multiple_of(CASES_PER_CLOCK_READ) {
            return true;
        }
        self.deadline
            .is_none_or(|deadline| Instant::now() < deadline)
    }
}

/// The file with the input that is being tried.
struct InputFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl InputFile {
    fn create(directory: &Path, target: &str) -> Self {
        std::fs::create_dir_all(directory).expect("the directory for inputs can be created");
        // With the process id, because several runs may use the directory at once.
        let path = directory.join(format!("{target}-{}", std::process::id()));
        let file = File::create(&path).expect("the file for inputs can be created");
        Self {
            file,
            path,
            length: 0,
        }
    }

    fn write(&mut self, input: &[u8]) {
        self.file
            .write_all_at(input, 0)
            .expect("the input can be written to its file");
        let length = input.len() as u64;
        if length < self.length {
            self.file
                .set_len(length)
                .expect("the file of the input can be truncated");
        }
        self.length = length;
    }
}

/// The behaviour of a decoder with one input.
struct Observation {
    /// The hash of the check's summary.
    summary: u64,
    time: Duration,
}

impl Target<'_> {
    /// Tries the decoder until the budget is spent.
    ///
    /// # Panics
    /// If `check` panics or takes too long. The message names the file with the input.
    pub fn run<S: Hash>(&self, check: impl Fn(&[u8]) -> S) {
        if let Some(path) = setting::<PathBuf>("INPUT") {
            return self.replay(&path, check);
        }
        let mut file = InputFile::create(&directory(), self.name);
        let mut random = Random::new(setting("SEED").unwrap_or(DEFAULT_SEED));
        let mut corpus: Vec<Vec<u8>> = self.seeds.iter().map(|seed| seed.to_vec()).collect();
        let mut summaries = HashSet::new();
        let mut slowest = Duration::ZERO;
        let mut case = 0;
        let budget = Budget::from_env();
        let began = Instant::now();
        while budget.allows(case) {
            let input = self.input(case, &corpus, &mut random);
            file.write(&input);
            let observation = self.observe(&input, &file.path, &check);
            slowest = slowest.max(observation.time);
            if summaries.insert(observation.summary) && corpus.len() < MAX_CORPUS {
                corpus.push(input);
            }
            case += 1;
        }
        let _ = std::fs::remove_file(&file.path);
        println!(
            "fuzz: {}: {case} cases in {:.1} s, {} behaviours, the slowest {} µs",
            self.name,
            began.elapsed().as_secs_f64(),
            summaries.len(),
            slowest.as_micros()
        );
    }

    /// The input of a case: first each seed as it is, then mutations.
    fn input(&self, case: u64, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let seed = usize::try_from(case)
            .ok()
            .and_then(|index| self.seeds.get(index));
        match seed {
            Some(seed) => seed.to_vec(),
            None => mutation::mutate(corpus, self.words, self.longest, random),
        }
    }

    fn observe<S: Hash>(
        &self,
        input: &[u8],
        path: &Path,
        check: &impl Fn(&[u8]) -> S,
    ) -> Observation {
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut hasher = DefaultHasher::new();
            check(input).hash(&mut hasher);
            hasher.finish()
        }));
        let time = began.elapsed();
        let summary = result.unwrap_or_else(|panic| {
            eprintln!(
                "fuzz: {}: broken by the input in {}",
                self.name,
                path.display()
            );
            resume_unwind(panic)
        });
        assert!(
            time < MAX_INPUT_TIME,
            "fuzz: {}: {time:?} for the input in {}",
            self.name,
            path.display()
        );
        Observation { summary, time }
    }

    /// Tries the input in the file, if the file's name begins with the name of this target.
    fn replay<S: Hash>(&self, path: &Path, check: impl Fn(&[u8]) -> S) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let target = match name.rsplit_once('-') {
            Some((target, _)) => target,
            None => name,
        };
        if target != self.name {
            return;
        }
        let input = std::fs::read(path).expect("the file of the input can be read");
        let observation = self.observe(&input, path, &check);
        println!(
            "fuzz: {}: {} bytes, {} µs, nothing broken",
            self.name,
            input.len(),
            observation.time.as_micros()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const TARGET: Target<'_> = Target {
        name: "self_test",
        seeds: &[b"[1,2]", b"{\"a\":1}"],
        words: &["\\ud800", "null"],
        longest: 4096,
    };

    #[test]
    fn an_input_that_breaks_the_check_is_found_and_kept() {
        let tried = Cell::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            TARGET.run(|input| {
                tried.set(tried.get() + 1);
                // A combination that no seed contains.
                let text = String::from_utf8_lossy(input);
                assert!(
                    !(text.contains("\\ud800") && text.contains("[[[")),
                    "a fault"
                );
                (text.len().checked_ilog2(), text.contains("[["))
            });
        }));
        assert!(result.is_err(), "not found in {} cases", tried.get());
        let path = directory().join(format!("self_test-{}", std::process::id()));
        let kept = std::fs::read(&path).expect("the input was kept");
        let kept = String::from_utf8_lossy(&kept);
        assert!(kept.contains("\\ud800") && kept.contains("[[["), "{kept}");
        std::fs::remove_file(path).expect("the file exists");
    }

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let corpus = vec![b"[1,2]".to_vec(), b"{\"a\":1}".to_vec()];
        let inputs = |seed| {
            let mut random = Random::new(seed);
            (0..200)
                .map(|_| mutation::mutate(&corpus, TARGET.words, 4096, &mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
        assert!(inputs(7).iter().all(|input| input.len() <= 4096));
    }
}
