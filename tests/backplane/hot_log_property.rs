//! Property test: reports of archived ranges, in any order and of any epoch, are compared with a
//! model that remembers every number.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use hubbub::backplane::{Backplane, RestorePoint};
use hubbub::domain::Epoch;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Handle;

use crate::fixture::{Fixture, append_message, limits};
use crate::hot_log::{append_many, archived, watermark};
use crate::restore_source::{Source, going_on, head};

/// The epochs of a room: their names, the last number before each, and the last number up to which
/// each counts once the next one has begun.
const EPOCHS: [(&str, u64, u64); 3] = [("e1", 0, 6), ("e2", 6, 12), ("e3", 14, u64::MAX)];
/// The watermark of the restore.
const RESTORED: u64 = 3;

#[derive(Debug, Clone)]
enum Step {
    Append,
    /// Ranges, each by its first number and its length, that were assigned in an epoch, or in one
    /// that the room doesn't know.
    Report(usize, Vec<(u64, u64)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ranges = prop::collection::vec((1_u64..24, 0_u64..8), 0..4);
    let step = prop_oneof![
        1 => Just(Step::Append),
        3 => (0_usize..4, ranges).prop_map(|(epoch, ranges)| Step::Report(epoch, ranges)),
    ];
    prop::collection::vec(step, 1..20)
}

/// The numbers that the archive is known to have.
struct Model {
    head: u64,
    archived: BTreeSet<u64>,
}

impl Model {
    fn report(&mut self, epoch: usize, ranges: &[RangeInclusive<u64>]) {
        let Some((_, _, end)) = EPOCHS.get(epoch) else {
            return;
        };
        let numbers = ranges.iter().cloned().flatten();
        let last = self.head.min(*end);
        self.archived
            .extend(numbers.filter(|number| *number <= last));
    }

    fn watermark(&self) -> u64 {
        let mut watermark = RESTORED;
        while self.archived.contains(&(watermark + 1)) {
            watermark += 1;
        }
        watermark
    }
}

async fn run(node: &Backplane, source: &Source, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let room = uuid::Uuid::new_v4().to_string();
    let (newest, after, _) = EPOCHS[2];
    let past = [1, 0].map(|n| head(EPOCHS[n].0, EPOCHS[n].2));
    source.set(
        &room,
        RestorePoint {
            past: past.to_vec(),
            watermark: RESTORED,
            ..going_on(newest, after)
        },
    );
    append_many(node, &room, 1).await;
    let mut model = Model {
        head: after + 1,
        archived: BTreeSet::new(),
    };
    for step in steps {
        match step {
            Step::Append => model.head = append_message(node, &room, "x").await.seq,
            Step::Report(epoch, ranges) => {
                let ranges = ranges.into_iter().filter(|(_, length)| *length > 0);
                let ranges: Vec<_> = ranges
                    .map(|(first, length)| first..=first + length - 1)
                    .collect();
                model.report(epoch, &ranges);
                let name = EPOCHS.get(epoch).map_or("unknown", |(name, _, _)| name);
                let reported = archived(node, &room, &Epoch::trusted(name), ranges).await;
                prop_assert_eq!(reported, model.watermark());
            }
        }
        let expected = (model.watermark(), model.head);
        let is_archived = expected.0 == expected.1;
        let found = watermark(node, &room).await;
        prop_assert_eq!(found, if is_archived { None } else { Some(expected) });
    }
    // The room is no longer in the way of the next ones.
    archived(node, &room, &Epoch::trusted(newest), vec![1..=model.head]).await;
    Ok(())
}

pub async fn watermarks_follow_any_reports(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let runtime = Handle::current();
    let result = tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config::with_cases(100));
        runner.run(&steps(), |steps| {
            runtime.block_on(run(&node, &source, steps))
        })
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
