//! One conformance suite for both backplanes, and what only Redis can go through: restarts, data loss, dead nodes, faults.
//!
//! Every case of [`log`], [`bus`] and [`presence`] runs on the embedded backplane and on a real redis-server of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bus;
mod fixture;
mod log;
mod presence;
mod redis_chaos;
mod redis_cluster;
mod redis_data;
mod redis_faults;
mod redis_nodes;
mod redis_rate_limiter;
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
    };
}

conformance! {
    log: appends_are_numbered_without_a_hole, one_caller_keeps_its_order, a_repeat_gets_the_first_place,
        without_a_key_a_repeat_is_another_message,
        fifty_repeats_at_once_get_one_place, a_key_belongs_to_its_user_and_room, a_key_is_forgotten,
        windows_are_read, reads_are_bounded, a_log_is_trimmed, a_log_expires_but_its_numbers_go_on, heads_of_many_rooms,
        an_unknown_room_has_a_lasting_epoch, strange_names_stay_apart;
    bus: events_arrive_in_order_and_once, an_ended_subscription_is_silent, every_kind_of_event_arrives,
        every_node_hears_of_a_disconnect, many_topics_at_once;
    presence: a_user_joins_once_and_leaves_once, a_join_sees_the_joiner, a_lost_connection_has_its_grace,
        who_returns_in_time_makes_no_noise, who_comes_back_but_does_not_rejoin_leaves, an_explicit_leave_waits_for_a_grace,
        changes_form_a_chain, old_changes_are_gone, a_roster_is_bounded, members_come_in_pages, a_status_is_kept,
        connections_are_limited, live_connections_are_named, a_rename_is_no_change, leaving_what_one_is_not_in_does_nothing, versions_of_many_topics;
}
