//! Plots as SVG within a page: no script, no fixed colour (classes, so that the page's light and dark colours hold), wide enough for
//! a phone and no wider than needed.

use std::fmt::Write as _;

/// The size in units of the drawing; the page scales it.
const SIZE: (f64, f64) = (440.0, 300.0);
/// Room at the left for the title of the axis, and between the numbers and the axis.
const TITLE: f64 = 20.0;
const GAP: f64 = 6.0;
/// Room at the bottom for the numbers and the title.
const BOTTOM: f64 = 42.0;
const TOP: f64 = 12.0;
/// Room at the right, at least, and at most where lines are named at their ends.
const RIGHT: (f64, f64) = (22.0, 150.0);
/// The height of a line of text, the width of a letter on the average, and that of a digit in wide fonts.
const LINE: f64 = 13.0;
const LETTER: f64 = 6.6;
const DIGIT: f64 = 7.7;
/// Colours that the page has.
const HUES: usize = 8;

/// What stands at an axis, and from where to where it goes.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    title: String,
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From a round number below all values to one above, in steps of 1, 2 or 5.
    pub(super) fn linear(title: &str, values: &[f64], from_zero: bool) -> Axis {
        let (mut low, mut high) = range(values);
        if from_zero {
            low = low.min(0.0);
        }
        if high - low <= 0.0 {
            (low, high) = if from_zero { (low, low + 1.0) } else { (low - 0.5, high + 0.5) };
        }
        let step = round_step((high - low) / 4.0);
        (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        let n = ((high - low) / step).round().min(20.0) as usize;
        let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let ticks = (0..=n).map(|i| low + step * i as f64).map(|v| (v, format!("{v:.digits$}"))).collect();
        Axis { title: title.to_owned(), low, high, log: false, ticks }
    }

    /// The same, ending where the values do.
    pub(super) fn until(mut self, high: f64) -> Axis {
        self.high = high.clamp(self.low + (self.high - self.low) / 8.0, self.high);
        self.ticks.retain(|(value, _)| *value <= high);
        self
    }

    /// From a power of ten below all values (above 0) to one above.
    pub(super) fn log(title: &str, values: &[f64]) -> Axis {
        let above: Vec<f64> = values.iter().copied().filter(|v| *v > 0.0).collect();
        let (low, high) = if above.is_empty() { (1.0, 10.0) } else { range(&above) };
        let from = low.log10().floor().max(-12.0) as i32;
        let to = (high.log10().ceil() as i32).clamp(from + 1, from + 24);
        let mut ticks = Vec::new();
        let every = ((to - from) / 6 + 1) as usize;
        for power in (from..=to).step_by(every) {
            for factor in [1u8, 2, 5] {
                let value = f64::from(factor) * 10f64.powi(power);
                // Between powers of ten only where there are few of them.
                if factor == 1 || to - from <= 2 && power < to {
                    let digits = (-power).max(0) as usize;
                    let plain = (-4..6).contains(&power);
                    let text = if plain { format!("{value:.digits$}") } else { format!("{factor}e{power}") };
                    ticks.push((value, text));
                }
            }
        }
        let (low, high) = (10f64.powi(from), 10f64.powi(to));
        Axis { title: title.to_owned(), low, high, log: true, ticks }
    }

    /// The place of a value between 0 and 1; none outside of the axis.
    fn place(&self, value: f64) -> Option<f64> {
        let at = if self.log {
            (value > 0.0).then(|| (value / self.low).log10() / (self.high / self.low).log10())?
        } else {
            (value - self.low) / (self.high - self.low)
        };
        (-1e-6..=1.0 + 1e-6).contains(&at).then_some(at)
    }
}

fn range(values: &[f64]) -> (f64, f64) {
    let finite = values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= step * 0.999).unwrap_or(10.0);
    factor * power
}

/// A point of a series.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// What stands beside it; nothing where it is empty.
    pub(super) label: String,
    /// What is told of it where one points at it.
    pub(super) tip: String,
}

