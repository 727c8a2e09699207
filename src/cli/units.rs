//! Times, sizes and counts as people write them. Knows no keys and no ranges.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Stands for "no limit", as in setrlimit(2).
const UNLIMITED: &str = "unlimited";

/// Reads `30s`, `500ms`, `1h 30m`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is no time such as 30s or 500ms: {error}"))
}

/// Writes what [`time`] reads.
pub(super) fn time_text(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// Reads `512`, `16KiB`, `10MiB`, `1GiB` or `unlimited`.
pub(super) fn bytes<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let refusal = || format!("`{text}` is no size such as 4096, 16KiB, 10MiB or 1GiB");
    if text == UNLIMITED {
        return narrow(text, u64::MAX);
    }
    let unit = UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let number: u64 = number.trim_end().parse().map_err(|_| refusal())?;
    narrow(text, number.checked_mul(unit).ok_or_else(refusal)?)
}

/// Writes what [`bytes`] reads, in the largest unit that says it exactly.
pub(super) fn bytes_text(bytes: u64) -> String {
    let fits = |unit: u64| bytes >= unit && bytes.is_multiple_of(unit);
    match UNITS.iter().find(|(_, unit)| *unit > 1 && fits(*unit)) {
        _ if bytes == u64::MAX => UNLIMITED.to_owned(),
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Reads a whole number.
pub(super) fn count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = text.parse().map_err(|_| format!("`{text}` is no whole number"))?;
    narrow(text, number)
}

fn narrow<T: TryFrom<u64>>(text: &str, value: u64) -> Result<T, String> {
    let most = u64::MAX >> (u64::BITS as usize - 8 * size_of::<T>());
    value.try_into().map_err(|_| format!("`{text}` is more than {most}, the most there can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_itself_again() {
        for (text, expected) in [
            ("0", 0),
            ("512", 512),
            ("16KiB", 16 << 10),
            ("10MiB", 10 << 20),
            ("3GiB", 3 << 30),
            ("1025", 1025),
            ("unlimited", u64::MAX),
        ] {
            assert_eq!((bytes(text), bytes_text(expected)), (Ok(expected), text.to_owned()));
        }
        assert_eq!(bytes("16 KiB"), Ok(16_384_u16));
        assert_eq!(bytes("7B"), Ok(7_u64));
        for millis in [1, 100, 30_000, 75_000, 86_400_000] {
            let millis = Duration::from_millis(millis);
            assert_eq!(time(&time_text(millis)), Ok(millis));
        }
    }

    #[test]
    fn what_is_neither_says_what_would_be() {
        for text in ["", "KiB", "-1", "1.5MiB", "16kb", "16K", "99999999999999GiB"] {
            let refusal = bytes::<u64>(text).unwrap_err();
            assert!(refusal.contains(&format!("`{text}`")) && refusal.contains("16KiB"));
        }
        assert!(bytes::<u16>("64KiB").unwrap_err().contains("65535"));
        assert!(bytes::<u32>("unlimited").unwrap_err().contains("4294967295"));
        assert!(count::<u16>("70000").unwrap_err().contains("more than 65535"));
        assert_eq!(count("70000"), Ok(70_000_u64));
        assert!(count::<u64>("-1").unwrap_err().contains("no whole number"));
        for text in ["30", "", "half an hour"] {
            assert!(time(text).unwrap_err().contains("such as 30s"), "{text}");
        }
    }
}
