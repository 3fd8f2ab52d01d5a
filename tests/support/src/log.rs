//! A log that a test reads.

use std::io::Write;
use std::sync::{Arc, Mutex};

/// Collects the log as text. Clones share it.
#[derive(Clone, Default)]
pub struct CollectedLog(Arc<Mutex<Vec<u8>>>);

impl CollectedLog {
    /// Everything that was written so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Makes writers for a subscriber.
    pub fn writer(&self) -> impl Fn() -> Self + Send + Sync + 'static {
        let log = self.clone();
        move || log.clone()
    }
}

impl Write for CollectedLog {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
