//! A record as JSON: histograms as `HdrHistogram`'s compressed V2 format in base64, which other
//! tools read; nothing is rounded or left out.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Decoder, Serializer as _, V2DeflateSerializer};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde::ser::{SerializeMap, Serializer};

use super::STATUSES;
use super::collect::{SLOTS_MAX, Slot, encode};
use super::interval::{CLOCKS, Clock, times};

/// A histogram as text: `HISTFAAA…`, what other tools write into their logs.
///
/// ```
/// use uring_pool::bench::record::{compressed, times, uncompressed};
///
/// let mut latencies = times();
/// latencies.saturating_record(1_234);
/// assert_eq!(uncompressed(&compressed(&latencies)).unwrap(), latencies);
/// ```
pub fn compressed(times: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(times, &mut bytes).expect("memory takes everything");
    STANDARD.encode(bytes)
}

/// Reads what [`compressed`] writes, or another tool.
///
/// # Errors
///
/// What is wrong: it isn't base64, isn't a histogram, or has longer times than an hour.
pub fn uncompressed(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("no base64: {error}"))?;
    let read: Histogram<u64> = Decoder::new()
        .deserialize(&mut &bytes[..])
        .map_err(|error| format!("no histogram: {error:?}"))?;
    let mut known = times();
    known.add(read).map_err(|error| format!("times out of bounds: {error}"))?;
    Ok(known)
}

pub(super) fn slot_nanos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(D::Error::custom("slots of no length")),
        nanos => Ok(nanos),
    }
}

pub(super) fn slots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Slot>, D::Error> {
    let slots = Vec::deserialize(deserializer)?;
    if slots.len() as u64 > SLOTS_MAX {
        return Err(D::Error::custom("too many slots"));
    }
    Ok(slots)
}

/// Counts by status code, those that are not zero.
pub(super) mod statuses {
    use super::{BTreeMap, Deserialize, Deserializer, STATUSES, Serializer};

    pub(crate) fn serialize<S: Serializer>(counts: &[u64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(counts.iter().enumerate().filter(|(_, count)| **count > 0))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
        let mut counts = vec![0; STATUSES];
        for (status, count) in BTreeMap::<usize, u64>::deserialize(from)? {
            counts[if status < STATUSES { status } else { 0 }] += count;
        }
        Ok(counts)
    }
}

/// Histograms by clock, those that are not empty.
pub(super) mod times {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        times: &[Box<[u8]>; CLOCKS],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for clock in Clock::ALL {
            if let mut bytes @ [_, ..] = &times[clock as usize][..] {
                let times =
                    Decoder::new().deserialize(&mut bytes).expect("what was serialized here");
                map.serialize_entry(&clock, &compressed(&times))?;
            }
        }
        map.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[Box<[u8]>; CLOCKS], D::Error> {
        let mut times = std::array::from_fn(|_| Box::default());
        for (clock, text) in BTreeMap::<Clock, String>::deserialize(from)? {
            times[clock as usize] = encode(&uncompressed(&text).map_err(D::Error::custom)?);
        }
        Ok(times)
    }
}

/// Histograms one after another.
pub(super) mod histograms {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        all: &[Histogram<u64>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().map(compressed))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Histogram<u64>>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let read = |text: &String| uncompressed(text).map_err(D::Error::custom);
        texts.iter().map(read).collect()
    }
}
