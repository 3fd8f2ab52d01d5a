//! How far a worker goes ahead of those who write what it has handed out.

use std::task::{Context, Waker};

use super::{Pause, Turn};

/// Counts what was handed out since outlets last had their turn to write, and waits for that when it is much.
pub(super) struct FlowControl {
    pause: Pause,
    /// As much as that may be handed out.
    most: usize,
    handed_out: usize,
    /// Not before as much is handed out is anything looked at.
    look_at: usize,
    /// A turn that has begun, and what had been handed out then: nothing of it is unwritten once it is over.
    turn: Option<(Turn, usize)>,
}

impl FlowControl {
    pub fn new(pause: Pause, most: usize) -> Self {
        Self {
            pause,
            most,
            handed_out: 0,
            look_at: most / 2,
            turn: None,
        }
    }

    /// So much has been handed out to an outlet, or to many. Returns when more may be. The turn begins with half of what may
    /// be handed out: so that mostly it is over before it is waited for.
    pub async fn hand_out(&mut self, bytes: usize) {
        self.handed_out += bytes;
        if self.handed_out > self.look_at {
            self.look().await;
            while self.handed_out > self.most {
                self.wait().await;
            }
        }
    }

    /// Begins a turn, if there is none, and sees whether it is over.
    async fn look(&mut self) {
        let (turn, _) = self
            .turn
            .get_or_insert_with(|| (self.pause.begin(), self.handed_out));
        // Nobody has to be woken by this look: it is looked again, or waited.
        if turn
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            // Where those before it were only woken they run now.
            tokio::task::yield_now().await;
            let before = self.turn.take().map_or(0, |(_, before)| before);
            self.is_over(before);
        } else {
            self.look_at = self.handed_out + self.most / 16;
        }
    }

    async fn wait(&mut self) {
        let (turn, before) = self
            .turn
            .take()
            .unwrap_or_else(|| (self.pause.begin(), self.handed_out));
        turn.await;
        self.is_over(before);
    }

    /// Waits until whoever has something to write now has had a turn.
    pub async fn pause(&mut self) {
        self.turn = Some((self.pause.begin(), self.handed_out));
        self.wait().await;
    }

    fn is_over(&mut self, before: usize) {
        self.handed_out -= before;
        self.look_at = self.most / 2;
    }
}
