//! One conformance suite for both backplanes, and the cases that only Redis has: restarts, data
//! loss, dead nodes, faults.
//!
//! Every case of [`log`], [`message_changes`], [`bus`], [`presence`], [`hot_log_restores`], [`hot_log_watermarks`] and
//! [`hot_log_property`] runs on the embedded backplane, on a real redis-server of its own, and on one
//! whose user has only the documented rights.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bus;
mod fixture;
mod hot_log;
mod hot_log_property;
mod hot_log_restores;
mod hot_log_watermarks;
mod log;
mod message_changes;
mod presence;
mod redis_archive;
mod redis_archive_marker;
mod redis_chaos;
mod redis_cluster;
mod redis_data;
mod redis_deployments;
mod redis_entry_kinds;
mod redis_faults;
mod redis_layout;
mod redis_message_changes;
mod redis_nodes;
mod redis_rate_limiter;
mod redis_restore_claims;
mod redis_restores;
mod redis_rights;
mod redis_watchers;
mod restore_source;

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
        a_change_is_announced_once_and_in_order,
        changes_are_announced_in_order_and_once,
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
    message_changes:
        an_edit_replaces_the_old_form_at_every_place,
        a_deletion_takes_the_places_of_the_message_and_its_earlier_changes,
        a_repeated_announcement_amends_nothing,
        reactions_leave_a_message_as_it_is,
        forms_are_kept_as_long_as_the_log_has_an_announcement,
        a_message_older_than_the_log_can_be_changed,
        pages_of_changed_messages_are_limited_by_bytes,
        a_series_of_changes_and_messages_keeps_its_order,
        unarchived_entries_are_read_as_they_are_stored,
        a_slice_tells_of_changes_and_replies;
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
    hot_log_restores:
        an_unknown_room_is_restored_once_for_all_calls,
        nothing_is_numbered_before_the_archive_responds,
        appends_that_wait_for_a_restore_keep_their_order,
        a_dropped_call_does_not_end_a_restore,
        calls_fail_while_the_archive_is_unavailable,
        a_known_room_is_not_restored_again,
        a_restored_room_continues_its_numbering,
        repeats_of_restored_sends_are_duplicates,
        a_restored_send_expires_when_it_would_have,
        a_diverged_room_is_restored_before_its_next_use,
        a_room_that_diverged_in_an_earlier_epoch_is_restored,
        a_divergence_outside_of_the_log_has_no_effect,
        sends_that_were_lost_are_no_longer_duplicates,
        a_diverged_room_may_keep_its_entries,
        a_diverged_room_waits_for_the_archive_until_it_is_restored,
        a_room_that_diverged_although_it_is_archived_is_found;
    hot_log_watermarks:
        a_record_is_kept_byte_for_byte,
        a_watermark_leaves_no_number_out,
        numbers_of_an_earlier_epoch_count_up_to_its_end,
        reports_about_many_rooms_are_made_in_one_call,
        unarchived_entries_outlive_the_history_size,
        unarchived_entries_outlive_the_history_ttl,
        rooms_are_unarchived_once_their_oldest_entry_is_old,
        an_unarchived_room_is_returned_to_one_caller_at_a_time,
        a_trim_removes_only_archived_entries;
    hot_log_property:
        watermarks_follow_any_reports;
}
