//! An outlet that records, a bus that loses events, and a log that tests fill, trim and roll back.

use super::*;
use crate::backplane::NewChange;

/// An outlet that records what it receives, and can be made to have no capacity.
pub(super) struct Recorder {
    pub conn: ConnId,
    pub user: UserId,
    pub seen: Mutex<Vec<Event>>,
    pub full: AtomicBool,
    pub wakers: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    pub closed: AtomicBool,
}

impl Recorder {
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            conn: ConnId::trusted(&format!("conn-{name}")),
            user: UserId::trusted(name),
            seen: Mutex::default(),
            full: AtomicBool::new(false),
            wakers: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    pub fn seqs(&self) -> Vec<u64> {
        let seq = |event: &Event| {
            if let Event::Message(entry) = event {
                Some(entry.seq)
            } else {
                None
            }
        };
        self.seen.lock().iter().filter_map(seq).collect()
    }

    /// Short names of all received events, in order.
    pub fn story(&self) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Message(entry) => format!("{}", entry.seq),
            Event::RoomUsers { users, total, .. } => format!("users {}/{total}", users.len()),
            Event::RoomChanged(_, change) => format!("{:?} {}", change.kind, change.user),
            Event::Typing(typing) => format!("typing {}", typing.user),
            Event::Receipt(receipt) => format!("receipt {}", receipt.user),
            Event::OnlineStatus { status, initial } => {
                format!("{} {} {initial}", status.user, status.online)
            }
            Event::RoomReset {
                head, lost_from, ..
            } => format!("reset {} {}.. {lost_from:?}", head.epoch, head.seq),
        };
        self.seen.lock().iter().map(name).collect()
    }

    pub fn drain(&self) {
        self.full.store(false, Ordering::SeqCst);
        for wake in self.wakers.lock().drain(..) {
            wake();
        }
    }
}

impl Outlet for Recorder {
    fn conn(&self) -> &ConnId {
        &self.conn
    }
    fn user(&self) -> &UserId {
        &self.user
    }
    fn deliver(&self, event: &SharedEvent) {
        self.seen.lock().push(event.event().clone());
    }
    fn has_capacity(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }
    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.wakers.lock().push(wake);
    }
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
    fn close(&self, _: CloseReason) {
        self.closed.store(true, Ordering::SeqCst);
        self.drain();
    }
}

/// A bus that silently loses some of its events.
pub(super) struct LossyBus {
    pub inner: Arc<dyn Bus>,
    /// Of 100 events, how many are lost.
    pub lost: u64,
}

pub(super) struct LossySink {
    pub inner: Arc<dyn BusSink>,
    pub lost: u64,
    pub random: AtomicU64,
}

impl BusSink for LossySink {
    fn event(&self, event: BusEvent) {
        // A linear congruential generator loses the same events in every run.
        let next = |state: u64| {
            Some(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        };
        let state = self
            .random
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
            .unwrap();
        if (state >> 33) % 100 >= self.lost {
            self.inner.event(event);
        }
    }
    fn interrupted(&self, topic: Option<BusTopic>) {
        self.inner.interrupted(topic);
    }
}

#[async_trait]
impl Bus for LossyBus {
    fn deliver_to(&self, sink: Arc<dyn BusSink>) {
        let random = AtomicU64::new(42);
        self.inner.deliver_to(Arc::new(LossySink {
            inner: sink,
            lost: self.lost,
            random,
        }));
    }
    async fn subscribe(&self, topic: &BusTopic) -> Result<()> {
        self.inner.subscribe(topic).await
    }
    async fn unsubscribe(&self, topic: &BusTopic) {
        self.inner.unsubscribe(topic).await;
    }
    async fn publish_receipt(
        &self,
        receipt: &crate::backplane::ReadReceipt,
    ) -> crate::backplane::Result<()> {
        self.inner.publish_receipt(receipt).await
    }

    async fn publish_typing(&self, typing: &Typing) -> Result<()> {
        self.inner.publish_typing(typing).await
    }
    async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
        self.inner.publish_disconnect(user).await
    }
}

/// A log that tests fill, trim and roll back.
pub(super) struct FakeLog {
    pub state: Mutex<(Vec<Entry>, LogSpan)>,
    /// Makes [`FakePresence`] never return versions.
    pub presence_hangs: AtomicBool,
}

impl FakeLog {
    /// Adds a message, and returns it without publishing it.
    pub fn add(&self, seq: u64) -> Entry {
        let (entries, span) = &mut *self.state.lock();
        let entry = Entry {
            seq,
            epoch: span.head.epoch.clone(),
            at: Timestamp(0),
            kind: EntryKind::Message,
            record: "{}".into(),
        };
        entries.push(entry.clone());
        span.head.seq = seq;
        entry
    }

