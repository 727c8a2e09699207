//! Figures as people read them: three digits and a unit.

/// A time: `850 ns`, `262 µs`, `1.20 ms`, `3.41 s`.
pub fn time(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => scaled(nanos, 1e3, "µs"),
        1_000_000..1_000_000_000 => scaled(nanos, 1e6, "ms"),
        _ => scaled(nanos, 1e9, "s"),
    }
}

/// A time that may be a lower bound, or not known.
pub(crate) fn time_or_not(nanos: Option<u64>, at_least: bool) -> String {
    match nanos {
        None => "–".to_owned(),
        Some(nanos) if at_least => format!("≥ {}", time(nanos)),
        Some(nanos) => time(nanos),
    }
}

fn scaled(nanos: u64, unit: f64, name: &str) -> String {
    format!("{} {name}", digits(nanos as f64 / unit))
}

/// Three digits of a number from 0 to some thousands.
pub(crate) fn digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// A count, in groups of three digits: `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate of requests: `234,567`; `12.3` where it is small.
pub fn rate(rate: f64) -> String {
    if rate < 99.95 { digits(rate) } else { count(rate.round() as u64) }
}

/// A count in short: `850`, `12.3k`, `4.56M`.
pub(crate) fn short(value: f64) -> String {
    match value {
        _ if value >= 999_500.0 => format!("{}M", digits(value / 1e6)),
        _ if value >= 9_995.0 => format!("{}k", digits(value / 1e3)),
        _ if value >= 99.95 || value.fract() == 0.0 => format!("{value:.0}"),
        _ => digits(value),
    }
}

/// An amount of bytes: `180 B`, `12.3 KiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.iter().find(|(_, bits)| bytes >= f64::from(1_u32 << bits));
    match unit {
        Some((name, bits)) => format!("{} {name}", digits(bytes / f64::from(1_u32 << bits))),
        None => format!("{bytes:.0} B"),
    }
}

/// A share: `12.3 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", digits(share * 100.0))
}

/// Seconds and tenths: `9.6 s`; less than one as times are.
pub(crate) fn seconds(nanos: u64) -> String {
    match nanos {
        0 => "0 s".to_owned(),
        1..950_000_000 => time(nanos),
        _ => format!("{:.1} s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_that_suits() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (262_144, "262 µs"),
            (12_345, "12.3 µs"),
            (1_204_000, "1.20 ms"),
            (99_960_000, "100 ms"),
            (3_410_000_000, "3.41 s"),
            (3_600_000_000_000, "3600 s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(time(nanos), text);
        }
        assert_eq!(time_or_not(None, true), "–");
        assert_eq!(time_or_not(Some(2_410_000_000), true), "≥ 2.41 s");
    }

    #[test]
    fn counts_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!((rate(12.345), rate(123_456.7)), ("12.3".to_owned(), "123,457".to_owned()));
        let shorts: Vec<String> = [0.5, 7.0, 850.0, 12_340.0, 4_560_000.0].map(short).to_vec();
        assert_eq!(shorts, ["0.50", "7", "850", "12.3k", "4.56M"]);
        assert_eq!(bytes(180.0), "180 B");
        assert_eq!(bytes(12.3 * 1024.0), "12.3 KiB");
        assert_eq!(bytes(44_145_050.0), "42.1 MiB");
        assert_eq!(percent(0.123_4), "12.3 %");
        assert_eq!((seconds(9_640_000_000).as_str(), seconds(151_000)), ("9.6 s", "151 µs".into()));
    }
}
