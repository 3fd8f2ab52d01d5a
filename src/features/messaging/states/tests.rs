//! Pages and the store: whether it is asked, and what its answer changes.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use super::*;
use crate::backplane::{
    AnnouncedForms, Appended, Backplane, BackplaneLimits, EntryKind, NewChange, Result, RoomLog,
    Slice, Traces, Window, memory,
};
use crate::delivery::{Delivery, DeliverySettings};
use crate::domain::policy::{self, Permit, Reading, Relation, RoomScope};
use crate::domain::{
    FormContent, Head, Limits, MessageFields, MessageForm, NewMessage, UserId, Username,
};
use crate::features::messaging::HistoryWindow;
use crate::store::testing::{FakeMessages, MessageCalls};
use crate::store::{Deletion, Unrecorded};

/// The embedded log, with these traces and forms.
struct Log {
    log: Arc<dyn RoomLog>,
    traces: Mutex<Option<Traces>>,
    announced: Mutex<AnnouncedForms>,
}

#[async_trait]
impl RoomLog for Log {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.log.append(message, key).await
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.log.announce_all(room, changes).await
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        let mut slice = self.log.read(room, window, limit, max_bytes).await?;
        if let Some(traces) = *self.traces.lock() {
            slice.traces = traces;
        }
        Ok(slice)
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.log.heads(rooms).await
    }

    async fn expect_changes(&self, room: &RoomId) -> Result<()> {
        self.log.expect_changes(room).await
    }

    async fn announced_forms(&self, _: &RoomId, _: &[u64]) -> Result<AnnouncedForms> {
        Ok(self.announced.lock().clone())
    }
}

/// The states, and the requests for them. Never answers without states.
#[derive(Default)]
struct Store {
    states: Mutex<Option<Vec<(u64, MessageState)>>>,
    requests: Mutex<Vec<(RangeInclusive<u64>, bool)>>,
}

#[async_trait]
impl MessageCalls for Arc<Store> {
    async fn states(
        &self,
        seqs: RangeInclusive<u64>,
        has_threads: bool,
    ) -> crate::store::Result<Vec<(u64, MessageState)>> {
        self.requests.lock().push((seqs, has_threads));
        let states = self.states.lock().clone();
        match states {
            Some(states) => Ok(states),
            None => std::future::pending().await,
        }
    }
}

struct Scene {
    messaging: Messaging,
    log: Arc<Log>,
    store: Arc<Store>,
}

fn room() -> RoomId {
    RoomId::trusted("lobby")
}

impl Scene {
    /// A room with three messages.
    async fn new() -> Self {
        let embedded = memory::embedded(BackplaneLimits::default());
        let log = Arc::new(Log {
            log: embedded.log.clone(),
            traces: Mutex::default(),
            announced: Mutex::default(),
        });
        let backplane = Backplane {
            log: log.clone(),
            ..embedded
        };
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let scene = Self {
            messaging: Messaging::new(backplane, delivery, Limits::default()),
            log,
            store: Arc::new(Store::default()),
        };
        for _ in 0..3 {
            scene.send(None).await;
        }
        scene
    }

    async fn send(&self, thread: Option<Uuid>) {
        let fields = MessageFields {
            content: "secret".into(),
            thread,
            ..MessageFields::default()
        };
        let user = UserId::trusted("ann");
        let name = Username::from(&user);
        let message = NewMessage::new(room(), user, name, fields, &Limits::default());
        self.log.append(&message.unwrap(), None).await.unwrap();
    }

    fn answers(&self, states: Vec<(u64, MessageState)>) {
        *self.store.states.lock() = Some(states);
    }

    async fn page(&self) -> HistoryPage {
        let permit: Permit<Reading> =
            policy::may_read(&RoomScope::Everywhere, Relation::Service, &room(), None).unwrap();
        let window = HistoryWindow::Newest;
        let read = self.messaging.read(&permit, window, 2, usize::MAX).await;
        let mut page = read.unwrap();
        let store = FakeMessages(self.store.clone());
        self.messaging
            .add_states(&store, &room(), &mut page)
            .await
            .unwrap();
        page
    }

    fn requests(&self) -> Vec<(RangeInclusive<u64>, bool)> {
        std::mem::take(&mut *self.store.requests.lock())
    }
}

#[tokio::test]
async fn the_store_is_asked_only_if_the_messages_may_have_a_state() {
    let scene = Scene::new().await;
    scene.answers(Vec::new());
    assert_eq!(scene.page().await.head.seq, 3);
    assert_eq!(scene.requests(), []);
    scene.send(Some(Uuid::nil())).await;
    scene.page().await;
    assert_eq!(scene.requests(), [(3..=4, true)]);
    for _ in 0..2 {
        scene.send(None).await;
    }
    scene.page().await;
    assert_eq!(scene.requests(), [], "the reply comes before the page");
    scene.log.expect_changes(&room()).await.unwrap();
    scene.page().await;
    assert_eq!(scene.requests(), [(5..=6, false)]);
}

