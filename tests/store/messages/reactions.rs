//! Reactions and pins.

use std::sync::Arc;
use std::time::Duration;

use hubbub::domain::{FormContent, MessageChangeKind, Reaction};
use hubbub::features::messages::ReactionBatches;
use hubbub::store::{
    Announced, ArchiveStore as _, ChangeOutcome, MAX_PINS, MessageState, MessageStore as _,
    Outbox as _,
};

use super::fixture::*;
use crate::fixture::{TestStore, room};

crate::on_every_database!(
    two_hundred_users_that_react_at_once_are_counted_exactly,
    a_row_serves_all_reactions_until_it_is_claimed,
    repeated_reactions_change_nothing,
    many_changes_are_made_at_once,
    a_damaged_message_fails_no_other_reaction,
    a_message_has_few_emojis,
    the_summary_is_the_one_that_was_announced,
    pins_are_announced_and_listed,
    a_room_has_few_pins,
);

async fn now_current(test: &TestStore, entry: &hubbub::store::ArchivedEntry) -> Vec<Reaction> {
    test.store.reactions(&of(entry)).await.unwrap().unwrap()
}

/// On two nodes. Each combines its reactions: two hundred transactions at once would wait for each other
/// at the message's row, and those at the end would find no connection in time.
async fn two_hundred_users_that_react_at_once_are_counted_exactly(test: &TestStore) {
    let entry = post(test, 1, "ann", "x").await;
    let node = || Arc::new(ReactionBatches::new(Arc::new(test.store.clone())));
    let nodes = [node(), node()];
    let users = (0..200).map(|number| {
        let (node, entry) = (nodes[number % 2].clone(), entry.clone());
        tokio::spawn(async move {
            let user = format!("user{number:03}");
            let emoji = if user.ends_with('0') { "b" } else { "a" };
            node.react(reaction(&entry, &user, emoji, true))
                .await
                .unwrap();
            if user.ends_with("99") {
                let off = reaction(&entry, &user, emoji, false);
                node.react(off).await.unwrap();
            }
        })
    });
    for user in users.collect::<Vec<_>>() {
        user.await.unwrap();
    }
    let reactions = now_current(test, &entry).await;
    let mut sorted = counts(&reactions);
    sorted.sort_unstable();
    assert_eq!(sorted, [("a", 178), ("b", 20)]);
    let listed: usize = reactions.iter().map(|reaction| reaction.users.len()).sum();
    assert_eq!(listed, 40);
    let rows = test.store.list(0, 100).await.unwrap();
    assert_eq!(rows.len(), 1, "one row serves all");
    assert_eq!(
        publish(test, 2).await,
        [MessageChangeKind::ReactionsChanged]
    );
    let stored = test.store.message(&of(&entry)).await.unwrap().unwrap();
    assert_eq!(stored.state.reactions, Some((reactions.clone(), 2)));
    assert_eq!(stored.form.reactions, Some(reactions));
    assert_eq!(
        (stored.form.version, stored.form.content),
        (1, FormContent::Original)
    );
}

async fn a_row_serves_all_reactions_until_it_is_claimed(test: &TestStore) {
    let entry = post(test, 1, "ann", "x").await;
    let react = |user: &'static str| {
        let change = reaction(&entry, user, "+1", true);
        async move { test.store.react(&[change]).await.unwrap() }
    };
    for user in ["ann", "bob", "eve"] {
        react(user).await;
    }
    let first = claim(test).await;
    assert_eq!(first.len(), 1);
    // Those that come now need a row of their own, which is due half a second later.
    for user in ["joe", "kim"] {
        react(user).await;
    }
    let rows = test.store.list(0, 100).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert!(claim(test).await.is_empty());
    let change = published_at(test, &first[0], 2).await;
    // The form is of the time of the publication.
    assert_eq!(counts(change.reactions.as_ref().unwrap()), [("+1", 5)]);
    done(test, &[change]).await;
    let wait = test.store.next_due().await.unwrap().unwrap();
    assert!(wait <= Duration::from_millis(500), "{wait:?}");
    test.execute("UPDATE hubbub_outbox SET due_at = 0").await;
    assert_eq!(publish(test, 3).await.len(), 1);
    react("lee").await;
    assert_eq!(test.store.list(0, 100).await.unwrap().len(), 1);
}

