//! The series as CSV (RFC 4180), a line a slot: for spreadsheets and plots.

use std::fmt::Write;

use crate::bench::summary::Summary;

/// The series. Times in nanoseconds, rates per second; what isn't known is empty.
pub fn csv(summary: &Summary) -> String {
    let mut text = String::from(
        "at_s,is_warmup,sent_per_s,ok_per_s,failed_per_s,p50_ns,p99_ns,max_ns,client_cores,server_cores\r\n",
    );
    for point in &summary.series {
        let time = |nanos: Option<u64>| nanos.map_or(String::new(), |nanos| nanos.to_string());
        let cores = |cores: Option<f64>| cores.map_or(String::new(), |cores| format!("{cores:.3}"));
        let _ = write!(
            text,
            "{:.3},{},{:.1},{:.1},{:.1},{},{},{},{},{}\r\n",
            point.at as f64 / 1e9,
            point.at < summary.window.from,
            point.sent,
            point.ok,
            point.failed,
            time(point.p50),
            time(point.p99),
            time(point.max),
            cores(point.client_cores),
            cores(point.server_cores),
        );
    }
    text
}
