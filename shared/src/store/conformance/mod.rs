//! What every engine must do: the cases that an engine passes, or is none.
//!
//! Each case is a function that is given a [`Bench`] and panics if the engine is at fault.
//! [`conformance_tests!`](crate::conformance_tests) makes a test of every case.
#![expect(
    missing_docs,
    reason = "the name of each case is a sentence that says what it checks"
)]

mod lease;
mod life;
mod list;
mod log;
mod queue;
mod retention;
mod scene;
mod submit;
mod table;
mod worker;

use std::time::Duration;

use async_trait::async_trait;

use super::SharedStore;
use crate::id::ExecutionId;

/// An engine under test.
#[async_trait]
pub trait Bench: Send + Sync {
    /// Opens the engine on data of the bench's own, empty at first.
    async fn open(&self, retention: Duration) -> SharedStore;

    /// Ids of executions that wait in one order. Engines that divide executions into shards promise
    /// an order within each of them.
    fn ids_in_one_order(&self, count: usize) -> Vec<ExecutionId>;
}

/// Names every case once. The functions are private but for this, so the compiler warns of a case
/// that is left out; the macro that it makes is what the engines' tests call.
macro_rules! suite {
    ($dollar:tt $($file:ident: $($case:ident),+;)+) => {
        $(pub use self::$file::{$($case),+};)+

        /// A test of every case for the [`Bench`] that an expression makes.
        #[macro_export]
        macro_rules! conformance_tests {
            ($dollar bench:expr) => {
                $($(#[tokio::test]
                async fn $case() {
                    $dollar crate::store::conformance::$case(&$dollar bench).await;
                })+)+
            };
        }
    };
}

suite! { $
    table:
        a_new_execution_changes_as_the_table_says,
        an_execution_that_waits_again_changes_as_the_table_says,
        a_running_execution_changes_as_the_table_says,
        an_execution_on_its_last_attempt_changes_as_the_table_says,
        a_paused_execution_changes_as_the_table_says,
        an_execution_that_is_to_be_cancelled_changes_as_the_table_says,
        a_paused_execution_that_is_to_be_cancelled_changes_as_the_table_says,
        a_cancelled_execution_changes_as_the_table_says,
        an_ended_execution_changes_as_the_table_says;
    submit:
        a_submission_is_stored_as_it_was_given,
        a_submission_of_a_known_id_changes_nothing,
        an_id_that_many_submit_at_once_is_created_once;
    queue:
        the_most_urgent_is_claimed_first_and_equals_in_the_order_of_submission,
        an_execution_that_is_handed_back_keeps_its_place,
        a_delayed_execution_is_not_claimed_before_it_is_due,
        a_delayed_execution_is_claimed_once_it_is_due,
        a_claimant_gets_only_what_is_in_its_queues,
        a_claimant_of_many_queues_gets_the_most_urgent_of_them,
        many_claimants_get_each_execution_once_and_in_order,
        a_submission_between_the_claim_and_the_wait_ends_the_wait,
        whoever_waits_for_work_is_woken,
        whoever_waits_for_a_named_queue_is_woken,
        a_wait_without_work_comes_to_an_end,
        queues_tell_how_much_waits_in_them_and_how_long;
    lease:
        a_stale_worker_is_fenced_off_from_the_moment_of_the_reclaim,
        a_stale_attempt_of_the_same_worker_is_fenced_off,
        a_worker_is_fenced_off_once_its_execution_has_ended,
        a_worker_is_fenced_off_once_its_execution_is_removed,
        somebody_elses_lease_is_not_renewed,
        a_lease_that_is_renewed_is_not_taken_over,
        a_lease_that_has_run_out_is_taken_over,
        a_lease_that_has_run_out_may_still_be_renewed,
        leases_are_renewed_in_the_order_given,
        a_writer_that_races_with_a_reclaim_adds_nothing_after_it;
    life:
        the_lines_of_each_change_follow_the_rule_of_ids,
        an_end_is_written_together_with_what_is_pending,
        a_finish_that_is_repeated_changes_nothing,
        a_hand_back_that_is_repeated_changes_nothing,
        an_end_is_not_written_over_a_line_that_is_there,
        a_queued_execution_that_is_cancelled_ends_here_and_now,
        the_worker_of_a_running_execution_hears_of_a_cancel,
        the_worker_of_a_running_execution_hears_of_a_pause_and_its_end,
        what_does_not_run_cannot_be_paused,
        a_pause_does_not_outlive_its_attempt,
        a_cancel_that_races_with_the_end_leaves_one_complete_line,
        many_reclaims_at_once_make_one_change;
    log:
        lines_are_read_back_byte_for_byte,
        an_append_that_is_repeated_adds_nothing,
        an_append_that_was_written_in_part_is_completed,
        a_reader_goes_on_from_every_cursor,
        a_cursor_that_nobody_gave_out_is_no_error,
        the_log_of_an_unknown_execution_is_empty,
        a_watch_wakes_after_an_append,
        a_watch_wakes_after_a_change,
        lines_that_come_between_the_watch_and_the_read_are_not_missed,
        a_watch_is_not_woken_by_other_executions;
    list:
        lists_begin_with_the_newest,
        pages_are_whole_while_others_submit,
        a_list_is_filtered_by_everything_at_once,
        filtered_pages_leave_nothing_out;
    retention:
        executions_are_removed_after_their_retention,
        executions_that_have_not_ended_are_kept,
        executions_are_kept_until_their_retention_is_over,
        an_id_that_was_removed_may_be_used_again;
    worker:
        workers_are_listed_until_they_withdraw,
        workers_that_are_silent_are_forgotten,
        messages_reach_the_worker_that_is_meant;
}