    /// Loses the messages after `end`, and begins a new epoch there.
    pub fn roll_back(&self, end: u64, epoch: &str) {
        let (entries, span) = &mut *self.state.lock();
        entries.retain(|entry| entry.seq <= end);
        let old = std::mem::replace(
            &mut span.head,
            Head {
                epoch: Epoch::trusted(epoch),
                seq: end,
            },
        );
        span.past.insert(0, Head { seq: end, ..old });
        for past in &mut span.past {
            past.seq = past.seq.min(end);
        }
    }

    /// Loses everything, and begins a new epoch.
    pub fn lose_all(&self, epoch: &str) {
        let head = Head {
            epoch: Epoch::trusted(epoch),
            seq: 0,
        };
        *self.state.lock() = (Vec::new(), LogSpan::of_log(head, 1, Vec::new()));
    }

    /// Forgets the epochs that ended before `end`.
    pub fn forget_before(&self, end: u64) {
        let (_, span) = &mut *self.state.lock();
        span.past.retain(|head| head.seq >= end);
    }

    /// Forgets the epoch, and where it ended.
    pub fn forget(&self, epoch: &str) {
        self.state
            .lock()
            .1
            .past
            .retain(|head| head.epoch.as_str() != epoch);
    }

    pub fn trim(&self, oldest: u64) {
        let (entries, span) = &mut *self.state.lock();
        entries.retain(|entry| entry.seq >= oldest);
        (span.oldest, span.recent, span.first) = (oldest, oldest, oldest);
    }
}

#[async_trait]
impl RoomLog for FakeLog {
    async fn append(&self, _: &NewMessage, _: Option<&str>) -> Result<Appended> {
        unreachable!("tests write with `FakeLog::add`")
    }
    async fn announce_all(&self, room: &RoomId, _: &[NewChange]) -> (Vec<Appended>, Result<()>) {
        unreachable!("tests write with `FakeLog::add`: {room}")
    }

    async fn read(&self, _: &RoomId, window: Window, limit: usize, _: usize) -> Result<Slice> {
        let (entries, span) = &*self.state.lock();
        let entries = match window {
            Window::After(after) => entries
                .iter()
                .filter(|entry| entry.seq > after)
                .take(limit)
                .cloned()
                .collect(),
            Window::Before(before) => {
                let from = entries
                    .iter()
                    .filter(|entry| entry.seq < before)
                    .count()
                    .saturating_sub(limit);
                entries
                    .iter()
                    .skip(from)
                    .filter(|entry| entry.seq < before)
                    .cloned()
                    .collect()
            }
            Window::Newest => unreachable!("feeds request a position"),
        };
        Ok(Slice {
            entries,
            span: span.clone(),
            traces: Traces::default(),
        })
    }
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        Ok(rooms
            .iter()
            .map(|_| Some(self.state.lock().1.head.clone()))
            .collect())
    }
}

/// The embedded backplane's presence, with the fake log's span in every join.
pub(super) struct FakePresence(pub Arc<dyn crate::backplane::Presence>, pub Arc<FakeLog>);

#[async_trait]
impl crate::backplane::Presence for FakePresence {
    async fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Result<()> {
        self.0.connect(conn, user, username).await
    }
    async fn join(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        room: &RoomId,
    ) -> Result<crate::backplane::Joined> {
        let joined = self.0.join(conn, user, username, room).await?;
        Ok(crate::backplane::Joined {
            span: self.1.state.lock().1.clone(),
            ..joined
        })
    }
    async fn leave(&self, conn: &ConnId, user: &UserId, room: &RoomId) -> Result<()> {
        self.0.leave(conn, user, room).await
    }
    async fn connection_lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) {
        self.0.connection_lost(conn, user, rooms).await;
    }
    async fn roster(&self, room: &RoomId, limit: usize) -> Result<crate::backplane::Roster> {
        self.0.roster(room, limit).await
    }
    async fn members(
        &self,
        r: &RoomId,
        a: Option<&UserId>,
        l: usize,
    ) -> Result<crate::backplane::OccupantPage> {
        self.0.members(r, a, l).await
    }
    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        self.0.is_occupant(room, user).await
    }
    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>> {
        self.0.connections(user).await
    }
    async fn room_changes(
        &self,
        r: &RoomId,
        v: u64,
    ) -> Result<crate::backplane::Changes<crate::domain::RoomChange>> {
        self.0.room_changes(r, v).await
    }
    async fn status(&self, user: &UserId) -> Result<OnlineStatus> {
        self.0.status(user).await
    }
    async fn status_changes(
        &self,
        user: &UserId,
        v: u64,
    ) -> Result<crate::backplane::Changes<OnlineStatus>> {
        self.0.status_changes(user, v).await
    }
    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>> {
        if self.1.presence_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.versions(topics).await
    }
}
