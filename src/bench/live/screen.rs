//! The screen: how far the run is, its rate, its times, and where in time they were. Draws into
//! whatever room there is.

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, RenderDirection, Sparkline};

use super::{History, failed, percentiles};
use crate::bench::record::{Heat, Live, times};
use crate::bench::report::units::{bytes, count, rate, time, time_or_not};
use crate::bench::summary::Censored;

/// Columns of the table of times.
const TIMES_WIDTH: u16 = 36;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, history: &History, live: &Live<'_>, elapsed: Duration) {
    let [title, progress, figures, heat, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(8),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let words =
        vec![Line::from(history.title.clone().bold()), Line::from(history.load.clone().dim())];
    frame.render_widget(Paragraph::new(words), title);
    draw_progress(frame, progress, history, live, elapsed);
    let [left, right] =
        Layout::horizontal([Constraint::Min(20), Constraint::Length(TIMES_WIDTH)]).areas(figures);
    draw_rate(frame, left, history, live);
    draw_times(frame, right, history, live);
    draw_heat(frame, heat, history);
    let help = Line::from(" q ends the run; what was measured until then is summed up").dim();
    frame.render_widget(Paragraph::new(help), keys);
}

fn draw_progress(
    frame: &mut Frame<'_>,
    area: Rect,
    history: &History,
    live: &Live<'_>,
    elapsed: Duration,
) {
    let elapsed = elapsed.as_secs_f64();
    let (part, words) = match (history.expected, history.requests) {
        (Some(all), _) if elapsed > all.as_secs_f64() => (1.0, "waiting for answers".to_owned()),
        (Some(all), _) => {
            let all = all.as_secs_f64();
            ((elapsed / all.max(0.001)).min(1.0), format!("{elapsed:.0} of {all:.0} s"))
        }
        (None, Some(all)) => {
            let done = live.total.answers + live.total.failed();
            let part = (done as f64 / all.max(1) as f64).min(1.0);
            (part, format!("{} of {} requests", count(done), count(all)))
        }
        (None, None) => (0.0, format!("{elapsed:.0} s")),
    };
    let gauge = Gauge::default().ratio(part).label(words).use_unicode(true);
    frame.render_widget(gauge.gauge_style(Style::new().fg(Color::Blue).bg(Color::DarkGray)), area);
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, history: &History, live: &Live<'_>) {
    let block = Block::bordered().title(" requests per second ").border_style(Style::new().dim());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let now = history.now();
    let (ok, wrong) = now.map_or((0.0, 0.0), |now| (now.rate, now.failed));
    let failures = failed(live.total);
    let mut first = vec![Span::from(rate(ok)).bold(), Span::from(" now").dim()];
    if wrong > 0.0 {
        first.push(Span::from(format!("   {} fail", rate(wrong))).red());
    }
    let mut counts = vec![Span::from(format!("{} ok", count(live.total.answers)))];
    let failed = format!("  {} failed", count(failures));
    counts.push(if failures > 0 { failed.red() } else { failed.into() });
    let due = format!("  {} due", count(live.backlog));
    let state = format!(
        "{} connections  {} under way{}",
        count(live.connections),
        count(live.in_flight),
        if history.settings.open_loop { &due } else { "" },
    );
    let received = format!("{} received", bytes(live.total.bytes_received as f64));
    let lines =
        vec![Line::from(first), Line::from(counts), Line::from(state), Line::from(received).dim()];
    let [words, graph] = Layout::vertical([Constraint::Length(4), Constraint::Min(0)]).areas(inner);
    frame.render_widget(Paragraph::new(lines), words);
    let skip = history.slots.len().saturating_sub(graph.width.into());
    let rates = history.slots.iter().skip(skip).rev().map(|slot| slot.rate().round() as u64);
    let rates: Vec<u64> = rates.collect();
    // The newest on the right, as below.
    let bars = Sparkline::default().data(&rates).direction(RenderDirection::RightToLeft);
    frame.render_widget(bars.style(Style::new().fg(Color::Blue)), graph);
}

