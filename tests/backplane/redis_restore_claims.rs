//! Redis with an archive behind it: restores of one room by several nodes, and calls that wait for them.

use futures_util::future::join_all;
use hubbub::backplane::redis::connect;
use hubbub::backplane::{Appended, Backplane, RestorePoint};
use hubbub::domain::Epoch;

use crate::fixture::{DEADLINE, append_message, eventually, limits, message, settings};
use crate::hot_log::{append_many, span};
use crate::redis_archive::start;
use crate::restore_source::{Source, going_on, head};
use hubbub_test_support::server::RedisServer;

const CLAIM: &str = "hubbub:{c85}restore:bG9iYnk";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_restore_a_room_once() {
    let server = RedisServer::start();
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.set("lobby", going_on("e1", 7));
    second.set("lobby", going_on("e2", 9));
    first.block();
    let append = |node: &Backplane| {
        let node = node.clone();
        tokio::spawn(async move { append_message(&node, "lobby", "hi").await })
    };
    let on_first = append(&one);
    first.wait_for_calls("lobby", 1).await;
    server.cli(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    let on_second = append(&two);
    // Sentinel: the second node has tried to claim the room. The last argument of that call is the time
    // that the claim lasts.
    eventually(DEADLINE, "the second node finds the claim", async || {
        server
            .cli(&["SLOWLOG", "GET", "-1"])
            .contains("\n10000\n")
            .then_some(())
    })
    .await;
    first.open();
    let mut positions = [on_first.await.unwrap(), on_second.await.unwrap()]
        .map(|appended| (appended.seq, appended.epoch));
    positions.sort();
    let epoch = Epoch::trusted("e1");
    assert_eq!(positions, [(8, epoch.clone()), (9, epoch)]);
    assert!(second.calls("lobby").is_empty());
    assert_eq!(server.cli(&["EXISTS", CLAIM]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_outlives_its_claim_changes_nothing() {
    let server = RedisServer::start();
    // A room from before the archive: its state doesn't show that it was restored meanwhile.
    let before = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    let epoch = append_many(&before, "lobby", 3).await;
    before.lifecycle.stop().await;
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.set("lobby", going_on("e1", 7));
    first.block();
    let paused = {
        let one = one.clone();
        tokio::spawn(async move { append_message(&one, "lobby", "late").await })
    };
    first.wait_for_calls("lobby", 1).await;
    // As if the claim had expired.
    assert_eq!(server.cli(&["DEL", CLAIM]), "1");
    assert_eq!(span(&two, "lobby").await.head, head(epoch.as_str(), 3));
    first.open();
    let late = paused.await.unwrap();
    assert_eq!((late.seq, late.epoch), (4, epoch));
    assert_eq!(first.calls("lobby").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_restore_gives_its_claim_up() {
    let server = RedisServer::start();
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.set_down(true);
    let refused = one.log.append(&message("lobby", "ann", "hi"), None).await;
    assert!(refused.is_err());
    assert_eq!(server.cli(&["EXISTS", CLAIM]), "0");
    assert_eq!(append_message(&two, "lobby", "hi").await.seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rooms_of_a_call_do_not_wait_for_a_restore() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    append_message(&node, "lobby", "known").await;
    source.block();
    let messages: Vec<_> = (0..40)
        .map(|n| message(["lobby", "attic"][n % 2], "ann", &n.to_string()))
        .collect();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (n, message) in messages.iter().enumerate() {
        let append = node.log.append(message, None);
        if n % 2 == 0 { &mut known } else { &mut unknown }.push(append);
    }
    let mut unknown = Box::pin(join_all(unknown));
    // The first poll begins the appends.
    assert!(futures_util::poll!(&mut unknown).is_pending());
    let known = join_all(known).await;
    let numbers = |appended: Vec<hubbub::backplane::Result<Appended>>| -> Vec<u64> {
        appended
            .into_iter()
            .map(|appended| appended.unwrap().seq)
            .collect()
    };
    assert_eq!(numbers(known), (2..=21).collect::<Vec<_>>());
    assert!(futures_util::poll!(&mut unknown).is_pending());
    source.open();
    assert_eq!(numbers(unknown.await), (1..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_keep_their_order_when_another_node_restores_the_room() {
    let server = RedisServer::start();
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.block();
    let messages: Vec<_> = (0..100)
        .map(|n| message("lobby", "ann", &n.to_string()))
        .collect();
    let mut begun = Vec::new();
    for message in &messages[..50] {
        let mut append = Box::pin(one.log.append(message, None));
        assert!(futures_util::poll!(&mut append).is_pending());
        begun.push(append);
    }
    first.wait_for_calls("lobby", 1).await;
    // The room can be used now, and the first node doesn't know it yet.
    server.cli(&["DEL", CLAIM]);
    assert_eq!(append_message(&two, "lobby", "hi").await.seq, 1);
    for message in &messages[50..] {
        let mut append = Box::pin(one.log.append(message, None));
        assert!(futures_util::poll!(&mut append).is_pending());
        begun.push(append);
    }
    first.open();
    let numbers: Vec<_> = join_all(begun)
        .await
        .into_iter()
        .map(|sent| sent.unwrap().seq)
        .collect();
    assert_eq!(numbers, (2..=101).collect::<Vec<_>>());
}

/// Leaves a room with several pages of unarchived entries, which must be restored.
async fn leave_stale_room(server: &RedisServer, node: &Backplane) -> Epoch {
    let message = message("lobby", "ann", "hi");
    let appends = join_all((0..1200).map(|_| node.log.append(&message, None))).await;
    assert_eq!(server.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    appends[0].as_ref().unwrap().epoch.clone()
}

fn keeping_entries(epoch: &str) -> RestorePoint {
    RestorePoint {
        watermark: 1000,
        keep_entries: true,
        ..going_on(epoch, 1200)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_page_of_a_restore_renews_its_claim() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    leave_stale_room(&server, &node).await;
    source.set("lobby", keeping_entries("e2"));
    source.allow_pages(0);
    let restored = {
        let node = node.clone();
        tokio::spawn(async move { append_message(&node, "lobby", "new").await.seq })
    };
    for page in 1..=3 {
        source.wait_for_pages("lobby", page).await;
        let left = crate::redis_archive::ttl(&server, CLAIM);
        assert!((8_000..=10_000).contains(&left), "page {page}: {left}");
        assert_eq!(server.cli(&["PEXPIRE", CLAIM, "5000"]), "1");
        source.allow_pages(1);
    }
    assert_eq!(restored.await.unwrap(), 1201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_whose_claim_has_ended_reads_no_further() {
    let server = RedisServer::start();
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    leave_stale_room(&server, &one).await;
    first.set("lobby", keeping_entries("e2"));
    second.set("lobby", keeping_entries("e3"));
    first.allow_pages(0);
    let paused = {
        let one = one.clone();
        tokio::spawn(async move { append_message(&one, "lobby", "late").await })
    };
    first.wait_for_pages("lobby", 1).await;
    // As if the claim had expired.
    assert_eq!(server.cli(&["DEL", CLAIM]), "1");
    assert_eq!(span(&two, "lobby").await.head, head("e3", 1200));
    first.allow_pages(1);
    let late = paused.await.unwrap();
    assert_eq!((late.seq, late.epoch.as_str()), (1201, "e3"));
    assert_eq!(first.pages("lobby").len(), 1);
    assert_eq!(
        first.calls("lobby").len(),
        2,
        "the room's begin, and this one"
    );
}
