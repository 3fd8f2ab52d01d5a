//! A restore source that a test scripts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use hubbub::backplane::{
    BackplaneError, HotState, RestorePoint, RestoreSource, Result, UnarchivedEntries,
};
use hubbub::domain::{Epoch, Head, RoomId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::fixture::{DEADLINE, eventually, room};

/// Takes every room for a new one, unless a test says otherwise.
pub struct Source {
    calls: Mutex<Vec<(RoomId, Option<HotState>)>>,
    /// The numbers of the entries of each page that was read.
    pages: Mutex<Vec<(RoomId, Vec<u64>)>>,
    points: Mutex<HashMap<RoomId, RestorePoint>>,
    is_open: watch::Sender<bool>,
    /// The pages that may be read before the next call of [`Self::allow_pages`].
    allowed_pages: Semaphore,
    is_down: AtomicBool,
}

impl Source {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            points: Mutex::default(),
            pages: Mutex::default(),
            is_open: watch::Sender::new(true),
            allowed_pages: Semaphore::new(Semaphore::MAX_PERMITS),
            is_down: AtomicBool::new(false),
        })
    }

    /// Sets how a room goes on.
    pub fn set(&self, name: &str, point: RestorePoint) {
        self.points.lock().insert(room(name), point);
    }

    /// Calls wait, until [`Self::open`].
    pub fn block(&self) {
        self.is_open.send_replace(false);
    }

    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Pages wait, except so many of them.
    pub fn allow_pages(&self, count: usize) {
        self.allowed_pages.forget_permits(Semaphore::MAX_PERMITS);
        self.allowed_pages.add_permits(count);
    }

    /// Whether calls fail.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// What the log knew of the room at each call.
    pub fn calls(&self, name: &str) -> Vec<Option<HotState>> {
        let calls = self.calls.lock();
        let of_room = calls.iter().filter(|(id, _)| id.as_str() == name);
        of_room.map(|(_, hot)| hot.clone()).collect()
    }

    /// The pages of the room's entries that were read so far.
    pub fn pages(&self, name: &str) -> Vec<Vec<u64>> {
        let pages = self.pages.lock();
        let of_room = pages.iter().filter(|(id, _)| id.as_str() == name);
        of_room.map(|(_, seqs)| seqs.clone()).collect()
    }

    /// Waits until so many pages of the room's entries were read.
    pub async fn wait_for_pages(&self, name: &str, count: usize) {
        eventually(DEADLINE, "the entries are read", async || {
            (self.pages(name).len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until there have been so many calls for the room.
    pub async fn wait_for_calls(&self, name: &str, count: usize) {
        eventually(DEADLINE, "the archive is asked", async || {
            (self.calls(name).len() >= count).then_some(())
        })
        .await;
    }
}

#[async_trait]
impl RestoreSource for Source {
    fn archive_id(&self) -> String {
        "archive".to_owned()
    }

    async fn restore_point(
        &self,
        room: &RoomId,
        hot: Option<&HotState>,
        entries: &mut dyn UnarchivedEntries,
    ) -> Result<RestorePoint> {
        self.calls.lock().push((room.clone(), hot.cloned()));
        loop {
            let page = entries.next_page().await?;
            if page.is_empty() {
                break;
            }
            let seqs = page.iter().map(|entry| entry.seq).collect();
            self.pages.lock().push((room.clone(), seqs));
            self.allowed_pages.acquire().await.unwrap().forget();
        }
        let mut is_open = self.is_open.subscribe();
        let _ = is_open.wait_for(|is_open| *is_open).await;
        if self.is_down.load(Ordering::SeqCst) {
            return Err(BackplaneError::Unavailable(
                "the archive is down".to_owned(),
            ));
        }
        let point = self.points.lock().get(room).cloned();
        Ok(point.unwrap_or_else(new_room))
    }
}

/// The restore point of a new room.
pub fn new_room() -> RestorePoint {
    RestorePoint {
        head: None,
        past: Vec::new(),
        watermark: 0,
        keep_entries: true,
        sends: Vec::new(),
    }
}

/// The restore point of a room that goes on from here in this epoch, all of it archived.
pub fn going_on(epoch: &str, seq: u64) -> RestorePoint {
    RestorePoint {
        head: Some(head(epoch, seq)),
        watermark: seq,
        keep_entries: false,
        ..new_room()
    }
}

pub fn head(epoch: &str, seq: u64) -> Head {
    Head {
        epoch: Epoch::trusted(epoch),
        seq,
    }
}
