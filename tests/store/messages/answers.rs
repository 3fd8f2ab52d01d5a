//! Stored answers to requests that have sent a message.

use hubbub::store::{
    DeletableContent, IdempotencyStore as _, IdempotentRequest, MessageStore as _, Repeat,
    StoredAnswer,
};

use super::fixture::*;
use crate::fixture::TestStore;

crate::on_every_database!(an_answer_about_a_deleted_message_has_no_content);

/// The message was deleted between its sending and the end of the request.
async fn an_answer_about_a_deleted_message_has_no_content(test: &TestStore) {
    let store = &test.store;
    let deleted = post(test, 1, "ann", "secret").await;
    let kept = post(test, 2, "ann", "hello").await;
    store.delete(&of(&deleted), &by("ann")).await.unwrap();
    for (key, entry, body) in [(1, &deleted, "{}"), (2, &kept, "hello")] {
        let request = IdempotentRequest {
            digest: [key; 32],
            user: None,
            route: "POST /x".to_owned(),
            bodies: vec![[key; 32]],
        };
        let content = DeletableContent {
            subject: entry.id.to_string(),
            redacted: b"{}".to_vec(),
        };
        let answer = StoredAnswer {
            status: 201,
            body: content_of(entry),
            content: Some(content),
        };
        assert_eq!(store.reserve(&request).await.unwrap(), None);
        store.keep_answer(&request, answer).await.unwrap();
        let Some(Repeat::Answered(found)) = store.find_repeat(&request).await.unwrap() else {
            panic!("no answer is stored");
        };
        assert_eq!(String::from_utf8(found.body).unwrap(), body);
        assert_eq!(found.content.is_some(), body == "hello");
    }
}

fn content_of(entry: &hubbub::store::ArchivedEntry) -> Vec<u8> {
    content(&entry.record).into_bytes()
}