/// Points that belong together.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// Its name: beside the end of its line, or in the legend.
    pub(super) name: String,
    /// Its colour and form, by number.
    pub(super) number: usize,
    pub(super) points: Vec<Point>,
    /// Whether a line goes through the points.
    pub(super) line: bool,
}

/// A plot.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// Said to those who cannot see it.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// Whether series are named at the ends of their lines.
    pub(super) names: bool,
    /// A level of the y axis, with its name.
    pub(super) level: Option<(f64, String)>,
}

/// A rectangle that text or a mark takes.
type Rect = (f64, f64, f64, f64);
/// A series with its points, each with its place in the drawing.
type Placed<'a> = (&'a Series, Vec<(f64, f64, &'a Point)>);

impl Plot {
    /// The drawing.
    pub(super) fn svg(&self) -> String {
        let longest = self.series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
        let right =
            if self.names { (DIGIT * longest as f64 + 14.0).clamp(RIGHT.0, RIGHT.1) } else { RIGHT.0 };
        let numbers = self.y.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
        let left = TITLE + DIGIT * numbers as f64 + GAP;
        let (width, height) = (SIZE.0 - left - right, SIZE.1 - TOP - BOTTOM);
        let x = |v: f64| self.x.place(v).map(|at| left + at * width);
        let y = |v: f64| self.y.place(v).map(|at| TOP + (1.0 - at) * height);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            SIZE.0,
            SIZE.1,
            escape(&self.title)
        );
        for (value, text) in &self.x.ticks {
            if let Some(x) = x(*value) {
                let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP}v{height}\"/>");
                let _ = write!(
                    svg,
                    "<text class=\"mid\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                    TOP + height + 16.0,
                    escape(text)
                );
            }
        }
        for (value, text) in &self.y.ticks {
            if let Some(y) = y(*value) {
                let _ = write!(svg, "<path class=\"grid\" d=\"M{left:.1} {y:.1}h{width:.1}\"/>");
                let _ = write!(
                    svg,
                    "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    left - GAP,
                    y + 4.0,
                    escape(text)
                );
            }
        }
        let title = |x: f64, y: f64| format!("<text class=\"mid title\" x=\"{x:.1}\" y=\"{y:.1}\"");
        let _ = write!(svg, "{}>{}</text>", title(left + width / 2.0, SIZE.1 - 6.0), escape(&self.x.title));
        let (tx, ty) = (13.0, TOP + height / 2.0);
        let _ = write!(
            svg,
            "{} transform=\"rotate(-90 {tx} {ty:.1})\">{}</text>",
            title(tx, ty),
            escape(&self.y.title)
        );
        let mut taken: Vec<Rect> = Vec::new();
        if let Some((value, name)) = &self.level
            && let Some(y) = y(*value)
        {
            let _ = write!(svg, "<path class=\"level\" d=\"M{left:.1} {y:.1}h{width:.1}\"/>");
            // At the left end: small files lose most, and lie far above.
            let at = left + 4.0;
            let _ = write!(
                svg,
                "<text class=\"name\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                y - 4.0,
                escape(name)
            );
            taken.push((at, y - 4.0 - LINE, at + LETTER * name.chars().count() as f64, y));
        }
        let placed: Vec<Placed<'_>> = self
            .series
            .iter()
            .map(|s| (s, s.points.iter().filter_map(|p| Some((x(p.x)?, y(p.y)?, p))).collect()))
            .collect();
        for (series, points) in &placed {
            let class = series.number % HUES;
            if series.line && points.len() > 1 {
                let path: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1} {y:.1}")).collect();
                // The second round of colours is dashed.
                let dashes = if series.number / HUES % 2 == 1 { " dashed" } else { "" };
                let _ = write!(svg, "<path class=\"line c{class}{dashes}\" d=\"M{}\"/>", path.join("L"));
            }
            for (x, y, point) in points {
                let tip = if point.tip.is_empty() {
                    String::new()
                } else {
                    format!("<title>{}</title>", escape(&point.tip))
                };
                if !tip.is_empty() || !point.label.is_empty() {
                    let _ = write!(
                        svg,
                        "<path class=\"dot c{class}\" d=\"{}\">{tip}</path>",
                        mark(series.number, *x, *y)
                    );
                    taken.push((x - 5.0, y - 5.0, x + 5.0, y + 5.0));
                }
            }
        }
        for (x, y, point) in placed.iter().flat_map(|(_, points)| points) {
            if !point.label.is_empty() {
                let bounds = (left, TOP - 8.0, left + width + right, TOP + height);
                svg += &label(&point.label, (*x, *y), bounds, &mut taken);
            }
        }
        if self.names {
            svg += &names(&placed, left + width + 8.0, (TOP, TOP + height));
        }
        svg + "</svg>"
    }

    /// The names of the series with their marks, as a list of HTML; nothing where a single series, or its lines, need none.
    pub(super) fn legend(&self) -> String {
        if self.names || self.series.len() < 2 {
            return String::new();
        }
        let item = |s: &Series| {
            let svg = format!(
                "<svg viewBox=\"0 0 12 12\" aria-hidden=\"true\"><path class=\"dot c{}\" d=\"{}\"/></svg>",
                s.number % HUES,
                mark(s.number, 6.0, 6.0)
            );
            format!("<li>{svg}{}</li>", escape(&s.name))
        };
        format!("<ul class=\"legend\">{}</ul>", self.series.iter().map(item).collect::<String>())
    }
}