async fn repeated_reactions_change_nothing(test: &TestStore) {
    let entry = post(test, 1, "ann", "x").await;
    let on = reaction(&entry, "bob", "+1", true);
    let off = reaction(&entry, "bob", "+1", false);
    let nothing = test.store.react(std::slice::from_ref(&off)).await.unwrap();
    assert_eq!(announced(nothing[0].clone()), Announced::At(0));
    assert!(claim(test).await.is_empty());
    test.store.react(std::slice::from_ref(&on)).await.unwrap();
    publish(test, 2).await;
    let again = [on.clone(), off.clone(), on.clone()];
    let outcomes = test.store.react(&again).await.unwrap();
    assert_eq!(outcomes.len(), 3);
    assert!(test.store.list(0, 9).await.unwrap().is_empty());
    assert_eq!(counts(&now_current(test, &entry).await), [("+1", 1)]);
    test.store.react(&[off]).await.unwrap();
    test.execute("UPDATE hubbub_outbox SET due_at = 0").await;
    publish(test, 3).await;
    let stored = test.store.message(&of(&entry)).await.unwrap().unwrap();
    assert_eq!(stored.state.reactions, Some((Vec::new(), 3)));
    assert_eq!(stored.form.reactions, Some(Vec::new()));
}

async fn many_changes_are_made_at_once(test: &TestStore) {
    let first = post(test, 1, "ann", "x").await;
    let second = post(test, 2, "ann", "y").await;
    let gone = message(9, "ann", serde_json::json!({}));
    let mut changes = Vec::new();
    for user in 0..700 {
        let entry = if user % 2 == 0 { &first } else { &second };
        changes.push(reaction(entry, &format!("u{user:03}"), "+1", true));
    }
    changes.push(reaction(&gone, "bob", "+1", true));
    changes.push(reaction(&first, "u000", "+1", false));
    let outcomes = test.store.react(&changes).await.unwrap();
    assert_eq!(outcomes[700], ChangeOutcome::NotFound);
    assert_eq!(announced(outcomes[701].clone()), Announced::At(0));
    assert_eq!(counts(&now_current(test, &first).await), [("+1", 349)]);
    assert_eq!(counts(&now_current(test, &second).await), [("+1", 350)]);
    assert_eq!(test.store.list(0, 100).await.unwrap().len(), 2);
}

async fn a_damaged_message_fails_no_other_reaction(test: &TestStore) {
    let broken = post(test, 1, "ann", "x").await;
    let sound = post(test, 2, "ann", "y").await;
    test.execute("UPDATE hubbub_entries SET epoch_no = 99 WHERE seq = 1")
        .await;
    let changes = [&broken, &sound].map(|entry| reaction(entry, "bob", "+1", true));
    let outcomes = test.store.react(&changes).await.unwrap();
    assert_eq!(announced(outcomes[1].clone()), Announced::At(0));
    assert_eq!(counts(&now_current(test, &sound).await), [("+1", 1)]);
}

async fn a_message_has_few_emojis(test: &TestStore) {
    let entry = post(test, 1, "ann", "x").await;
    for number in 0..Reaction::EMOJIS {
        let emoji = format!("e{number}");
        test.store
            .react(&[reaction(&entry, "bob", &emoji, true)])
            .await
            .unwrap();
    }
    let changes = [
        reaction(&entry, "bob", "more", true),
        reaction(&entry, "eve", "e0", true),
    ];
    let outcomes = test.store.react(&changes).await.unwrap();
    assert_eq!(outcomes[0], ChangeOutcome::Full);
    assert_eq!(announced(outcomes[1].clone()), Announced::At(0));
    assert_eq!(
        now_current(test, &entry).await.len() as u64,
        Reaction::EMOJIS
    );
    let removed = reaction(&entry, "bob", "e1", false);
    test.store.react(&[removed]).await.unwrap();
    let more = test.store.react(&changes[..1]).await.unwrap();
    assert_eq!(announced(more[0].clone()), Announced::At(0));
}

