//! Tests of the feeds on backplanes that lose events, trim logs and change epochs on purpose.

mod archive;
mod epochs;
mod fixture;
mod flow;
mod long_logs;
mod messages;
mod presence;
mod random;
mod requests;
mod resets;
mod storm;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::*;
use crate::backplane::{
    Appended, BackplaneLimits, Bus, BusEvent, BusSink, Result, RoomLog, Slice, Traces, Window,
    memory,
};
use crate::domain::{
    Epoch, Head, Limits, LogSpan, MessageFields, NewMessage, OnlineStatus, Timestamp,
};
use fixture::{FakeLog, FakePresence, LossyBus, Recorder};

fn start(backplane: &Backplane, workers: usize, room_events: u64) -> Delivery {
    Delivery::start(
        backplane,
        &DeliverySettings {
            workers,
            room_events,
            ..DeliverySettings::default()
        },
    )
}

fn room() -> RoomId {
    RoomId::trusted("room")
}

/// An embedded backplane with a bus that loses so many of 100 events.
fn lossy(lost: u64) -> Backplane {
    let inner = memory::embedded(BackplaneLimits {
        history_size: 100_000,
        ..BackplaneLimits::default()
    });
    Backplane {
        bus: Arc::new(LossyBus {
            inner: inner.bus.clone(),
            lost,
        }),
        ..inner
    }
}

/// An embedded backplane with a fake log.
fn fake() -> (Backplane, Arc<FakeLog>) {
    let inner = lossy(0);
    let head = Head {
        epoch: Epoch::trusted("e1"),
        seq: 0,
    };
    let span = LogSpan::of_log(head, 1, Vec::new());
    let log = Arc::new(FakeLog {
        state: Mutex::new((Vec::new(), span)),
        presence_hangs: AtomicBool::new(false),
    });
    let presence = Arc::new(FakePresence(inner.presence.clone(), log.clone()));
    (
        Backplane {
            log: log.clone(),
            presence,
            ..inner
        },
        log,
    )
}

async fn join(delivery: &Delivery, outlet: &Arc<Recorder>, start: ReplayFrom) -> JoinOutcome {
    let (acknowledge, acknowledged) = oneshot::channel();
    let on_joined = Box::new(move |outcome: &JoinOutcome| drop(acknowledge.send(outcome.clone())));
    let username = Username::from(&outlet.user);
    delivery
        .join(room(), outlet.clone(), username, start, on_joined)
        .await
        .unwrap();
    acknowledged.await.unwrap()
}

/// Appends a message, and returns its `seq`.
async fn say(backplane: &Backplane, text: &str) -> u64 {
    let fields = MessageFields {
        content: text.into(),
        ..MessageFields::default()
    };
    let user = UserId::trusted("sender");
    let name = Username::from(&user);
    let message = NewMessage::new(room(), user, name, fields, &Limits::default()).unwrap();
    backplane.log.append(&message, None).await.unwrap().seq
}

/// Waits until the check is true. The clock is paused, so waiting takes no time.
async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
