//! An HDR interval log (`.hlog`), which `HdrHistogram`'s own tools read: histograms of the response
//! times, an interval a slot, and under tags the lower bounds of requests without an answer
//! (`at-least`), and at a rate the service times and the generator's lag.

use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::bench::record::Clock;
use crate::bench::summary::Summary;

/// The log. Values are nanoseconds; the maxima beside them milliseconds, as is usual.
pub fn hlog(summary: &Summary) -> Vec<u8> {
    let began = UNIX_EPOCH + Duration::from_secs(summary.setup.started_at);
    let record = &summary.record;
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Logged with uring-pool bench; values in ns]")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e6);
    let mut writer =
        builder.begin_log_with(&mut log, &mut serializer).expect("memory takes everything");
    let clocks = [
        (record.settings.response(), None),
        (record.settings.response_at_least(), Tag::new("at-least")),
        (Clock::Service, Tag::new("service")),
        (Clock::Lag, Tag::new("lag")),
    ];
    let clocks = if summary.setup.load.is_open() { &clocks[..] } else { &clocks[..2] };
    for (number, slot) in (0..).zip(&record.slots) {
        let from = Duration::from_nanos(number * record.slot_nanos);
        for (clock, tag) in clocks {
            if let Some(times) = slot.times(*clock) {
                let length = Duration::from_nanos(record.slot_nanos);
                writer
                    .write_histogram(&times, from, length, *tag)
                    .expect("memory takes everything");
            }
        }
    }
    log
}
