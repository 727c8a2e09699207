//! A run while it runs: on a screen where there is a terminal, in a line a second where there is
//! none. Shows what was answered so far; judges nothing, and costs the load threads nothing.

mod screen;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Stderr, Write, stderr, stdin};
use std::time::Duration;

use hdrhistogram::Histogram;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::plan::Plan;
use super::record::{Counts, Heat, Interval, Live, Settings, times};
use super::report::units::{count, rate, time_or_not};
use super::summary::{Censored, Percentile};

/// A screen is drawn so often: more than people see.
const FRAME: Duration = Duration::from_millis(100);
/// And a line is written so often.
const LINE: Duration = Duration::from_secs(1);
/// Slots that a screen may show: wider ones don't exist.
const COLUMNS_MAX: usize = 512;
/// What is shown of "now" is a mean over so long: steady enough to be read.
const NOW_NANOS: u64 = 1_000_000_000;

/// Shows a run.
pub struct View {
    medium: Medium,
    history: History,
    shown_at: Option<Duration>,
}

/// Where it is shown.
enum Medium {
    Screen(Box<Terminal<CrosstermBackend<Stderr>>>),
    Lines,
}

/// How much is to be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// A screen if standard error and standard input are a terminal, else lines.
    Screen,
    /// Lines, also on a terminal.
    Lines,
}

/// What is known of the run's past, slot by slot.
#[derive(Debug)]
struct History {
    title: String,
    load: String,
    expected: Option<Duration>,
    /// How many requests there will be, if that is what ends it.
    requests: Option<u64>,
    settings: Settings,
    slots: VecDeque<Slot>,
}

/// One slot.
#[derive(Clone, Debug)]
struct Slot {
    from: u64,
    nanos: u64,
    ok: u64,
    failed: u64,
    /// Kept while it belongs to [`Now`]: 270 KB.
    times: Option<Histogram<u64>>,
    /// Its requests by their time, as [`Heat`] has rows.
    rows: Vec<u32>,
}

impl View {
    /// Begins to show the run of a plan.
    ///
    /// # Errors
    ///
    /// The terminal can't be used as a screen.
    pub fn new(wish: Wish, plan: &Plan) -> io::Result<View> {
        let (title, load) = plan.words();
        let settings = plan.recording();
        let expected = settings.expected.map(Duration::from_nanos);
        let is_terminal = stderr().is_terminal() && stdin().is_terminal();
        let medium = match wish {
            Wish::Screen if is_terminal => {
                enable_raw_mode()?;
                execute!(stderr(), EnterAlternateScreen).inspect_err(|_| leave())?;
                let screen = Terminal::new(CrosstermBackend::new(stderr()));
                Medium::Screen(Box::new(screen.inspect_err(|_| leave())?))
            }
            Wish::Screen | Wish::Lines => Medium::Lines,
        };
        let requests = plan.requests.filter(|_| expected.is_none());
        let history = History { title, load, expected, requests, settings, slots: VecDeque::new() };
        Ok(View { medium, history, shown_at: None })
    }

