//! What stands between strangers and handlers, and is no connection's own business: rates, request
//! ids, lines of the access log. Knows no connections, no processes and no clock.

mod rate;

pub(crate) use rate::{Quota, RateTable, Verdict};
