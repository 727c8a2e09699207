//! The load harness: HTTP load from the same ring that the server runs on, and the truth about how
//! it was answered. Serves nothing.
//!
//! One thread a core sends what is due and tells its [`record::Recorder`] what happens; one more
//! collects what they recorded, and shows it.

mod engine;
mod plan;
pub mod record;
mod render;
mod scan;
mod schedule;

pub use engine::{Finished, Running, StartError, Unreachable};
pub use plan::{
    ConnectTo, Expect, Malformed, Pin, Plan, PlanError, Rate, Resolve, Sources, Speed, Stages, Url,
    Wanted, time,
};
pub use schedule::{Arrival, Stage};
