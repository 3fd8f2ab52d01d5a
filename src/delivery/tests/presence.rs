//! Changes of occupants, lists of occupants, and the status of watched users.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_large_room_publishes_only_its_number_until_it_is_small_again() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 2);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(Recorder::new);
    join(&delivery, &ann, ReplayFrom::Live).await;
    join(&delivery, &bob, ReplayFrom::Live).await;
    join(&delivery, &cid, ReplayFrom::Live).await;
    eventually("ann receives the number", || {
        ann.story().contains(&"users 0/3".to_owned())
    })
    .await;
    assert_eq!(ann.story(), ["users 1/1", "Joined bob", "users 0/3"]);
    delivery.leave(&room(), &cid.conn).await;
    backplane
        .presence
        .leave(&cid.conn, &cid.user, &room())
        .await
        .unwrap();
    eventually("ann receives the list", || ann.story().len() == 4).await;
    assert_eq!(ann.story().last().unwrap(), "users 2/2");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_receives_each_status_once_over_a_lossy_bus() {
    let backplane = lossy(50);
    let delivery = start(&backplane, 1, 500);
    let (ann, conn) = (UserId::trusted("ann"), ConnId::trusted("c"));
    let watcher = Recorder::new("watcher");
    delivery
        .watch(
            ann.clone(),
            watcher.clone(),
            Box::new(|status| assert!(!status.online)),
        )
        .await
        .unwrap();
    let name = Username::from(&ann);
    for _ in 0..20 {
        backplane
            .presence
            .connect(&conn, &ann, &name)
            .await
            .unwrap();
        backplane.presence.connection_lost(&conn, &ann, &[]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    eventually("all forty came", || watcher.story().len() == 41).await;
    let expected: Vec<_> = (0..41)
        .map(|n| format!("ann {} {}", n % 2 == 1, n == 0))
        .collect();
    assert_eq!(watcher.story(), expected);
    delivery.unwatch(&ann, &watcher.conn).await;
    backplane
        .presence
        .connect(&conn, &ann, &name)
        .await
        .unwrap();
    delivery
        .watch(
            ann,
            watcher.clone(),
            Box::new(|status| assert!(status.online)),
        )
        .await
        .unwrap();
    assert_eq!(
        watcher.story().len(),
        42,
        "changes between the two watches are not delivered"
    );
}

#[tokio::test(start_paused = true)]
async fn an_occupant_receives_no_change_that_its_list_already_contains() {
    // The bus carries nothing, so the feed learns of every change late, by comparison.
    let backplane = lossy(100);
    let delivery = start(&backplane, 1, 500);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(Recorder::new);
    for outlet in [&ann, &bob, &cid] {
        join(&delivery, outlet, ReplayFrom::Live).await;
    }
    eventually("ann is told of both", || {
        ann.story() == ["users 1/1", "Joined bob", "Joined cid"]
    })
    .await;
    assert_eq!(bob.story(), ["users 2/2", "Joined cid"]);
    assert_eq!(cid.story(), ["users 3/3"]);
}

#[tokio::test(start_paused = true)]
async fn an_occupant_that_presence_had_lost_receives_a_list_with_itself() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 500);
    let [ann, bob] = ["ann", "bob"].map(Recorder::new);
    join(&delivery, &ann, ReplayFrom::Live).await;
    join(&delivery, &bob, ReplayFrom::Live).await;
    // As when the lease of ann's node expires, and the node registers its connections again.
    let presence = &backplane.presence;
    presence.leave(&ann.conn, &ann.user, &room()).await.unwrap();
    presence
        .join(&ann.conn, &ann.user, &Username::from(&ann.user), &room())
        .await
        .unwrap();
    eventually("ann receives the list", || ann.story().len() == 3).await;
    assert_eq!(ann.story(), ["users 1/1", "Joined bob", "users 2/2"]);
    assert_eq!(
        bob.story(),
        ["users 2/2", "Left ann", "Joined ann", "users 2/2"]
    );
}
