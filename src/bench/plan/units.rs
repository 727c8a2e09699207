//! Rates, stages, factors and lists as people write them. Knows no flags.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::super::schedule::{Arrival, Stage};

/// Why a text is none of what it should be, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed(pub(super) String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// Requests (or connections) per second: `500`, `50k`, `1.5M`, `100/s`.
///
/// ```
/// use uring_pool::bench::Rate;
///
/// assert_eq!("1.5k".parse::<Rate>().unwrap().per_second(), 1500.0);
/// assert!("fast".parse::<Rate>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Rate(f64);

impl Rate {
    /// More than any machine can do, and little enough for every sum of them.
    const MAX: f64 = 1e9;

    /// `None` unless it is a number from 0 to 10^9.
    pub fn new(per_second: f64) -> Option<Rate> {
        (0.0..=Rate::MAX).contains(&per_second).then_some(Rate(per_second))
    }

    /// The number.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Rate, Malformed> {
        let refusal = || Malformed(format!("`{text}` is no rate such as 500, 50k or 1.5M"));
        let number = text.strip_suffix("/s").unwrap_or(text).trim();
        let (number, unit) = match number.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (&number[..at], 1e3),
            Some((at, 'm' | 'M')) => (&number[..at], 1e6),
            _ => (number, 1.0),
        };
        if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Err(refusal());
        }
        let number: f64 = number.parse().map_err(|_| refusal())?;
        Rate::new(number * unit).ok_or_else(|| {
            Malformed(format!("`{text}` is no rate from 0 to 1000M requests per second"))
        })
    }
}

/// Rates one after another: `10s:1k,30s:1k..50k`.
#[derive(Clone, PartialEq, Debug)]
pub struct Stages(pub(super) Vec<Stage>);

impl Stages {
    /// Nothing is due in any of them.
    pub(super) fn are_empty(&self) -> bool {
        self.0.iter().all(|stage| stage.from <= 0.0 && stage.to <= 0.0)
    }
}

impl FromStr for Stages {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Stages, Malformed> {
        text.split(',').map(stage).collect::<Result<_, _>>().map(Stages)
    }
}

fn stage(text: &str) -> Result<Stage, Malformed> {
    let Some((time, rates)) = text.split_once(':') else {
        return Err(Malformed(format!(
            "`{text}` is no stage such as 10s:1k (a time, a rate) or 30s:1k..50k (a ramp)"
        )));
    };
    let nanos = nanos(self::time(time)?);
    if nanos == 0 {
        return Err(Malformed(format!("the stage `{text}` takes no time")));
    }
    let (from, to) = rates.split_once("..").unwrap_or((rates, rates));
    let (from, to) = (from.parse::<Rate>()?, to.parse::<Rate>()?);
    Ok(Stage { nanos, from: from.per_second(), to: to.per_second() })
}

/// Reads `30s`, `500ms`, `1h 30m`; a bare number is seconds, as with curl and hey.
pub fn time(text: &str) -> Result<Duration, Malformed> {
    let refusal = || Malformed(format!("`{text}` is no time such as 30s, 500ms or 2m"));
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| refusal());
    }
    humantime::parse_duration(text).map_err(|_| refusal())
}

/// As the engine counts it.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl FromStr for Arrival {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Arrival, Malformed> {
        let burst = || text.strip_prefix("burst:")?.parse().ok().filter(|size| *size > 0);
        match text {
            "constant" => Ok(Arrival::Constant),
            "poisson" => Ok(Arrival::Poisson),
            _ => burst().map(Arrival::Burst).ok_or_else(|| {
                Malformed(format!("`{text}` is none of constant, poisson and burst:N"))
            }),
        }
    }
}

/// How much faster than it happened: `2x`, `0.5x`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Speed(pub(super) f64);

impl FromStr for Speed {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Speed, Malformed> {
        let number = text.strip_suffix(['x', 'X']).unwrap_or(text).parse();
        let speed = number.ok().filter(|speed| (1e-6..=1e6).contains(speed));
        speed
            .map(Speed)
            .ok_or_else(|| Malformed(format!("`{text}` is no factor such as 2x or 0.5x")))
    }
}

/// Addresses to connect from: `127.0.0.2`, `127.0.0.2-127.0.0.64`, several with commas.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sources(pub(super) Vec<IpAddr>);

