//! Rows that announce changes of messages.

use std::collections::HashMap;

use super::*;
use crate::backplane::Pointer;
use crate::domain::{
    Emoji, Epoch, FormContent, MessageChangeKind, MessageForm, Reaction, Timestamp, Tombstone,
    UserId,
};
use crate::store::{ChangeRow, PublishedChange};

use MessageChangeKind::{Deleted, Edited, Pinned, ReactionsChanged};

/// The newest forms of messages, and the rows that are done.
struct Messages {
    outbox: Arc<Rows>,
    forms: Mutex<HashMap<u64, MessageForm>>,
    done: Mutex<Vec<PublishedChange>>,
    /// Forms of these messages can't be read.
    away: Mutex<HashSet<u64>>,
    broken: Mutex<HashSet<u64>>,
}

#[async_trait]
impl MessageCalls for Messages {
    async fn to_publish(&self, _: &RoomId, row: &ChangeRow) -> Result<Option<MessageForm>> {
        if self.away.lock().contains(&row.target_seq) {
            return Err(StoreError::Unavailable("on purpose".to_owned()));
        }
        if self.broken.lock().contains(&row.target_seq) {
            return Err(StoreError::Broken("damaged".to_owned()));
        }
        Ok(self.forms.lock().get(&row.target_seq).cloned())
    }

    async fn done(&self, published: &[PublishedChange]) -> Result<()> {
        let claims: Vec<Claim> = published.iter().map(|change| change.claim).collect();
        self.outbox.remove(&claims)?;
        for change in published {
            if change.kind.raises_version() {
                let mut forms = self.forms.lock();
                forms.get_mut(&change.row.target_seq).unwrap().version = change.seq;
            }
            self.done.lock().push(change.clone());
        }
        Ok(())
    }

