//! Charts as inline SVG: axes, lines, areas, a heat map. Colours are classes, which the page defines.

use std::fmt::Write;

use super::units::{short, time};
use crate::bench::record::Heat;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;

/// How values become places.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From this to that, which are greater than zero.
    Log(f64, f64),
}

impl Scale {
    /// A linear scale that has room above its greatest value.
    pub(super) fn up_to(most: f64) -> Scale {
        Scale::Linear(if most > 0.0 { most * 1.08 } else { 1.0 })
    }

    /// A logarithmic scale from the decade below to a little above.
    pub(super) fn decades(least: f64, most: f64) -> Scale {
        let least = 10_f64.powf(least.max(1.0).log10().floor());
        Scale::Log(least, (most * 1.3).max(least * 10.0))
    }

    fn part(self, value: f64) -> f64 {
        match self {
            Scale::Linear(most) => value / most,
            Scale::Log(least, most) => (value.max(least) / least).ln() / (most / least).ln(),
        }
    }

    /// Round values within, for the axis.
    fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear(most) => {
                let raw = most / 4.0;
                let decade = 10_f64.powf(raw.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|by| by * decade);
                let step = step.into_iter().find(|step| *step >= raw).unwrap_or(raw);
                (0_u8..32)
                    .map(|number| f64::from(number) * step)
                    .take_while(|it| *it <= most)
                    .collect()
            }
            Scale::Log(least, most) => {
                let first = least.log10().floor();
                let decades = (most.log10() - first).ceil() as i32;
                let fine = if decades <= 2 { &[1.0, 2.0, 5.0][..] } else { &[1.0][..] };
                let begin = 10_f64.powf(first);
                (0..=decades)
                    .flat_map(|decade| fine.iter().map(move |by| begin * by * 10_f64.powi(decade)))
                    .filter(|tick| (least..=most).contains(tick))
                    .collect()
            }
        }
    }
}

/// A chart that is being drawn.
#[derive(Debug)]
pub(super) struct Chart {
    svg: String,
    height: f64,
    x: Scale,
    y: Scale,
}

impl Chart {
    /// An empty one with this title for those who hear the page.
    pub(super) fn new(title: &str, height: f64, x: Scale, y: Scale) -> Chart {
        let mut svg = String::new();
        let _ = write!(svg, "<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{title}'>");
        Chart { svg, height, x, y }
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.part(value).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        let room = self.height - TOP - BOTTOM;
        TOP + room - self.y.part(value).clamp(0.0, 1.0) * room
    }

    /// The vertical axis with its grid.
    pub(super) fn y_axis(&mut self, label: fn(f64) -> String) {
        for tick in self.y.ticks() {
            let (y, right) = (self.at_y(tick), WIDTH - RIGHT);
            let _ = write!(
                self.svg,
                "<path class='grid' d='M{LEFT} {y:.1}H{right}'/>\
                 <text x='{:.0}' y='{:.1}' text-anchor='end'>{}</text>",
                LEFT - 8.0,
                y + 4.0,
                label(tick)
            );
        }
    }

    /// Labels at these places of the horizontal axis, with their grid.
    pub(super) fn x_labels(&mut self, labels: impl IntoIterator<Item = (f64, String)>) {
        let bottom = self.height - BOTTOM;
        for (value, label) in labels {
            let x = self.at_x(value);
            let _ = write!(
                self.svg,
                "<path class='grid' d='M{x:.1} {TOP}V{bottom:.1}'/>\
                 <text x='{x:.1}' y='{:.1}' text-anchor='middle'>{label}</text>",
                bottom + 18.0
            );
        }
    }

    /// A horizontal axis of seconds.
    pub(super) fn seconds_axis(&mut self) {
        let Scale::Linear(most) = self.x else { return };
        let ticks = Scale::Linear(most * 0.5).ticks();
        let step = ticks.get(1).copied().unwrap_or(1.0);
        let ticks = (0..).map(|number| f64::from(number) * step).take_while(|it| *it <= most);
        let labels: Vec<(f64, String)> =
            ticks.map(|tick| (tick, format!("{} s", (tick * 100.0).round() / 100.0))).collect();
        self.x_labels(labels);
    }

