//! The promises of presence, which hold for every backplane.

use futures_util::stream::{self, StreamExt};
use hubbub::backplane::{Backplane, BackplaneError, BackplaneLimits, BusEvent, BusTopic, Changes};
use hubbub::domain::{ChangeKind, Limits, OnlineStatus, RoomChange};

use crate::fixture::{
    DEADLINE, Fixture, GRACE, Recorder, conn, connect_and_join, eventually, limits, name, room,
    user,
};

/// The membership changes among the events: kind, user and total of each.
pub fn room_changes(events: &[BusEvent]) -> Vec<(ChangeKind, String, u64)> {
    let changes = events.iter().filter_map(|event| match event {
        BusEvent::RoomChanged(_, change) => {
            Some((change.kind, change.user.to_string(), change.total))
        }
        _ => None,
    });
    changes.collect()
}

/// The status changes among the events.
pub fn statuses(events: &[BusEvent]) -> Vec<OnlineStatus> {
    let changes = events.iter().filter_map(|event| match event {
        BusEvent::StatusChanged(status) => Some(status.clone()),
        _ => None,
    });
    changes.collect()
}

/// Waits until the user has left the room.
pub async fn wait_until_left(node: &Backplane, room_id: &str, user_id: &str) {
    eventually(DEADLINE, "the user leaves the room", async || {
        (!node
            .presence
            .is_occupant(&room(room_id), &user(user_id))
            .await
            .unwrap())
        .then_some(())
    })
    .await;
}

/// Waits until the user is offline.
pub async fn wait_until_offline(node: &Backplane, user_id: &str) -> OnlineStatus {
    eventually(DEADLINE, "the user goes offline", async || {
        Some(node.presence.status(&user(user_id)).await.unwrap()).filter(|status| !status.online)
    })
    .await
}

pub async fn a_user_with_two_connections_joins_and_leaves_once(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    assert_eq!(
        connect_and_join(&node, "ann", "c2", "lobby")
            .await
            .roster
            .total,
        1
    );
    connect_and_join(&node, "bob", "c3", "lobby").await;
    for conn_id in ["c1", "c1", "c2", "c2"] {
        node.presence
            .leave(&conn(conn_id), &user("ann"), &room("lobby"))
            .await
            .unwrap();
    }
    let events = recorder.events_until_sentinel(&node, "lobby").await;
    let expected = [
        (ChangeKind::Joined, "ann".to_owned(), 1),
        (ChangeKind::Joined, "bob".to_owned(), 2),
        (ChangeKind::Left, "ann".to_owned(), 1),
    ];
    assert_eq!(room_changes(&events), expected);
    assert!(
        !node
            .presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("bob"))
            .await
            .unwrap()
    );
    assert!(
        node.presence.status(&user("ann")).await.unwrap().online,
        "a user that leaves a room stays online"
    );
}

pub async fn a_join_returns_a_roster_with_the_joiner(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    crate::fixture::append_message(&node, "lobby", "hi").await;
    let joined = connect_and_join(&node, "ann", "c1", "lobby").await;
    assert_eq!((joined.span.head.seq, joined.span.oldest), (1, 1));
    assert_eq!(
        (joined.roster.users, joined.roster.total),
        (vec![user("ann")], 1)
    );
    let again = connect_and_join(&node, "ann", "c1", "lobby").await;
    assert_eq!(
        (again.roster.version, again.roster.total),
        (joined.roster.version, 1)
    );
    let other = connect_and_join(&node, "bob", "c2", "lobby").await;
    assert!(other.roster.version > joined.roster.version);
    assert_eq!(other.span, joined.span);
}

