//! The load harness: HTTP load from the same ring that the server runs on, and the truth about how
//! it was answered. Serves nothing.
//!
//! One thread a core sends what is due and tells its [`record::Recorder`] what happens; one more
//! collects what they recorded, and shows it.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "rates, times and counts of a run are positive and below 2^53"
)]

mod engine;
pub mod live;
pub mod measure;
pub mod null;
mod plan;
pub mod record;
mod render;
pub mod report;
mod run;
mod scan;
mod schedule;
pub mod summary;

pub use engine::{Finished, Running, StartError, Unreachable};
pub use plan::{
    ConnectTo, Expect, Malformed, Pin, Plan, PlanError, Rate, Resolve, Sources, Speed, Stages, Url,
    Wanted, time,
};
pub use run::{Options, Outcome, RunError, run};
pub use schedule::{Arrival, Stage};
