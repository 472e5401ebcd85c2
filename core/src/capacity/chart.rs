//! Pictures of a review, as SVG that reads well on paper: few lines, labels beside what they name, colours that the colour-blind can
//! tell apart (Okabe and Ito) and that differ in grey.

use std::fmt::Write;

use maud::{Markup, html};

use super::numbers::{DAY, HOUR, human};
use crate::decision::time::{self, Nanos};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 24.0;

/// In the order in which they are used.
pub const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#999999", "#333333"];

/// Round steps up to a little more than `most`.
fn ticks(most: f64) -> Vec<f64> {
    let most = if most > 0.0 { most } else { 1.0 };
    let rough = most / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|s| s * power)
        .find(|s| *s >= rough)
        .unwrap_or(power);
    (0..=(most / step).ceil() as usize).map(|i| i as f64 * step).collect()
}

/// Where times and values stand in a picture.
struct Frame {
    from: Nanos,
    to: Nanos,
    height: f64,
    ticks: Vec<f64>,
}

impl Frame {
    fn new(from: Nanos, to: Nanos, most: f64, height: f64) -> Frame {
        Frame { from, to: to.max(from + 1), height, ticks: ticks(most) }
    }

    fn x(&self, at: Nanos) -> f64 {
        LEFT + (at - self.from) as f64 / (self.to - self.from) as f64 * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let top = self.ticks.last().copied().unwrap_or(1.0);
        self.height - BOTTOM - value / top * (self.height - TOP - BOTTOM)
    }

    /// Times to name: at most ten, at round hours or days.
    fn times(&self) -> Vec<(Nanos, String)> {
        let span = self.to - self.from;
        let step = [1, 2, 3, 6, 12, 24, 48, 168, 336, 720, 2160, 8760]
            .into_iter()
            .map(|h| h * HOUR)
            .find(|s| span / s <= 10)
            .unwrap_or(span.max(1));
        let first = self.from.div_euclid(step) * step
            + if self.from.rem_euclid(step) == 0 { 0 } else { step };
        let name = |at: Nanos| {
            let text = time::format(at);
            if step < DAY && at % (DAY) != 0 {
                text[11..16].to_owned()
            } else {
                text[5..10].to_owned()
            }
        };
        (0..)
            .map(|i| first + i * step)
            .take_while(|at| *at <= self.to)
            .map(|at| (at, name(at)))
            .collect()
    }

    fn draw(&self, label: &str, inside: &Markup) -> Markup {
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {}", self.height)) role="img" aria-label=(label) {
                @for tick in &self.ticks {
                    line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(px(self.y(*tick))) y2=(px(self.y(*tick))) {}
                    text class="axis" x=(LEFT - 6.0) y=(px(self.y(*tick) + 4.0)) text-anchor="end" { (human(*tick)) }
                }
                (inside)
                @for (at, name) in self.times() {
                    line class="tick" x1=(px(self.x(at))) x2=(px(self.x(at))) y1=(px(self.height - BOTTOM)) y2=(px(self.height - BOTTOM + 4.0)) {}
                    text class="axis" x=(px(self.x(at))) y=(px(self.height - 6.0)) text-anchor="middle" { (name) }
                }
            }
        }
    }
}

fn px(at: f64) -> String {
    format!("{at:.1}")
}

/// Values that stand for a stretch of time each.
pub struct Steps {
    pub name: String,
    pub values: Vec<f64>,
}

fn legend(names: &[(&str, &str)]) -> Markup {
    html! {
        p class="legend" {
            @for (name, colour) in names {
                span { i style=(format!("background:{colour}")) {} (name) }
            }
        }
    }
}

/// An outline over steps of `width` from `from` on.
fn outline(frame: &Frame, from: Nanos, width: Nanos, values: impl Iterator<Item = f64>) -> String {
    let mut path = String::new();
    for (i, value) in values.enumerate() {
        let start = from + i as Nanos * width;
        let y = px(frame.y(value));
        let _ = write!(
            path,
            "{}{},{y}L{},{y}",
            if i == 0 { "M" } else { "L" },
            px(frame.x(start)),
            px(frame.x(start + width))
        );
    }
    path
}

/// One series as an area, and another as a line above it.
pub fn load(from: Nanos, width: Nanos, area: &Steps, line: &Steps) -> Markup {
    let to = from + area.values.len() as Nanos * width;
    let most = area.values.iter().chain(&line.values).copied().fold(0.0, f64::max);
    let frame = Frame::new(from, to, most, 260.0);
    let under = outline(&frame, from, width, area.values.iter().copied());
    let base = px(frame.y(0.0));
    html! {
        (legend(&[(&area.name, COLOURS[0]), (&line.name, COLOURS[3])]))
        (frame.draw(&format!("{}; {}", area.name, line.name), &html! {
            path d=(format!("{under}L{},{base}L{},{base}Z", px(frame.x(to)), px(frame.x(from)))) fill=(COLOURS[0]) fill-opacity="0.55" {}
            path d=(outline(&frame, from, width, line.values.iter().copied())) fill="none" stroke=(COLOURS[3]) stroke-width="1.3" {}
        }))
    }
}

