//! `hubbub db seed`.

use hubbub::store::ArchiveStore as _;

use crate::fixture::{
    Sqlite, command, contents, kill_when, open, run, seeded, slow_database, speed_up, summary,
    today,
};

#[tokio::test]
async fn demo_data_is_complete_and_the_same_each_time() {
    let (one, other) = (seeded(Sqlite, 8, 700), seeded(Sqlite, 8, 700));
    let contents_of_one = contents(&open(&one).await).await;
    assert_eq!(contents_of_one, contents(&open(&other).await).await);
    assert_eq!(contents_of_one.len(), 8);
    for (room, state, entries) in &contents_of_one {
        assert_eq!(state.contiguous, entries.len() as u64, "{room}");
    }
    assert_eq!(summary(&one, &["verify"])["is_complete"], true);
    let options = ["seed", "--rooms", "8", "--messages", "700"];
    assert_eq!(summary(&one, &options)["added_now"], 0);
}

#[tokio::test]
async fn filling_that_was_killed_continues() {
    let whole = seeded(Sqlite, 6, 6000);
    let killed = slow_database().await;
    let options = [
        "seed",
        "--rooms",
        "6",
        "--messages",
        "6000",
        "--until",
        today(),
        "--json",
        "--database-url",
        &killed.url,
    ];
    kill_when(command(&options), &killed, 1).await;
    speed_up(&killed).await;
    let left = run(&options).summary()["added_now"].as_u64().unwrap();
    assert!(left < 6000, "{left}");
    let continued = contents(&open(&killed).await).await;
    assert_eq!(continued, contents(&open(&whole).await).await);
}

#[tokio::test]
async fn rooms_of_other_demo_data_are_left_alone() {
    let database = seeded(Sqlite, 3, 300);
    let before = contents(&open(&database).await).await;
    let options = ["seed", "--rooms", "3", "--messages", "30"];
    let ended = run(&[&options[..], &["--database-url", &database.url]].concat());
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("already"), "{}", ended.stderr);
    assert_eq!(contents(&open(&database).await).await, before);
    let known = open(&database).await.rooms(0, 10).await.unwrap();
    assert_eq!(known.len(), 3);
}
