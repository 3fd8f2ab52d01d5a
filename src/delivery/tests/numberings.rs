//! Feeds across several numberings: what is kept from older ones is handed on once, and nobody is told of a break twice.

use super::*;

/// A member that is live and has the first five messages.
async fn live(delivery: &Delivery, log: &FakeLog) -> Arc<Recorder> {
    let ann = Recorder::new("ann");
    join(delivery, &ann, Start::Live).await;
    for seq in 1..=5 {
        delivery.queues.event(BusEvent::Message(room(), log.say(seq)));
    }
    eventually("ann is live", || ann.seqs().len() == 5).await;
    ann
}

#[tokio::test(start_paused = true)]
async fn messages_kept_from_forgotten_numberings_come_once() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery, &log).await;
    // Four numberings while the feed hears nothing, each longer than a page; of the older ones nothing is known but what
    // they gave to their messages.
    for (number, end) in [1200, 2400, 3600, 4800].into_iter().enumerate() {
        (end - 1199..=end).filter(|seq| *seq > 5).for_each(|seq| drop(log.say(seq)));
        log.roll_back(end, &format!("e{}", number + 2));
    }
    log.forget_before(4800);
    log.say(4801);
    eventually("ann has all", || ann.seqs().last() == Some(&4801)).await;
    assert_eq!(ann.seqs(), (1..=4801).collect::<Vec<_>>());
    let resets: Vec<_> = ann.story().into_iter().filter(|event| event.starts_with("reset")).collect();
    assert_eq!(resets, ["reset e5 5.. None"]);
}
