//! One conformance suite for both backplanes, and the cases that only Redis has: restarts, data
//! loss, dead nodes, faults.
//!
//! Every case of [`log`], [`bus`] and [`presence`] runs on the embedded backplane, on a real
//! redis-server of its own, and on one whose user has only the documented rights.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bus;
mod fixture;
mod log;
mod presence;
mod redis_chaos;
mod redis_cluster;
mod redis_data;
mod redis_deployments;
mod redis_entry_kinds;
mod redis_faults;
mod redis_layout;
mod redis_nodes;
mod redis_rate_limiter;
mod redis_rights;
mod redis_watchers;

macro_rules! conformance {
    ($($part:ident: $($case:ident),+;)+) => {
        mod embedded {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$part::$case(crate::fixture::Fixture::embedded()).await;
            })+)+
        }
        mod redis {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$part::$case(crate::fixture::Fixture::redis()).await;
            })+)+
        }
        mod redis_with_least_rights {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$part::$case(crate::fixture::Fixture::redis_with_least_rights()).await;
            })+)+
        }
    };
}

conformance! {
    log:
        appends_are_numbered_without_gaps,
        appends_of_one_caller_keep_their_order,
        a_repeated_key_returns_the_first_outcome,
        a_repeat_without_a_key_is_another_message,
        fifty_concurrent_repeats_append_one_message,
        deduplication_keys_are_scoped_to_user_and_room,
        a_deduplication_key_expires,
        reads_return_the_requested_window,
        reads_are_limited_by_bytes,
        a_log_is_trimmed_to_the_history_size,
        numbering_continues_after_a_log_expires,
        heads_of_many_rooms_are_read_in_one_call,
        reading_an_unknown_room_fixes_its_epoch,
        rooms_with_unusual_names_stay_separate;
    bus:
        events_arrive_in_order_exactly_once,
        an_ended_subscription_delivers_no_events,
        every_kind_of_event_arrives,
        a_disconnect_arrives_on_the_topic_of_all_nodes,
        five_hundred_concurrent_subscriptions_deliver_events;
    presence:
        a_user_with_two_connections_joins_and_leaves_once,
        a_join_returns_a_roster_with_the_joiner,
        a_lost_connection_counts_until_its_grace_ends,
        a_return_within_the_grace_publishes_no_change,
        a_reconnect_without_a_rejoin_leaves_the_room_after_the_grace,
        an_explicit_leave_waits_for_the_grace_of_another_connection,
        each_change_names_the_version_before_it,
        changes_that_are_no_longer_kept_are_too_old,
        a_roster_is_limited_and_includes_the_joiner,
        members_are_listed_in_pages,
        a_status_is_kept_after_a_disconnect,
        connections_per_user_are_limited,
        live_connections_of_a_user_are_listed,
        a_rename_publishes_no_change,
        leaving_a_room_without_being_in_it_does_nothing,
        versions_of_several_topics_are_read_in_order;
}
