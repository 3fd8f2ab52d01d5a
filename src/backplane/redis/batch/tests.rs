//! Tests of series of appends.

use super::*;

fn append(series: &Arc<AtomicBool>) -> (QueuedAppend, oneshot::Receiver<Result<Appended>>) {
    let (reply, outcome) = oneshot::channel();
    let room = RoomId::trusted("room");
    let append = QueuedAppend {
        since: Instant::now(),
        rounds: None,
        partition: Partition::of_room(&room),
        room: encode_name(room.as_str()),
        permanent: false,
        is_reply: false,
        send: String::new(),
        id: Uuid::new_v4(),
        record: Bytes::from_static(b"{}"),
        is_series_refused: Some(series.clone()),
        reply,
    };
    (append, outcome)
}

#[tokio::test]
async fn appends_behind_one_of_their_series_that_was_refused_are_refused() {
    let series = Arc::new(AtomicBool::new(false));
    let mut queue = AppendQueue::default();
    let mut outcomes = Vec::new();
    for _ in 0..=MAX_BATCH_MESSAGES {
        let (append, outcome) = append(&series);
        queue.bytes += append.record.len();
        queue.appends.push_back(append);
        outcomes.push(outcome);
    }
    let batch = next_batch(&mut queue).unwrap();
    assert_eq!(batch.len(), MAX_BATCH_MESSAGES);
    for append in batch {
        append.complete(Err(BackplaneError::Full));
    }
    // Redis may accept the next call.
    assert!(next_batch(&mut queue).is_none());
    assert_eq!(queue.bytes, 0);
    let last = outcomes.pop().unwrap().await.unwrap();
    assert!(matches!(last, Err(BackplaneError::Unavailable(_))));
}