#[tokio::test]
async fn messages_that_the_log_has_trimmed_may_have_any_state() {
    let scene = Scene::new().await;
    scene.answers(Vec::new());
    let traces = |oldest| Traces {
        oldest,
        watermark: u64::MAX,
        ..Traces::default()
    };
    for (oldest, requests) in [(2, vec![]), (3, vec![(2..=3, true)])] {
        *scene.log.traces.lock() = Some(traces(oldest));
        scene.page().await;
        assert_eq!(scene.requests(), requests);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_page_reflects_its_first_message() {
    let scene = Scene::new().await;
    scene.log.expect_changes(&room()).await.unwrap();
    let began = tokio::time::Instant::now();
    let page = scene.page().await;
    assert_eq!((page.head.seq, page.entries.len()), (2, 2));
    assert!(began.elapsed() <= STATE_TIMEOUT + Duration::from_millis(1));
}

#[tokio::test]
async fn a_page_with_a_thread_reflects_no_reply_that_is_not_archived() {
    let scene = Scene::new().await;
    scene.answers(Vec::new());
    for (last_reply, watermark, expected) in [(3, 2, 2), (3, 3, 3), (2, 1, 3)] {
        *scene.log.traces.lock() = Some(Traces {
            oldest: 1,
            has_changes: false,
            last_reply,
            watermark,
        });
        assert_eq!(
            scene.page().await.head.seq,
            expected,
            "{last_reply} {watermark}"
        );
    }
}

#[tokio::test]
async fn a_deletion_that_is_not_announced_removes_the_content() {
    let scene = Scene::new().await;
    scene.log.expect_changes(&room()).await.unwrap();
    let deletion = Deletion {
        by: UserId::trusted("bob"),
        thread: None,
        version: 3,
    };
    let state = MessageState {
        unrecorded: Unrecorded {
            reactions: false,
            revision: true,
        },
        deletion: Some(deletion),
        ..MessageState::default()
    };
    scene.answers(vec![(3, state)]);
    let page = scene.page().await;
    let kinds: Vec<EntryKind> = page.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Message, EntryKind::Change]);
    let record = String::from_utf8(page.entries[1].record.to_vec()).unwrap();
    assert!(record.contains("message_deleted") && !record.contains("secret"));
    assert_eq!(page.head.seq, 3);
}

#[tokio::test]
async fn changes_that_are_not_recorded_get_numbers_that_announcements_do_not_exceed() {
    let scene = Scene::new().await;
    scene.log.expect_changes(&room()).await.unwrap();
    let state = |reactions, revision| MessageState {
        reactions: Some((Vec::new(), 2)),
        pinned: Some((true, 2)),
        unrecorded: Unrecorded {
            reactions,
            revision,
        },
        ..MessageState::default()
    };
    for (reactions, revision, numbers) in [
        (false, false, (2, 2)),
        (true, false, (3, 2)),
        (false, true, (2, 3)),
    ] {
        scene.answers(vec![(2, state(reactions, revision))]);
        let page = scene.page().await;
        let state = &page.states[&2];
        let found = (state.reactions.as_ref().unwrap().1, state.pinned.unwrap().1);
        assert_eq!(found, numbers);
        assert_eq!(page.head.seq, 3);
    }
}

#[tokio::test]
async fn the_version_is_that_of_the_announcement_or_the_page_reflects_less() {
    let scene = Scene::new().await;
    scene.log.expect_changes(&room()).await.unwrap();
    let state = MessageState {
        unrecorded: Unrecorded {
            reactions: false,
            revision: true,
        },
        ..MessageState::default()
    };
    scene.answers(vec![(2, state)]);
    let entry = scene.page().await.entries.remove(0);
    let form = MessageForm {
        position: Head {
            epoch: entry.epoch.clone(),
            seq: 2,
        },
        at: entry.at,
        version: 3,
        edited_at: Some(entry.at),
        content: FormContent::Edited(entry.record.clone()),
        reactions: None,
    };
    let announced = |forms: Vec<MessageForm>, oldest| AnnouncedForms {
        forms: forms.into_iter().map(|form| (2, form)).collect(),
        oldest,
    };
    for (known, kind, as_of) in [
        (announced(vec![form], 9), EntryKind::Amended, 3),
        // Not announced yet.
        (announced(vec![], 3), EntryKind::Message, 3),
        // Or announced and trimmed.
        (announced(vec![], 4), EntryKind::Message, 2),
    ] {
        *scene.log.announced.lock() = known;
        let page = scene.page().await;
        assert_eq!((page.entries[0].kind, page.head.seq), (kind, as_of));
    }
}