/// A mark around a point: another form for each series, so that colour is not all there is.
fn mark(number: usize, x: f64, y: f64) -> String {
    match number % 4 {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", x - 4.0),
        1 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        2 => format!("M{x:.1} {:.1}l4.8 4.8l-4.8 4.8l-4.8 -4.8z", y - 4.8),
        _ => format!("M{x:.1} {:.1}l4.6 8h-9.2z", y - 4.8),
    }
}

/// The text beside a point: at the first side where nothing else is, else where the least is covered.
fn label(text: &str, (x, y): (f64, f64), bounds: Rect, taken: &mut Vec<Rect>) -> String {
    let width = LETTER * text.chars().count() as f64;
    let sides = [
        ("start", x + 8.0, y + 4.0),
        ("mid", x, y - 9.0),
        ("end", x - 8.0, y + 4.0),
        ("mid", x, y + 17.0),
        ("start", x + 6.0, y - 7.0),
        ("start", x + 6.0, y + 15.0),
    ];
    let rect = |(class, x, y): (&str, f64, f64)| -> Rect {
        let left = match class {
            "start" => x,
            "end" => x - width,
            _ => x - width / 2.0,
        };
        (left, y - LINE + 2.0, left + width, y + 2.0)
    };
    let covered = |r: Rect| -> f64 {
        let outside = (bounds.0 - r.0).max(0.0)
            + (r.2 - bounds.2).max(0.0)
            + (bounds.1 - r.1).max(0.0)
            + (r.3 - bounds.3).max(0.0);
        let both = |t: &Rect| (r.2.min(t.2) - r.0.max(t.0)).max(0.0) * (r.3.min(t.3) - r.1.max(t.1)).max(0.0);
        taken.iter().map(both).sum::<f64>() + outside * LINE
    };
    let best = sides.into_iter().map(|side| (covered(rect(side)), side)).min_by(|a, b| a.0.total_cmp(&b.0));
    let Some((_, side)) = best else { return String::new() };
    taken.push(rect(side));
    format!("<text class=\"{} name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", side.0, side.1, side.2, escape(text))
}