pub async fn a_lost_connection_counts_until_its_grace_ends(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(
        &node,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    let joined = connect_and_join(&node, "ann", "c1", "lobby").await;
    let begun = std::time::Instant::now();
    node.presence
        .connection_lost(&conn("c1"), &user("ann"), &[room("lobby")])
        .await;
    // During the grace the user still counts. The machine may be slow, so this is asserted only if
    // the grace still lasts after the calls.
    let (member, status) = (
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap(),
        node.presence.status(&user("ann")).await.unwrap(),
    );
    let roster = node.presence.roster(&room("lobby"), 10).await.unwrap();
    if begun.elapsed() < GRACE {
        assert!(member && status.online);
        assert_eq!((roster.total, roster.version), (1, joined.roster.version));
    }
    wait_until_left(&node, "lobby", "ann").await;
    let after = wait_until_offline(&node, "ann").await;
    assert!(begun.elapsed() >= GRACE);
    assert!(after.last_seen.is_some() && after.version > status.version);
    let events = eventually(DEADLINE, "the room and the status change", async || {
        Some(recorder.events()).filter(|events| events.len() == 4)
    })
    .await;
    assert_eq!(
        room_changes(&events).last().unwrap(),
        &(ChangeKind::Left, "ann".to_owned(), 0)
    );
    let statuses = statuses(&events);
    assert_eq!(
        statuses
            .iter()
            .map(|status| status.online)
            .collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(statuses[1], after);
}

pub async fn a_return_within_the_grace_publishes_no_change(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            presence_grace: GRACE * 4,
            ..limits()
        })
        .await;
    let recorder = Recorder::on(
        &node,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    // Sentinel: once Bob's grace has ended, which begins later, Ann's would have ended too.
    node.presence
        .connection_lost(&conn("c1"), &user("ann"), &[room("lobby")])
        .await;
    connect_and_join(&node, "ann", "c2", "lobby").await;
    connect_and_join(&node, "bob", "b1", "lobby").await;
    node.presence
        .connection_lost(&conn("b1"), &user("bob"), &[room("lobby")])
        .await;
    wait_until_left(&node, "lobby", "bob").await;
    wait_until_offline(&node, "bob").await;
    let events = recorder.events_until_sentinel(&node, "lobby").await;
    let of_ann: Vec<_> = room_changes(&events)
        .into_iter()
        .filter(|(_, user_id, _)| user_id == "ann")
        .collect();
    assert_eq!(of_ann, [(ChangeKind::Joined, "ann".to_owned(), 1)]);
    assert_eq!(statuses(&events).len(), 1);
    assert!(node.presence.status(&user("ann")).await.unwrap().online);
}

pub async fn a_reconnect_without_a_rejoin_leaves_the_room_after_the_grace(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    node.presence
        .connection_lost(&conn("c1"), &user("ann"), &[room("lobby")])
        .await;
    node.presence
        .connect(&conn("c2"), &user("ann"), &name("ann"))
        .await
        .unwrap();
    let online = node.presence.status(&user("ann")).await.unwrap();
    wait_until_left(&node, "lobby", "ann").await;
    let after = node.presence.status(&user("ann")).await.unwrap();
    assert!(after.online);
    assert_eq!(after.version, online.version);
}

pub async fn an_explicit_leave_waits_for_the_grace_of_another_connection(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            presence_grace: GRACE * 3,
            ..limits()
        })
        .await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    connect_and_join(&node, "ann", "c2", "lobby").await;
    let begun = std::time::Instant::now();
    node.presence
        .connection_lost(&conn("c1"), &user("ann"), &[room("lobby")])
        .await;
    node.presence
        .leave(&conn("c2"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    let still = node
        .presence
        .is_occupant(&room("lobby"), &user("ann"))
        .await
        .unwrap();
    assert!(
        still || begun.elapsed() > GRACE * 3,
        "the lost connection counts until its grace ends"
    );
    wait_until_left(&node, "lobby", "ann").await;
    assert!(begun.elapsed() >= GRACE * 3);
    // A join ends the grace, so a leave after it takes effect immediately.
    connect_and_join(&node, "ann", "c2", "lobby").await;
    connect_and_join(&node, "ann", "c3", "lobby").await;
    node.presence
        .connection_lost(&conn("c3"), &user("ann"), &[room("lobby")])
        .await;
    connect_and_join(&node, "ann", "c2", "lobby").await;
    node.presence
        .leave(&conn("c2"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    assert!(
        !node
            .presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
}

fn assert_chained(changes: &[RoomChange], mut previous: u64) {
    for change in changes {
        assert_eq!(change.previous, previous);
        assert!(change.version > previous);
        previous = change.version;
    }
}

pub async fn each_change_names_the_version_before_it(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(
        &node,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    for n in 0..10 {
        connect_and_join(&node, &format!("user{n}"), &format!("c{n}"), "lobby").await;
    }
    node.presence
        .leave(&conn("c3"), &user("user3"), &room("lobby"))
        .await
        .unwrap();
    let Changes::Since(all) = node.presence.room_changes(&room("lobby"), 0).await.unwrap() else {
        panic!("the changes are too old")
    };
    assert_eq!(all.len(), 11);
    assert_chained(&all, 0);
    let published = recorder.events_until_sentinel(&node, "lobby").await;
    let published: Vec<_> = published
        .into_iter()
        .filter_map(|event| {
            if let BusEvent::RoomChanged(_, change) = event {
                Some(change)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(
        published, all,
        "the bus delivers the changes that can be read"
    );
    let Changes::Since(some) = node
        .presence
        .room_changes(&room("lobby"), all[7].version)
        .await
        .unwrap()
    else {
        panic!("the changes are too old")
    };
    assert_eq!(some, all[8..]);
    let last = node
        .presence
        .roster(&room("lobby"), 1)
        .await
        .unwrap()
        .version;
    assert_eq!(last, all[10].version);
    assert_eq!(
        node.presence
            .room_changes(&room("lobby"), last)
            .await
            .unwrap(),
        Changes::Since(vec![])
    );
    for unknown in [last + 1, all[5].version - 1] {
        if unknown != all[4].version {
            assert_eq!(
                node.presence
                    .room_changes(&room("lobby"), unknown)
                    .await
                    .unwrap(),
                Changes::TooOld
            );
        }
    }
    assert_eq!(
        node.presence
            .room_changes(&room("nowhere"), 0)
            .await
            .unwrap(),
        Changes::Since(vec![])
    );
}

pub async fn changes_that_are_no_longer_kept_are_too_old(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let first = connect_and_join(&node, "ann", "c1", "lobby")
        .await
        .roster
        .version;
    node.presence
        .connect(&conn("c2"), &user("bob"), &name("bob"))
        .await
        .unwrap();
    for _ in 0..200 {
        node.presence
            .join(&conn("c2"), &user("bob"), &name("bob"), &room("lobby"))
            .await
            .unwrap();
        node.presence
            .leave(&conn("c2"), &user("bob"), &room("lobby"))
            .await
            .unwrap();
    }
    assert_eq!(
        node.presence
            .room_changes(&room("lobby"), first)
            .await
            .unwrap(),
        Changes::TooOld
    );
    assert_eq!(
        node.presence.room_changes(&room("lobby"), 0).await.unwrap(),
        Changes::TooOld
    );
    let last = node
        .presence
        .roster(&room("lobby"), 1)
        .await
        .unwrap()
        .version;
    node.presence
        .join(&conn("c2"), &user("bob"), &name("bob"), &room("lobby"))
        .await
        .unwrap();
    let Changes::Since(since) = node
        .presence
        .room_changes(&room("lobby"), last)
        .await
        .unwrap()
    else {
        panic!("the changes are too old")
    };
    assert_eq!((since.len(), since[0].previous), (1, last));
}

pub async fn a_roster_is_limited_and_includes_the_joiner(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let total = Limits::ROSTER + 50;
    let joins =
        (0..total).map(|n| {
            let node = node.clone();
            async move {
                connect_and_join(&node, &format!("user{n:05}"), &format!("c{n}"), "lobby").await
            }
        });
    // At most 16 joins at a time, because each reply holds a full roster of names.
    stream::iter(joins.collect::<Vec<_>>())
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    let joined = connect_and_join(&node, "zoe", "z", "lobby").await;
    assert_eq!(
        (joined.roster.total, joined.roster.users.len()),
        (total as u64 + 1, Limits::ROSTER)
    );
    assert!(
        joined.roster.users.contains(&user("zoe")),
        "the roster includes the joiner"
    );
    let mut users = joined.roster.users;
    users.sort();
    users.dedup();
    assert_eq!(users.len(), Limits::ROSTER);
    let some = node.presence.roster(&room("lobby"), 7).await.unwrap();
    assert_eq!(
        (some.total, some.users.len(), some.version),
        (total as u64 + 1, 7, joined.roster.version)
    );
    let none = node.presence.roster(&room("nowhere"), 7).await.unwrap();
    assert_eq!((none.total, none.users.len(), none.version), (0, 0, 0));
}

pub async fn members_are_listed_in_pages(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let names = ["a", "b", "c\u{1F980}", "d:1", "e", "f", "g"];
    for (n, user_id) in names.iter().enumerate() {
        node.presence
            .connect(
                &conn(&n.to_string()),
                &user(user_id),
                &name(&format!("Name of {user_id}")),
            )
            .await
            .unwrap();
        node.presence
            .join(
                &conn(&n.to_string()),
                &user(user_id),
                &name(&format!("Name of {user_id}")),
                &room("lobby"),
            )
            .await
            .unwrap();
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = node
            .presence
            .members(&room("lobby"), after.as_ref(), 3)
            .await
            .unwrap();
        assert_eq!(page.total, 7);
        assert!(page.members.len() <= 3);
        found.extend(page.members);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut expected: Vec<_> = names
        .iter()
        .map(|user_id| (user(user_id), name(&format!("Name of {user_id}"))))
        .collect();
    expected.sort();
    assert_eq!(found, expected);
    let exact = node
        .presence
        .members(&room("lobby"), None, 7)
        .await
        .unwrap();
    assert_eq!((exact.members.len(), exact.next), (7, None));
}

pub async fn a_status_is_kept_after_a_disconnect(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    assert_eq!(
        node.presence.status(&user("ann")).await.unwrap(),
        OnlineStatus::never_seen(user("ann"))
    );
    assert_eq!(
        node.presence.status_changes(&user("ann"), 0).await.unwrap(),
        Changes::Since(vec![])
    );
    node.presence
        .connect(&conn("c1"), &user("ann"), &name("Ann"))
        .await
        .unwrap();
    let first = node.presence.status(&user("ann")).await.unwrap();
    assert!(
        first.online
            && first.version > 0
            && first.previous == 0
            && first.username == Some(name("Ann"))
    );
    eventually(
        DEADLINE,
        "last_seen advances while the user is online",
        async || {
            (node.presence.status(&user("ann")).await.unwrap().last_seen > first.last_seen)
                .then_some(())
        },
    )
    .await;
    node.presence
        .connection_lost(&conn("c1"), &user("ann"), &[])
        .await;
    let after = wait_until_offline(&node, "ann").await;
    assert_eq!(
        (after.previous, &after.username),
        (first.version, &Some(name("Ann")))
    );
    assert_eq!(
        node.presence.status(&user("ann")).await.unwrap(),
        after,
        "last_seen of an offline user does not change"
    );
    let Changes::Since(all) = node.presence.status_changes(&user("ann"), 0).await.unwrap() else {
        panic!("the changes are too old")
    };
    assert_eq!((all.len(), all[0].online, &all[1]), (2, true, &after));
    assert_eq!(
        node.presence
            .status_changes(&user("ann"), first.version)
            .await
            .unwrap(),
        Changes::Since(vec![after.clone()])
    );
    assert_eq!(
        node.presence
            .status_changes(&user("ann"), after.version + 1)
            .await
            .unwrap(),
        Changes::TooOld
    );
}

pub async fn connections_per_user_are_limited(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            sockets_per_user: 2,
            presence_grace: GRACE * 10,
            ..limits()
        })
        .await;
    let connect = async |conn_id: &str| {
        node.presence
            .connect(&conn(conn_id), &user("ann"), &name("ann"))
            .await
    };
    connect("c1").await.unwrap();
    connect("c2").await.unwrap();
    assert!(matches!(
        connect("c3").await,
        Err(BackplaneError::TooManyConnections)
    ));
    connect("c2")
        .await
        .expect("a registered connection may register again");
    node.presence
        .connection_lost(&conn("c1"), &user("ann"), &[])
        .await;
    connect("c3")
        .await
        .expect("a lost connection does not count during its grace");
    assert!(matches!(
        connect("c4").await,
        Err(BackplaneError::TooManyConnections)
    ));
    node.presence
        .connect(&conn("d1"), &user("bob"), &name("bob"))
        .await
        .unwrap();
}

pub async fn live_connections_of_a_user_are_listed(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let presence = &node.presence;
    assert!(presence.connections(&user("ann")).await.unwrap().is_empty());
    for connection in ["one", "two"] {
        presence
            .connect(&conn(connection), &user("ann"), &name("Ann"))
            .await
            .unwrap();
    }
    let mut both = presence.connections(&user("ann")).await.unwrap();
    both.sort();
    assert_eq!(both, [conn("one"), conn("two")]);
    presence
        .connection_lost(&conn("one"), &user("ann"), &[])
        .await;
    assert_eq!(
        presence.connections(&user("ann")).await.unwrap(),
        [conn("two")],
        "a lost connection is not listed during its grace"
    );
}

pub async fn a_rename_publishes_no_change(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(
        &node,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let before = node.presence.status(&user("ann")).await.unwrap();
    node.presence
        .connect(&conn("c1"), &user("ann"), &name("Ann II"))
        .await
        .unwrap();
    let after = node.presence.status(&user("ann")).await.unwrap();
    assert_eq!(
        (after.version, after.username),
        (before.version, Some(name("Ann II")))
    );
    node.presence
        .join(&conn("c1"), &user("ann"), &name("Ann II"), &room("lobby"))
        .await
        .unwrap();
    let page = node
        .presence
        .members(&room("lobby"), None, 10)
        .await
        .unwrap();
    assert_eq!(page.members, [(user("ann"), name("Ann II"))]);
    node.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    let events = recorder.events_until_sentinel(&node, "lobby").await;
    assert_eq!(
        (room_changes(&events).len(), statuses(&events).len()),
        (2, 1)
    );
    let left = events.iter().any(|event| {
        matches!(
            event,
            BusEvent::RoomChanged(_, change)
                if change.kind == ChangeKind::Left && change.username == name("Ann II")
        )
    });
    assert!(left);
}

pub async fn leaving_a_room_without_being_in_it_does_nothing(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    node.presence
        .connect(&conn("c2"), &user("ann"), &name("ann"))
        .await
        .unwrap();
    node.presence
        .leave(&conn("c2"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    node.presence
        .leave(&conn("c9"), &user("bob"), &room("lobby"))
        .await
        .unwrap();
    node.presence
        .connection_lost(&conn("c9"), &user("bob"), &[room("lobby")])
        .await;
    node.presence
        .connection_lost(&conn("c2"), &user("ann"), &[])
        .await;
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    let events = recorder.events_until_sentinel(&node, "lobby").await;
    assert_eq!(
        room_changes(&events),
        [(ChangeKind::Joined, "ann".to_owned(), 1)]
    );
    assert_eq!(node.presence.status(&user("bob")).await.unwrap().version, 0);
}

pub async fn versions_of_several_topics_are_read_in_order(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let version = connect_and_join(&node, "ann", "c1", "lobby")
        .await
        .roster
        .version;
    let status = node.presence.status(&user("ann")).await.unwrap();
    let topics = [
        BusTopic::User(user("ann")),
        BusTopic::Room(room("nowhere")),
        BusTopic::Room(room("lobby")),
        BusTopic::User(user("bob")),
    ];
    assert_eq!(
        node.presence.versions(&topics).await.unwrap(),
        [status.version, 0, version, 0]
    );
    assert!(node.lifecycle.counters().presence_changes >= 2);
}
