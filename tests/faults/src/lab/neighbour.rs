//! A second deployment in the same run, with a history of its own.

use std::path::PathBuf;

use super::Lab;
use crate::checker::{Verdict, check};
use crate::history::{self, FileWriter, Recorder};

/// A lab within a lab: its clients' observations are recorded and judged apart from those of the
/// first one, as if nothing else ran.
pub struct Neighbour {
    pub name: &'static str,
    pub lab: Lab,
    history: PathBuf,
    writer: FileWriter,
}

impl Lab {
    /// Creates a lab with the same form and settings in a directory of its own.
    pub fn neighbour(&mut self, name: &'static str) -> anyhow::Result<Neighbour> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let history = dir.join("history.jsonl");
        let (recorder, writer) = Recorder::create(&history)?;
        let seed = rand::Rng::random(&mut self.rng);
        let mut lab = Self::new(&dir, &self.binary, recorder, seed, self.full);
        lab.recovery_timeout = self.recovery_timeout;
        lab.settings.clone_from(&self.settings);
        Ok(Neighbour {
            name,
            lab,
            history,
            writer,
        })
    }
}

impl Neighbour {
    /// Ends the history and judges it. Its clients must have been dropped.
    pub async fn judge(self) -> anyhow::Result<Verdict> {
        let Lab {
            recorder,
            promises,
            faults,
            ..
        } = self.lab;
        drop(recorder);
        self.writer.finish().await?;
        let path = self.history;
        let judge = move || anyhow::Ok(check(&history::read(&path)?, &promises));
        let mut verdict = tokio::task::spawn_blocking(judge).await??;
        verdict.faults.extend(faults);
        Ok(verdict)
    }
}