/// Series upon each other.
pub fn stack(from: Nanos, width: Nanos, series: &[Steps]) -> Markup {
    let count = series.iter().map(|s| s.values.len()).max().unwrap_or_default();
    let mut sums = vec![0.0; count];
    let mut layers = Vec::new();
    for (steps, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let below = sums.clone();
        for (sum, value) in sums.iter_mut().zip(&steps.values) {
            *sum += value;
        }
        layers.push((*colour, below, sums.clone()));
    }
    let to = from + count as Nanos * width;
    let frame = Frame::new(from, to, sums.iter().copied().fold(0.0, f64::max), 260.0);
    let area = |below: &[f64], above: &[f64]| {
        let mut path = outline(&frame, from, width, above.iter().copied());
        for (i, value) in below.iter().enumerate().rev() {
            let (start, y) = (from + i as Nanos * width, px(frame.y(*value)));
            let _ = write!(path, "L{},{y}L{},{y}", px(frame.x(start + width)), px(frame.x(start)));
        }
        path + "Z"
    };
    let names: Vec<(&str, &str)> =
        series.iter().zip(COLOURS.iter().cycle()).map(|(s, c)| (s.name.as_str(), *c)).collect();
    html! {
        (legend(&names))
        (frame.draw("stacked", &html! {
            @for (colour, below, above) in &layers {
                path d=(area(below, above)) fill=(colour) {}
            }
        }))
    }
}

/// A day's bar.
pub struct Bar {
    pub at: Nanos,
    pub value: f64,
    /// Known in part only, or known from elsewhere.
    pub pale: bool,
}

/// Days, and what is expected of those to come: low, expected, high.
pub fn growth(bars: &[Bar], ahead: &[(Nanos, [f64; 3])]) -> Markup {
    let (Some(first), Some(last)) = (bars.first(), bars.last()) else { return html! {} };
    let to = ahead.last().map_or(last.at, |(at, _)| *at) + DAY;
    let most =
        bars.iter().map(|b| b.value).chain(ahead.iter().map(|(_, day)| day[2])).fold(0.0, f64::max);
    let frame = Frame::new(first.at, to, most, 260.0);
    let wide = (frame.x(first.at + DAY) - frame.x(first.at) - 1.0).max(0.6);
    let middle = |at: Nanos| px(frame.x(at + DAY / 2));
    let points = |of: usize| {
        ahead
            .iter()
            .map(|(at, day)| format!("{},{}", middle(*at), px(frame.y(day[of]))))
            .collect::<Vec<_>>()
    };
    let names =
        [("decisions a day", COLOURS[0]), ("expected", COLOURS[3]), ("80 % of days", "#f3c9a5")];
    let (low, expected, mut high) = (points(0), points(1), points(2));
    high.reverse();
    html! {
        (legend(&names[..if ahead.is_empty() { 1 } else { 3 }]))
        (frame.draw("decisions a day, and the forecast", &html! {
            @for bar in bars {
                rect x=(px(frame.x(bar.at) + 0.5)) width=(px(wide)) y=(px(frame.y(bar.value))) height=(px(frame.y(0.0) - frame.y(bar.value)))
                    fill=(COLOURS[0]) fill-opacity=(if bar.pale { "0.3" } else { "0.8" }) {}
            }
            @if !ahead.is_empty() {
                path d=(format!("M{}L{}Z", low.join("L"), high.join("L"))) fill="#d55e00" fill-opacity="0.22" {}
                path d=(format!("M{}", expected.join("L"))) fill="none" stroke=(COLOURS[3]) stroke-width="1.8" stroke-dasharray="5 3" {}
            }
        }))
    }
}

/// Values by name, each with a second one below it or not, and what is said of it.
pub struct Named {
    pub name: String,
    pub value: f64,
    pub second: Option<f64>,
    pub said: String,
}

/// Bars that lie, longest as wide as there is room; `names` of the first and the second value.
pub fn bars(rows: &[Named], names: &[&str]) -> Markup {
    const ROW: f64 = 26.0;
    const TEXT: f64 = 330.0;
    let most = rows
        .iter()
        .flat_map(|r| [r.value, r.second.unwrap_or_default()])
        .fold(0.0, f64::max)
        .max(f64::MIN_POSITIVE);
    let wide = |value: f64| px((value / most * (WIDTH - TEXT - 190.0)).max(1.0));
    let height = ROW * rows.len() as f64 + 4.0;
    let coloured: Vec<(&str, &str)> = names.iter().copied().zip([COLOURS[0], COLOURS[1]]).collect();
    html! {
        @if coloured.len() > 1 { (legend(&coloured)) }
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(names.join(", ")) {
            @for (i, row) in rows.iter().enumerate() {
                @let y = ROW * i as f64 + 4.0;
                text class="name" x=(TEXT - 8.0) y=(px(y + 14.0)) text-anchor="end" { (short(&row.name)) }
                @if let Some(second) = row.second {
                    rect x=(TEXT) y=(px(y + 1.0)) width=(wide(row.value)) height="9" fill=(COLOURS[0]) fill-opacity="0.85" {}
                    rect x=(TEXT) y=(px(y + 11.0)) width=(wide(second)) height="9" fill=(COLOURS[1]) {}
                } @else {
                    rect x=(TEXT) y=(px(y + 2.0)) width=(wide(row.value)) height="16" fill=(COLOURS[0]) fill-opacity="0.85" {}
                }
                @let longest = row.value.max(row.second.unwrap_or_default());
                text class="value" x=(px(TEXT + longest / most * (WIDTH - TEXT - 190.0) + 6.0)) y=(px(y + 14.0)) { (row.said) }
            }
        }
    }
}

/// What fits beside a bar: the end of a long name tells more than its start.
fn short(name: &str) -> String {
    const FITS: usize = 46;
    let count = name.chars().count();
    if count <= FITS {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(count - FITS + 1).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps_above_what_they_show() {
        for most in [0.0, 0.3, 7.0, 99.0, 1e7] {
            let ticks = ticks(most);
            assert!(*ticks.last().unwrap() >= most && ticks.len() <= 6, "{ticks:?}");
        }
    }
}
