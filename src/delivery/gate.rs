//! A gate in front of several joins: their events wait until it is opened.

use std::sync::Arc;

use parking_lot::Mutex;

type Waker = Box<dyn FnOnce() + Send>;

/// Holds back the events of joins, so that one acknowledgement can precede all of them. Clones are one
/// gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_open: bool,
    wakers: Vec<Waker>,
}

impl Gate {
    /// Lets the events pass, now and later.
    pub fn open(&self) {
        let wakers = {
            let mut state = self.0.lock();
            state.is_open = true;
            std::mem::take(&mut state.wakers)
        };
        for wake in wakers {
            wake();
        }
    }

    /// Calls `wake` once the gate is open.
    pub(super) fn when_open(&self, wake: Waker) {
        {
            let mut state = self.0.lock();
            if !state.is_open {
                state.wakers.push(wake);
                return;
            }
        }
        wake();
    }
}