/// The names of the series beside the ends of their lines, pushed apart where they would cover each other.
fn names(placed: &[Placed<'_>], x: f64, (top, bottom): (f64, f64)) -> String {
    let mut ends: Vec<(f64, f64, &Series)> =
        placed.iter().filter_map(|(s, points)| points.last().map(|(_, y, _)| (*y, *y, *s))).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut least = top;
    for (y, ..) in &mut ends {
        *y = y.max(least);
        least = *y + LINE;
    }
    let mut most = bottom;
    for (y, ..) in ends.iter_mut().rev() {
        *y = y.min(most);
        most = *y - LINE;
    }
    let name = |(y, end, s): &(f64, f64, &Series)| {
        let class = s.number % HUES;
        let leader =
            format!("<path class=\"leader c{class}\" d=\"M{:.1} {end:.1}L{:.1} {y:.1}\"/>", x - 7.0, x - 1.0);
        format!(
            "{leader}<text class=\"start name\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            escape(&s.name)
        )
    };
    ends.iter().map(name).collect()
}

/// Text for HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn axes_go_from_round_numbers_to_round_numbers() {
        assert_eq!(ticks(&Axis::linear("", &[3.2, 14.1], true)), ["0", "5", "10", "15"]);
        assert_eq!(ticks(&Axis::linear("", &[82.43, 97.6], false)), ["80", "85", "90", "95", "100"]);
        assert_eq!(ticks(&Axis::linear("", &[0.1, 0.35], true)), ["0.0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(ticks(&Axis::log("", &[0.0021, 0.15])), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(ticks(&Axis::log("", &[0.02, 0.03])), ["0.01", "0.02", "0.05", "0.1"]);
        let (one, none) = (Axis::linear("", &[5.0], false), Axis::log("", &[0.0]));
        assert!(one.place(5.0).is_some_and(|at| at > 0.2 && at < 0.8) && none.place(0.0).is_none());
        let log = Axis::log("", &[1.0, 100.0]);
        assert!((log.place(10.0).unwrap() - 0.5).abs() < 1e-9 && log.place(1000.0).is_none());
        for odd in [&[f64::NAN][..], &[], &[f64::INFINITY, 1.0], &[0.0, 0.0], &[1e300, -1e300]] {
            assert!(Axis::linear("", odd, true).ticks.len() <= 21);
            assert!(Axis::log("", odd).ticks.len() <= 40);
        }
    }

    #[test]
    fn numbers_of_an_axis_leave_room_for_its_title() {
        assert_eq!(ticks(&Axis::log("", &[2e-7, 0.05])), ["1e-7", "1e-5", "0.001", "0.1"]);
        for values in [[0.00012, 0.4], [2e-7, 0.05], [1.0, 9e7], [1e-5, 2e-5]] {
            let points = values.map(|y| Point { x: y, y, label: String::new(), tip: String::new() });
            let series = Series { name: String::new(), number: 0, points: points.to_vec(), line: false };
            let (x, y) =
                (Axis::linear("Size", &values, true), Axis::log("Mean KL divergence (nats)", &values));
            let plot = Plot { title: String::new(), x, y, series: vec![series], names: false, level: None };
            let svg = plot.svg();
            let mut seen = 0;
            for text in svg.split("<text class=\"end\" x=\"").skip(1) {
                let right: f64 = text.split('"').next().unwrap().parse().unwrap();
                let number = text.split(['>', '<']).nth(1).unwrap();
                // The title's letters end 4 units to the right of its base line.
                assert!(right - DIGIT * number.chars().count() as f64 >= 17.0, "{number}");
                seen += 1;
            }
            assert!(seen >= 2 && svg.contains("rotate(-90 13 "), "{svg}");
        }
    }

    #[test]
    fn texts_beside_points_do_not_cover_each_other() {
        let mut taken = vec![(95.0, 95.0, 105.0, 105.0)];
        let bounds = (0.0, 0.0, 400.0, 300.0);
        for _ in 0..4 {
            label("Q4_K_M", (100.0, 100.0), bounds, &mut taken);
        }
        for (i, a) in taken.iter().enumerate() {
            for b in &taken[i + 1..] {
                let apart = a.2 <= b.0 || b.2 <= a.0 || a.3 <= b.1 || b.3 <= a.1;
                assert!(apart, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn names_from_files_are_text() {
        assert_eq!(escape("<b a=\"'&\n"), "&lt;b a=&quot;&#39;&amp;\u{fffd}");
    }
}