    /// Shows how the run is now. `false` when whoever watches wants it to end.
    pub fn show(&mut self, live: &Live<'_>, elapsed: Duration) -> bool {
        self.history.take(live);
        let pause = match self.medium {
            Medium::Screen(_) => FRAME,
            Medium::Lines => LINE,
        };
        // The first line comes when there is something to tell.
        let last = self.shown_at.unwrap_or_default();
        if elapsed < last + pause {
            return true;
        }
        // From the time that was due, so that lines don't drift; from now after a long pause.
        let due = last + pause;
        self.shown_at = Some(if elapsed < due + pause { due } else { elapsed });
        match &mut self.medium {
            Medium::Screen(terminal) => {
                // A terminal that went away is no reason to end the run.
                let _gone =
                    terminal.draw(|frame| screen::draw(frame, &self.history, live, elapsed));
                !wants_end()
            }
            Medium::Lines => {
                let _gone = writeln!(stderr(), "{}", self.history.line(live, elapsed));
                true
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if matches!(self.medium, Medium::Screen(_)) {
            leave();
        }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("history", &self.history).finish_non_exhaustive()
    }
}

/// Gives the terminal back as it was.
fn leave() {
    let _gone = execute!(stderr(), LeaveAlternateScreen);
    let _gone = disable_raw_mode();
}

/// `q`, Escape or Ctrl-C was pressed.
fn wants_end() -> bool {
    let mut wants = false;
    while event::poll(Duration::ZERO).unwrap_or(false) {
        if let Ok(Event::Key(key)) = event::read() {
            let is_interrupt =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            wants |= is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
        }
    }
    wants
}

impl History {
    /// Takes over the slots that are whole: all but the newest two, to which threads still add.
    fn take(&mut self, live: &Live<'_>) {
        let whole = live.newest.len().saturating_sub(1);
        for interval in &live.newest[..whole] {
            if self.slots.back().is_none_or(|last| interval.from > last.from) {
                self.slots.push_back(Slot::of(interval, self.settings));
            }
        }
        while self.slots.len() > COLUMNS_MAX {
            self.slots.pop_front();
        }
        let end = self.slots.back().map_or(0, Slot::end);
        let mut older = self.slots.iter_mut().rev().skip_while(|slot| slot.is_recent(end));
        while older.next().is_some_and(|slot| slot.times.take().is_some()) {}
    }

    /// Slots of about the last second, together.
    fn now(&self) -> Option<Now> {
        let end = self.slots.back()?.end();
        let recent = self.slots.iter().rev().take_while(|slot| slot.is_recent(end));
        let (mut nanos, mut ok, mut failed, mut all) = (0, 0, 0, times());
        for slot in recent {
            (nanos, ok, failed) = (nanos + slot.nanos, ok + slot.ok, failed + slot.failed);
            if let Some(times) = &slot.times {
                all.add(times).expect("their bounds are the same");
            }
        }
        let seconds = nanos as f64 / 1e9;
        let times = Censored::new(all, times());
        Some(Now { rate: ok as f64 / seconds, failed: failed as f64 / seconds, times })
    }

    /// The run in a line.
    fn line(&self, live: &Live<'_>, elapsed: Duration) -> String {
        if self.expected.is_some_and(|all| elapsed > all + LINE) {
            let waiting = "waiting for answers";
            return format!(
                "{:>6.1} s {waiting}: {}",
                elapsed.as_secs_f64(),
                count(live.in_flight)
            );
        }
        let now = self.now();
        let time = |part: f64| {
            let percentile = now.as_ref().and_then(|now| now.times.percentile(part));
            time_or_not(percentile.map(|it| it.nanos), false)
        };
        let rate = now.as_ref().map_or("–".to_owned(), |now| rate(now.rate));
        let mut words = format!(
            "{:>6.1} s {rate:>10}/s   p50 {:>8}   p99 {:>8}   failed {}",
            elapsed.as_secs_f64(),
            time(0.5),
            time(0.99),
            count(failed(live.total)),
        );
        if self.settings.open_loop {
            let _infallible = write!(words, "   backlog {}", count(live.backlog));
        }
        words
    }
}

/// About the last second.
struct Now {
    rate: f64,
    failed: f64,
    times: Censored,
}

impl Slot {
    fn of(interval: &Interval, settings: Settings) -> Slot {
        let times = interval.times.of(settings.response());
        let mut rows = vec![0_u32; Heat::rows()];
        for step in times.iter_recorded() {
            let row = &mut rows[Heat::row_of(step.value_iterated_to())];
            *row = row.saturating_add(u32::try_from(step.count_at_value()).unwrap_or(u32::MAX));
        }
        Slot {
            from: interval.from,
            nanos: (interval.to - interval.from).max(1),
            ok: interval.counts.answers,
            failed: interval.counts.failed(),
            times: Some(times),
            rows,
        }
    }

    fn end(&self) -> u64 {
        self.from + self.nanos
    }

    /// It is of the last second before `end`.
    fn is_recent(&self, end: u64) -> bool {
        self.from + NOW_NANOS >= end
    }

    fn rate(&self) -> f64 {
        self.ok as f64 / (self.nanos as f64 / 1e9)
    }
}

fn failed(counts: &Counts) -> u64 {
    counts.failed() + counts.connect_failures
}

/// Percentiles that a view shows, with their names.
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

fn percentiles(times: &Censored) -> Vec<(&'static str, Option<Percentile>)> {
    let known = PERCENTILES.map(|(name, part)| (name, times.percentile(part)));
    known.into_iter().chain([("max", times.max())]).collect()
}
