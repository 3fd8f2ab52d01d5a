//! A user with too few rights in Redis: found at the start, and later.

use hubbub::backplane::BusTopic;
use hubbub::backplane::redis::{StartError, connect};

use crate::fixture::{
    DEADLINE, Recorder, append_message, connect_and_join, eventually, grant, least_rights, limits,
    restricted_url, room, settings,
};
use hubbub_test_support::server::RedisServer;

/// The error of a start with a user that has these rights.
async fn refusal(server: &RedisServer, words: &[String]) -> String {
    grant(server, words);
    match connect(settings(&restricted_url(server)), limits(), None).await {
        Err(StartError::Rights(missing)) => missing,
        Err(error) => panic!("without {words:?}: {error}"),
        Ok(_) => panic!("a node started with {words:?}"),
    }
}

/// The rights without this one.
fn without(rights: &[String], right: &str) -> Vec<String> {
    let others = rights.iter().filter(|word| *word != right);
    others.cloned().collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_missing_right_is_named_at_the_start() {
    let server = RedisServer::start();
    let least = least_rights();
    let rights = least
        .iter()
        .filter(|word| ["+", "~", "&"].iter().any(|sign| word.starts_with(sign)));
    let mut tried = 0;
    for right in rights {
        let missing = refusal(&server, &without(&least, right)).await;
        assert!(
            missing.contains(&format!("lacks {right}:")),
            "{right}: {missing}"
        );
        tried += 1;
    }
    assert!(tried > 40, "{tried} rights were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usual_users_with_too_few_rights_are_refused_with_all_that_they_lack() {
    let server = RedisServer::start();
    for (rights, lacks) in [
        ("reset on >PASSWORD ~* &* +@all -@dangerous", "lacks +info:"),
        (
            "reset resetchannels on >PASSWORD ~* +@all",
            "lacks &hubbub:{*:",
        ),
        (
            "reset on >PASSWORD ~* &* +@all -subscribe",
            "lacks +subscribe:",
        ),
        (
            "reset resetchannels on >PASSWORD ~* +@all -@dangerous -subscribe -hscan",
            "lacks &hubbub:{* +hscan +info +subscribe:",
        ),
        ("reset on >PASSWORD ~other:* &* +@all", "lacks ~hubbub:{*:"),
    ] {
        let missing = refusal(&server, &words(rights)).await;
        assert!(missing.contains(lacks), "{rights}: {missing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicting_policy_is_found_with_the_least_rights() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    grant(&server, &least_rights());
    let refused = connect(settings(&restricted_url(&server)), limits(), None)
        .await
        .err();
    assert!(
        matches!(&refused, Some(StartError::Policy(policy)) if policy == "allkeys-lru"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_user_loses_a_right_is_not_ready_until_it_has_it_again() {
    let server = RedisServer::start();
    grant(&server, &least_rights());
    let node = connect(settings(&restricted_url(&server)), limits(), None)
        .await
        .unwrap();
    assert!(node.lifecycle.is_up());
    for (lost, regained) in [
        ("-info", "+info"),
        ("-subscribe", "+subscribe"),
        ("-evalsha", "+evalsha"),
        ("-xadd", "+xadd"),
        ("resetkeys", "~hubbub:{*"),
        ("resetchannels", "&hubbub:{*"),
    ] {
        grant(&server, &words(lost));
        eventually(
            DEADLINE,
            &format!("the node is down after {lost}"),
            async || (!node.lifecycle.is_up()).then_some(()),
        )
        .await;
        grant(&server, &words(regained));
        eventually(
            DEADLINE,
            &format!("the node is up after {regained}"),
            async || node.lifecycle.is_up().then_some(()),
        )
        .await;
        append_message(&node, "lobby", regained).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_delete_leaves_no_keys_behind() {
    let server = RedisServer::start();
    let missing = refusal(&server, &without(&least_rights(), "+del")).await;
    assert!(missing.contains("lacks +del:"), "{missing}");
    for key in server.cli(&["KEYS", "*"]).lines() {
        let left: i64 = server.cli(&["PTTL", key]).parse().unwrap();
        assert_ne!(left, -1, "{key} never expires");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_documented_rights_leaves_no_entry_in_the_acl_log() {
    let server = RedisServer::start();
    let mut rights = least_rights();
    rights.extend(words("+client|id %R~{p00}B"));
    grant(&server, &rights);
    let node = connect(settings(&restricted_url(&server)), limits(), None)
        .await
        .unwrap();
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    append_message(&node, "lobby", "hi").await;
    recorder.wait_for(1).await;
    connect_and_join(&node, "ann", "a", "lobby").await;
    node.lifecycle.stop().await;
    assert_eq!(server.cli(&["ACL", "LOG"]), "");
}
