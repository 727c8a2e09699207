//! The load generator: plans, schedules, sends, checks and counts. Knows HTTP/1 as a client does;
//! serves nothing, draws nothing on a screen.

mod scan;
mod schedule;