impl Sources {
    /// A range may have so many: more than there are in 127.0.0.0/16 helps nobody.
    const MAX: usize = 1 << 16;
}

impl FromStr for Sources {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Sources, Malformed> {
        let mut sources = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let parse = |text: &str| {
                text.trim().parse::<IpAddr>().map_err(|_| {
                    Malformed(format!(
                        "`{part}` is no address, nor a range such as 127.0.0.2-127.0.0.64"
                    ))
                })
            };
            match (parse(first)?, parse(last)?) {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                    let range = first.to_bits()..=last.to_bits();
                    if sources.len() + range.clone().count() > Sources::MAX {
                        return Err(Malformed(format!("`{text}` is more than 65536 addresses")));
                    }
                    sources.extend(range.map(|bits| IpAddr::V4(bits.into())));
                }
                (first @ IpAddr::V6(_), last) if first == last => sources.push(first),
                (IpAddr::V4(_), IpAddr::V4(_)) => {
                    return Err(Malformed(format!("`{part}` ends before it begins")));
                }
                _ => return Err(Malformed(format!("`{part}`: ranges are of IPv4 addresses"))),
            }
        }
        Ok(Sources(sources))
    }
}

/// Where the load threads run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Pin {
    /// On cores that the server doesn't use, if there are any.
    #[default]
    Auto,
    /// Wherever the scheduler puts them.
    None,
    /// One on each of these, in turn.
    Cores(Vec<usize>),
}

impl FromStr for Pin {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Pin, Malformed> {
        match text {
            "auto" => return Ok(Pin::Auto),
            "none" => return Ok(Pin::None),
            _ => {}
        }
        let cores: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
        let refusal =
            |_| Malformed(format!("`{text}` is none of auto, none and cores such as 1,3"));
        cores.map(Pin::Cores).map_err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_their_units_and_rubbish_is_refused() {
        for (text, rate) in
            [("0", 0.0), ("50k", 5e4), ("1.5M", 1.5e6), ("100/s", 100.0), ("2k/s", 2e3)]
        {
            assert_eq!(text.parse::<Rate>().ok(), Rate::new(rate), "{text}");
        }
        for text in ["", "k", "-1", "nan", "inf", "1e400", "10kk", "2000M", "1 0", "fast"] {
            let refusal = text.parse::<Rate>().unwrap_err().to_string();
            assert!(refusal.contains(&format!("`{text}`")), "{refusal}");
        }
    }

    #[test]
    fn stages_are_times_with_rates_or_ramps() {
        let Stages(stages) = "10s:1k,500ms:1k..50k,1m:0".parse().unwrap();
        let stage = |nanos, from, to| Stage { nanos, from, to };
        assert_eq!(
            stages,
            [
                stage(10_000_000_000, 1e3, 1e3),
                stage(500_000_000, 1e3, 5e4),
                stage(60_000_000_000, 0.0, 0.0)
            ]
        );
        for text in ["", "10s", "10s:", ":1k", "0s:1k", "10s:1k..", "10s:1k,", "x:1"] {
            assert!(text.parse::<Stages>().is_err(), "{text}");
        }
    }

    #[test]
    fn arrivals_speeds_sources_and_pins_say_what_would_be_right() {
        assert_eq!("burst:20".parse(), Ok(Arrival::Burst(20)));
        assert!("burst:0".parse::<Arrival>().unwrap_err().to_string().contains("poisson"));
        assert_eq!("2x".parse(), Ok(Speed(2.0)));
        assert!("0x".parse::<Speed>().is_err() && "x".parse::<Speed>().is_err());
        let Sources(sources) = "127.0.0.2-127.0.0.64,10.0.0.1".parse().unwrap();
        assert_eq!((sources.len(), sources[62].to_string()), (64, "127.0.0.64".to_owned()));
        for text in ["127.0.0.9-127.0.0.2", "127.0.0.1-", "0.0.0.0-255.255.255.255", "::1-::9"] {
            assert!(text.parse::<Sources>().is_err(), "{text}");
        }
        assert_eq!("1,3".parse(), Ok(Pin::Cores(vec![1, 3])));
        assert!("1;3".parse::<Pin>().is_err());
    }

    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(time("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["", "-1", "nan", "10x", "1e30"] {
            assert!(time(text).unwrap_err().to_string().contains("such as 30s"), "{text}");
        }
    }
}
