//! What a ring promises on a new kernel it promises on an old one: each optional feature is
//! masked, alone and together with the others, and the promises that lean on it are made again.

mod common;

use common::{features_without, promises};

const MASKS: [&str; 4] = ["", "waitid", "no_iowait", "all"];

macro_rules! with_every_mask {
    ($($promise:ident)*) => {$(
        #[test]
        fn $promise() {
            MASKS.into_iter().map(features_without).for_each(promises::$promise);
        }
    )*};
}

with_every_mask! {
    a_child_that_exits_is_reaped_with_its_code
    a_killed_child_is_reaped_with_its_signal
    a_child_that_ended_before_is_reaped_at_once_and_only_once
    children_are_told_apart
    a_cancelled_wait_leaves_the_child_to_the_next
    a_turn_keeps_its_deadline
    a_turn_without_deadline_waits_for_a_completion
}

#[test]
fn a_mask_takes_away_what_it_names_and_nothing_else() {
    let all = features_without("");
    let no_waitid = features_without("waitid");
    assert!(!no_waitid.waitid);
    assert_eq!(no_waitid.no_iowait, all.no_iowait);
    let old = features_without("all");
    assert!(!old.waitid && !old.no_iowait);
    assert_eq!(old.to_string(), "none");
}