async fn the_summary_is_the_one_that_was_announced(test: &TestStore) {
    let entry = post(test, 1, "ann", "x").await;
    let changed = reaction(&entry, "bob", "+1", true);
    test.store.react(&[changed]).await.unwrap();
    let room = room(ROOM);
    // The state and the archive's form have them already: their announcement may have been read.
    let state = one_state(test).await;
    let (reactions, seq) = state.reactions.unwrap();
    assert_eq!((counts(&reactions), seq), (vec![("+1", 1)], 1));
    assert!(state.unrecorded.reactions && !state.unrecorded.revision);
    let forms = test.store.forms(&room, 1..=9, &[]).await.unwrap();
    assert_eq!(counts(forms[0].reactions.as_ref().unwrap()), [("+1", 1)]);
    publish(test, 2).await;
    test.store
        .react(&[reaction(&entry, "eve", "+1", true)])
        .await
        .unwrap();
    let state = one_state(test).await;
    let (reactions, seq) = state.reactions.unwrap();
    assert_eq!((counts(&reactions), seq), (vec![("+1", 2)], 2));
    assert!(state.unrecorded.reactions);
    // An attempt that finds its row published doesn't know what it showed.
    test.execute("UPDATE hubbub_outbox SET due_at = 0").await;
    let row = claim(test).await.remove(0);
    let mut change = published_at(test, &row, 5).await;
    change.reactions = None;
    done(test, &[change]).await;
    let state = one_state(test).await;
    let (reactions, seq) = state.reactions.unwrap();
    assert_eq!((counts(&reactions), seq), (vec![("+1", 2)], 5));
    assert!(!state.unrecorded.is_any());
}

/// The state of the only message of the room that has any.
async fn one_state(test: &TestStore) -> MessageState {
    let mut states = test.store.states(&room(ROOM), 1..=9, true).await.unwrap();
    assert_eq!(states.len(), 1);
    states.remove(0).1
}

async fn pins_are_announced_and_listed(test: &TestStore) {
    let first = post(test, 1, "ann", "first").await;
    let second = post(test, 2, "ann", "second").await;
    let pin = |entry: &hubbub::store::ArchivedEntry, on: bool| {
        let (message, by) = (of(entry), by("bob"));
        async move { announced(test.store.pin(&message, &by, on).await.unwrap()) }
    };
    assert_eq!(pin(&first, false).await, Announced::At(1));
    let made = pin(&first, true).await;
    assert_eq!(pin(&first, true).await, made);
    // The pin may be announced already.
    let state = one_state(test).await;
    assert_eq!(state.pinned, Some((true, 1)));
    assert!(state.unrecorded.revision);
    let rows = claim(test).await;
    let change = published_at(test, &rows[0], 3).await;
    assert_eq!(change.row.user_id.as_deref(), Some("bob"));
    let form = test
        .store
        .to_publish(&room(ROOM), &change.row)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (form.version, form.content, form.edited_at),
        (1, FormContent::Original, None)
    );
    done(test, &[change]).await;
    assert_eq!(pin(&first, true).await, Announced::At(3));
    pin(&second, true).await;
    test.store
        .edit(&edit_of(&second, "edited", None))
        .await
        .unwrap();
    publish(test, 4).await;
    let pins = test.store.pins(&room(ROOM)).await.unwrap();
    let mut listed: Vec<_> = pins
        .iter()
        .map(|pin| (pin.user.as_str(), content(&pin.message.record)))
        .collect();
    listed.sort_unstable();
    assert_eq!(
        listed,
        [("bob", "edited".to_owned()), ("bob", "first".to_owned())]
    );
    pin(&first, false).await;
    publish(test, 8).await;
    assert_eq!(pin(&first, false).await, Announced::At(8));
    let states = test.store.states(&room(ROOM), 1..=2, true).await.unwrap();
    let pinned: Vec<_> = states
        .iter()
        .map(|(seq, state)| (*seq, state.pinned))
        .collect();
    assert_eq!(pinned, [(1, Some((false, 8))), (2, Some((true, 4)))]);
    assert!(states.iter().all(|(_, state)| *state
        == MessageState {
            pinned: state.pinned,
            ..MessageState::default()
        }));
    assert_eq!(test.store.pins(&room(ROOM)).await.unwrap().len(), 1);
    assert!(test.store.pins(&room("other")).await.unwrap().is_empty());
}

async fn a_room_has_few_pins(test: &TestStore) {
    let entries = test.fill(ROOM, 1..=MAX_PINS + 5).await;
    let pins = entries.into_iter().map(|entry| {
        let store = test.store.clone();
        tokio::spawn(async move { store.pin(&of(&entry), &by("bob"), true).await.unwrap() })
    });
    let mut full = 0;
    for pin in pins.collect::<Vec<_>>() {
        match pin.await.unwrap() {
            ChangeOutcome::Full => full += 1,
            other => assert_eq!(revision(other), 1),
        }
    }
    assert_eq!(full, 5);
    assert_eq!(
        test.store.pins(&room(ROOM)).await.unwrap().len() as u64,
        MAX_PINS
    );
    let forms = test
        .store
        .forms(&room(ROOM), 1..=MAX_PINS + 5, &[])
        .await
        .unwrap();
    assert_eq!(forms.len() as u64, MAX_PINS);
}