fn draw_times(frame: &mut Frame<'_>, area: Rect, history: &History, live: &Live<'_>) {
    let name = if history.settings.open_loop { " response times " } else { " times " };
    let block = Block::bordered().title(name).border_style(Style::new().dim());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let all = percentiles(&Censored::new(live.response.clone(), times()));
    let now = history.now().map(|now| percentiles(&now.times));
    let mut lines = vec![Line::from(format!("{:<6}{:>13}{:>13}", "", "so far", "now")).dim()];
    for (number, (name, percentile)) in all.into_iter().enumerate() {
        let now = now.as_ref().and_then(|now| now[number].1);
        let say = |percentile: Option<crate::bench::summary::Percentile>| {
            time_or_not(percentile.map(|it| it.nanos), false)
        };
        let row = Line::from(format!("{name:<6}{:>13}{:>13}", say(percentile), say(now)));
        lines.push(if name == "p99" { row.bold() } else { row });
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

/// Times over time: a column a slot, the newest on the right, the denser the more requests.
fn draw_heat(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let mut block =
        Block::bordered().title(" how long answers took ").border_style(Style::new().dim());
    if let Some(newest) = history.slots.back() {
        block =
            block.title_bottom(format!(" a column is {}, the newest right ", time(newest.nanos)));
    }
    let inner = block.inner(area);
    frame.render_widget(block, area);
    const LABELS: u16 = 9;
    if inner.height < 2 || inner.width <= LABELS {
        return;
    }
    let columns = usize::from(inner.width - LABELS);
    let slots: Vec<&super::Slot> =
        history.slots.iter().skip(history.slots.len().saturating_sub(columns)).collect();
    let is_used = |row: &usize| slots.iter().any(|slot| slot.rows[*row] > 0);
    let rows = Heat::rows();
    let (Some(first), Some(last)) = ((0..rows).find(is_used), (0..rows).rev().find(is_used)) else {
        return;
    };
    // So many rows of the grid are one of the screen.
    let per_line = (last - first + 1).div_ceil(inner.height.into());
    let buffer = frame.buffer_mut();
    let lines = (last - first + 1).div_ceil(per_line);
    let most = slots
        .iter()
        .flat_map(|slot| (0..lines).map(|line| sum(&slot.rows, first + line * per_line, per_line)))
        .max()
        .unwrap_or(0);
    for line in 0..lines {
        let y = inner.bottom() - 1 - line as u16;
        let begin = first + line * per_line;
        if line % 2 == 0 {
            let label = time(Heat::row_begin(begin));
            buffer.set_string(inner.x, y, format!("{label:>8}"), Style::new().dim());
        }
        for (column, slot) in slots.iter().enumerate() {
            let x = inner.right() - (slots.len() - column) as u16;
            cell(buffer, x, y, sum(&slot.rows, begin, per_line), most);
        }
    }
}

fn sum(rows: &[u32], begin: usize, count: usize) -> u64 {
    rows.iter().skip(begin).take(count).map(|count| u64::from(*count)).sum()
}

/// A cell whose density says how many; on a logarithmic scale, since one slow request must show.
fn cell(buffer: &mut Buffer, x: u16, y: u16, count: u64, most: u64) {
    const DENSITIES: [&str; 5] = ["·", "░", "▒", "▓", "█"];
    if count == 0 {
        return;
    }
    let part = (count as f64).ln_1p() / (most as f64).ln_1p();
    let density = ((part * DENSITIES.len() as f64) as usize).min(DENSITIES.len() - 1);
    let style = Style::new().fg(Color::Cyan);
    let style = if density == 0 { style.add_modifier(Modifier::DIM) } else { style };
    buffer.set_string(x, y, DENSITIES[density], style);
}