    async fn published(&self, _: &RoomId, _: u64, _: u64) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// A form of a message with this number, which was never published.
fn form(seq: u64, text: &str) -> MessageForm {
    MessageForm {
        position: Head {
            epoch: Epoch::trusted("e1"),
            seq,
        },
        at: Timestamp(5),
        version: seq,
        edited_at: None,
        content: FormContent::Edited(format!("{{\"content\":\"{text}\"}}").into()),
        reactions: None,
    }
}

fn id_of_message(seq: u64) -> Uuid {
    Uuid::from_u128(1_000 + u128::from(seq))
}

fn change(id: OutboxId, kind: MessageChangeKind, target_seq: u64, revision: u64) -> OutboxRow {
    let row = ChangeRow {
        id: id_of_message(target_seq),
        target_seq,
        revision,
        user_id: (kind == Pinned).then(|| "ann".to_owned()),
    };
    OutboxRow {
        payload: serde_json::to_string(&row).unwrap(),
        ..row_of(id, kind)
    }
}

fn row_of(id: OutboxId, kind: MessageChangeKind) -> OutboxRow {
    row(id, kind.event())
}

struct Fixture {
    worker: Arc<Worker>,
    outbox: Arc<Rows>,
    messages: Arc<FakeMessages<Messages>>,
    log: Arc<TestLog>,
}

/// A worker for these rows. Messages 7 and 8 were changed.
fn fixture(rows: Vec<OutboxRow>, dedupe_ttl: Duration) -> Fixture {
    let (_, outbox, inner) = super::worker(rows, dedupe_ttl);
    let messages = Arc::new(FakeMessages(Messages {
        outbox: outbox.clone(),
        forms: Mutex::new(HashMap::from([(7, form(7, "a")), (8, form(8, "b"))])),
        done: Mutex::default(),
        away: Mutex::default(),
        broken: Mutex::default(),
    }));
    let log = Arc::new(TestLog::new(inner));
    let lifecycle = memory::embedded(BackplaneLimits::default()).lifecycle;
    let (store, forms) = (outbox.clone(), messages.clone());
    let id = Uuid::from_u128(1);
    let worker = Worker::new(store, forms, log.clone(), lifecycle, id, dedupe_ttl);
    Fixture {
        worker,
        outbox,
        messages,
        log,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

impl Fixture {
    /// The changes that were announced, in order.
    fn announced(&self) -> Vec<NewChange> {
        self.log.announced.lock().concat()
    }

    fn announced_form(&self, index: usize) -> MessageForm {
        let announced = self.announced();
        announced[index].amendment.as_ref().unwrap().form.clone()
    }

    fn done(&self) -> Vec<PublishedChange> {
        self.messages.0.done.lock().clone()
    }

    async fn publish(&self) {
        self.worker.publish_due().await.unwrap();
    }
}

#[tokio::test]
async fn a_change_is_rendered_when_it_is_published_and_not_when_it_is_claimed() {
    let test = fixture(vec![change(1, Pinned, 7, 3)], MINUTE);
    let rows = test.outbox.claim(10, LEASE).await.unwrap();
    let reaction = Reaction {
        emoji: Emoji::trusted("+1"),
        count: 1,
        users: vec![UserId::trusted("ann")],
    };
    let newest = MessageForm {
        reactions: Some(vec![reaction]),
        ..form(7, "newest")
    };
    test.messages.0.forms.lock().insert(7, newest.clone());
    let now = Instant::now();
    let lease_end = now + LEASE;
    test.worker
        .publish_to(&room(), rows, lease_end)
        .await
        .unwrap();

    let announced = test.announced();
    assert_eq!(announced.len(), 1);
    let pointer = Pointer::decode(&announced[0].record).unwrap();
    let expected = Pointer {
        kind: Pinned,
        entry_id: id_of(1),
        room: room(),
        id: id_of_message(7),
        target_seq: 7,
        user: Some(UserId::trusted("ann")),
    };
    assert_eq!(pointer, expected);
    assert_eq!(announced[0].id, id_of(1));
    let amendment = announced[0].amendment.as_ref().unwrap();
    assert_eq!(amendment.form, newest);
    assert!(!amendment.raises_version);

    let done = test.done();
    assert_eq!((done.len(), done[0].kind, done[0].seq), (1, Pinned, 1));
    assert_eq!(done[0].row.revision, 3);
    assert_eq!(done[0].reactions, newest.reactions);
    assert!(test.outbox.left().is_empty());
    assert_eq!(test.worker.published.get(), 1);
}

#[tokio::test]
async fn a_row_behind_an_edit_of_its_message_is_rendered_once_that_is_done() {
    let rows = vec![
        change(1, Edited, 7, 1),
        row(2, "session_ended"),
        change(3, Edited, 8, 1),
        change(4, Edited, 7, 2),
        change(5, Pinned, 8, 2),
        change(6, Pinned, 7, 3),
    ];
    let test = fixture(rows, MINUTE);
    test.publish().await;
    let calls: Vec<usize> = test.log.announced.lock().iter().map(Vec::len).collect();
    assert_eq!(calls, [3, 2, 1]);
    let ids: Vec<Uuid> = test.announced().iter().map(|change| change.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6].map(id_of));
    let versions = [0, 2, 3, 4, 5].map(|index| test.announced_form(index).version);
    assert_eq!(versions, [7, 8, 1, 3, 4]);
    let raises = |change: &NewChange| change.amendment.as_ref().map(|made| made.raises_version);
    let raises: Vec<_> = test.announced().iter().map(raises).collect();
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(raises, [yes, None, yes, yes, no, no]);
    assert!(test.outbox.left().is_empty());
    assert_eq!(test.worker.published.get(), 6);
}

#[tokio::test]
async fn any_second_row_of_a_message_is_rendered_once_the_first_is_done() {
    let rows = vec![
        change(1, ReactionsChanged, 7, 0),
        change(2, Pinned, 7, 1),
        change(3, Pinned, 8, 1),
    ];
    let test = fixture(rows, MINUTE);
    test.publish().await;
    let calls: Vec<usize> = test.log.announced.lock().iter().map(Vec::len).collect();
    assert_eq!(calls, [1, 2]);
}

#[tokio::test]
async fn an_edit_of_a_message_that_is_deleted_meanwhile_is_published_with_the_tombstone() {
    let test = fixture(
        vec![change(1, Edited, 7, 1), change(2, Deleted, 7, 2)],
        MINUTE,
    );
    let tombstone = FormContent::Deleted(Tombstone {
        id: id_of_message(7),
        room: room(),
        author: UserId::trusted("ann"),
        deleted_by: UserId::trusted("ann"),
        thread: None,
    });
    let deleted = MessageForm {
        content: tombstone.clone(),
        ..form(7, "")
    };
    test.messages.0.forms.lock().insert(7, deleted);
    test.publish().await;
    for index in 0..2 {
        assert_eq!(test.announced_form(index).content, tombstone);
    }
    let kinds: Vec<_> = test.done().iter().map(|done| done.kind).collect();
    assert_eq!(kinds, [Edited, Deleted]);
}

/// With 600 entries of others behind that of the first attempt. Once the log knows its key, and once it
/// must be searched for.
#[tokio::test(start_paused = true)]
async fn a_change_of_an_attempt_that_crashed_is_published_once_and_its_number_recorded() {
    for dedupe_ttl in [10 * MINUTE, Duration::from_millis(1)] {
        let test = fixture(vec![change(1, Edited, 7, 1)], dedupe_ttl);
        test.messages.0.forms.lock().get_mut(&7).unwrap().reactions = Some(Vec::new());
        *test.outbox.failures.lock() = usize::MAX;
        test.worker.publish_due().await.unwrap_err();
        *test.outbox.failures.lock() = 0;
        assert_eq!(test.log.announced.lock().len(), 1);
        NewEntryOfOthers(&*test.log.inner).append(600).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        // A second edit, which is claimed together with the first.
        test.outbox.rows.lock().push_back(change(2, Edited, 7, 2));
        for row in test.outbox.rows.lock().iter_mut() {
            row.tried_for = Duration::from_millis(10);
        }
        test.outbox.release();
        test.publish().await;
        assert!(test.outbox.left().is_empty());
        let done = test.done();
        let expected = [(1, None), (602, Some(Vec::new()))];
        let found: Vec<_> = done
            .iter()
            .map(|done| (done.seq, done.reactions.clone()))
            .collect();
        assert_eq!(found, expected, "{dedupe_ttl:?}");
        assert!(done[0].at <= done[1].at);
        // It was rendered with the version of the first.
        let last = test.announced().len() - 1;
        assert_eq!(test.announced_form(last).version, 1, "{dedupe_ttl:?}");
    }
}

#[tokio::test]
async fn a_form_that_cannot_be_read_now_postpones_its_row_and_those_behind() {
    let rows = vec![
        row(1, "session_ended"),
        change(2, Edited, 7, 1),
        row(3, "session_ended"),
    ];
    let test = fixture(rows, MINUTE);
    test.messages.0.away.lock().insert(7);
    test.publish().await;
    assert_eq!(test.announced().len(), 1);
    assert_eq!(test.outbox.left(), [2, 3]);
    assert_eq!(*test.outbox.postponed.lock(), [2, 3]);
    assert_eq!(test.worker.postponed.get(), 1);
    test.messages.0.away.lock().clear();
    test.outbox.release();
    test.publish().await;
    assert!(test.outbox.left().is_empty());
    assert_eq!(test.announced().len(), 3);
}

#[tokio::test]
async fn a_row_that_can_never_be_rendered_fails_and_holds_up_no_other() {
    let malformed = OutboxRow {
        payload: "{\"target_seq\":7}".to_owned(),
        ..row_of(2, Edited)
    };
    let rows = vec![
        row(1, "session_ended"),
        malformed,
        change(3, Edited, 7, 1),
        change(4, Pinned, 8, 1),
    ];
    let test = fixture(rows, MINUTE);
    test.messages.0.broken.lock().insert(7);
    test.publish().await;
    assert!(test.outbox.left().is_empty());
    let failed = test.outbox.failed.lock().clone();
    assert_eq!(failed.len(), 2);
    assert!(failed[0].contains("missing field"), "{failed:?}");
    assert_eq!(failed[1], "damaged");
    assert_eq!(test.announced().len(), 2);
    assert_eq!(
        (test.worker.failed.get(), test.worker.published.get()),
        (2, 2)
    );
}

#[tokio::test]
async fn a_row_without_a_message_is_done_and_announces_nothing() {
    let rows = vec![
        row(1, "session_ended"),
        change(2, Edited, 9, 1),
        change(3, Pinned, 8, 1),
    ];
    let test = fixture(rows, MINUTE);
    test.publish().await;
    assert!(test.outbox.left().is_empty());
    let ids: Vec<Uuid> = test.announced().iter().map(|change| change.id).collect();
    assert_eq!(ids, [1, 3].map(id_of));
    assert_eq!(test.done().len(), 1);
    assert_eq!(test.worker.published.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_are_notified_once_the_row_is_announced_and_once_it_is_recorded() {
    let test = fixture(vec![change(1, Edited, 7, 4)], MINUTE);
    *test.outbox.failures.lock() = 8;
    let (publications, room) = (test.worker.publications(), room());
    let began = Instant::now();
    let wait = async {
        let published = publications.wait(&room, 7, 4).await;
        (published, began.elapsed())
    };
    let wait_for_record = async {
        let published = publications.wait_for_earlier(&room, 7, 4).await;
        (published, began.elapsed())
    };
    let (announced, recorded, ()) = tokio::join!(wait, wait_for_record, test.publish());
    assert_eq!(announced, (Ok(1), Duration::ZERO));
    assert_eq!(recorded, (Ok(1), 8 * POLL_INTERVAL));
    assert!(test.outbox.left().is_empty());
}