    /// A stretch of the horizontal axis that is set apart, with words.
    pub(super) fn shade(&mut self, from: f64, to: f64, words: &str) {
        let (left, right) = (self.at_x(from), self.at_x(to));
        if right - left < 0.5 {
            return;
        }
        let height = self.height - TOP - BOTTOM;
        let _ = write!(
            self.svg,
            "<rect class='shade' x='{left:.1}' y='{TOP}' width='{:.1}' height='{height:.1}'>\
             <title>{words}</title></rect>",
            right - left
        );
        if right - left > 60.0 {
            let _ = write!(
                self.svg,
                "<text class='faint' x='{:.1}' y='{:.1}' text-anchor='middle'>{words}</text>",
                f64::midpoint(left, right),
                self.height - BOTTOM - 8.0
            );
        }
    }

    /// A line through these points; where there is none, it is interrupted.
    pub(super) fn line(
        &mut self,
        class: &str,
        points: impl IntoIterator<Item = (f64, Option<f64>)>,
    ) {
        let (mut path, mut pen) = (String::new(), 'M');
        let mut last = (f64::NAN, f64::NAN);
        for (x, y) in points {
            let Some(y) = y else {
                if pen == 'L' {
                    path.push_str("h0"); // so that one that is alone shows as a dot
                }
                pen = 'M';
                continue;
            };
            let (x, y) = (self.at_x(x), self.at_y(y));
            if pen == 'L' && (x - last.0).abs() < 0.3 && (y - last.1).abs() < 0.3 {
                continue;
            }
            let _ = write!(path, "{pen}{x:.1} {y:.1}");
            (pen, last) = ('L', (x, y));
        }
        if !path.is_empty() {
            let _ = write!(self.svg, "<path class='line {class}' d='{path}'/>");
        }
    }

    /// A point with words.
    pub(super) fn mark(&mut self, class: &str, x: f64, y: f64, words: &str) {
        let (x, y) = (self.at_x(x), self.at_y(y));
        let _ = write!(
            self.svg,
            "<circle class='mark {class}' cx='{x:.1}' cy='{y:.1}' r='4'><title>{words}</title></circle>"
        );
    }

    /// The counts of a heat map: times over seconds, of which the scales must be.
    pub(super) fn heat(&mut self, heat: &Heat) {
        let columns: Vec<&[u32]> = heat.columns().collect();
        let Some(most) = columns.iter().flat_map(|column| column.iter()).max().copied() else {
            return;
        };
        let mut paths = vec![String::new(); LEVELS];
        for (number, column) in columns.iter().enumerate() {
            let begin = number as f64 * heat.width() as f64 / 1e9;
            let (left, right) = (self.at_x(begin), self.at_x(begin + heat.width() as f64 / 1e9));
            let mut row = 0;
            while row < column.len() {
                let level = level(column[row], most);
                // Neighbours of one colour are one rectangle.
                let end = (row..column.len())
                    .find(|it| self::level(column[*it], most) != level)
                    .unwrap_or(column.len());
                if let Some(level) = level {
                    let bottom = self.at_y(Heat::row_begin(row) as f64);
                    let top = self.at_y(Heat::row_begin(end) as f64);
                    let _ = write!(
                        paths[level],
                        "M{left:.1} {bottom:.1}H{right:.1}V{top:.1}H{left:.1}Z",
                        right = right + 0.15, // no seams
                    );
                }
                row = end;
            }
        }
        for (level, path) in paths.iter().enumerate() {
            if !path.is_empty() {
                let _ = write!(self.svg, "<path class='heat h{level}' d='{path}'/>");
            }
        }
    }

    /// The whole picture.
    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// Colours of a heat map.
pub(super) const LEVELS: usize = 8;

/// The colour of a count, on a logarithmic scale, since a single slow request must show.
fn level(count: u32, most: u32) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let part = f64::from(count).ln_1p() / f64::from(most).ln_1p();
    Some(((part * LEVELS as f64) as usize).min(LEVELS - 1))
}

/// Labels of an axis of times.
pub(super) fn time_label(nanos: f64) -> String {
    time(nanos.round() as u64).replace(".00", "").replace(".0 ", " ")
}

/// Labels of an axis of counts.
pub(super) fn count_label(count: f64) -> String {
    short(count).replace(".00", "").replace(".0k", "k").replace(".0M", "M")
}
