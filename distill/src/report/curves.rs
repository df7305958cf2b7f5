//! Charts as inline SVG.

use std::ops::Range;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use slmrec_core::bootstrap::Interval;

use super::ReportError;

/// Width and height; small, so that text stays readable on a phone.
const SIZE: (u32, u32) = (320, 190);
const LINE: RGBColor = RGBColor(37, 99, 235);
const MARK: RGBColor = RGBColor(217, 70, 16);
/// Replaced by the page's own colours.
const INK: RGBColor = RGBColor(90, 90, 90);

/// A line through points.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// Across and down.
    pub points: Vec<(f64, f64)>,
    /// The point that counts.
    pub marked: Option<(f64, f64)>,
    /// What stands below.
    pub x_label: &'static str,
    /// Whether the horizontal axis has whole numbers.
    pub whole_x: bool,
}

impl Chart {
    /// The chart as an `<svg>` element without outside references.
    ///
    /// # Errors
    /// No points, values that are no numbers, or a failure of the plotting crate.
    pub fn svg(&self) -> Result<String, ReportError> {
        let finite = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        if self.points.is_empty() || !self.points.iter().all(finite) {
            let found = format!("expected finite points, found {:?}", self.points);
            return Err(ReportError::Chart(found));
        }
        element(|text| self.draw(text))
    }

    fn draw(&self, text: &mut String) -> Result<(), DrawingError> {
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        let (x, y) = (
            range(self.points.iter().map(|p| p.0), 0.0),
            range(self.points.iter().map(|p| p.1), 0.08),
        );
        let mut chart = axes(&root, x, y, self.x_label, self.whole_x)?;
        chart.draw_series(LineSeries::new(
            self.points.iter().copied(),
            LINE.stroke_width(2),
        ))?;
        if self.points.len() <= 12 {
            let dots = self
                .points
                .iter()
                .map(|&at| Circle::new(at, 2, LINE.filled()));
            chart.draw_series(dots)?;
        }
        let marked = self
            .marked
            .iter()
            .map(|&at| Circle::new(at, 4, MARK.filled()));
        chart.draw_series(marked)?;
        root.present()?;
        Ok(())
    }
}

/// Lines through means, each with its interval.
#[derive(Clone, Debug, Default)]
pub struct IntervalChart {
    /// Across, and what was measured there; the second line has another colour than the first.
    pub lines: Vec<Vec<(f64, Interval)>>,
    /// What stands below.
    pub x_label: String,
}

impl IntervalChart {
    /// The chart as an `<svg>` element without outside references.
    ///
    /// # Errors
    /// No points, values that are no numbers, or a failure of the plotting crate.
    pub fn svg(&self) -> Result<String, ReportError> {
        let finite =
            |(x, i): &(f64, Interval)| [*x, i.low, i.mean, i.high].iter().all(|v| v.is_finite());
        let mut points = self.lines.iter().flatten().peekable();
        if points.peek().is_none() || !points.all(finite) {
            let found = format!("expected finite points, found {:?}", self.lines);
            return Err(ReportError::Chart(found));
        }
        element(|text| self.draw(text))
    }

    fn draw(&self, text: &mut String) -> Result<(), DrawingError> {
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        let points = || self.lines.iter().flatten();
        let x = range(points().map(|p| p.0), 0.08);
        let y = range(points().flat_map(|p| [p.1.low, p.1.high]), 0.08);
        // Side by side, or the intervals of one number would hide each other.
        let step = 0.015 * (x.end - x.start);
        let mut chart = axes(&root, x, y, &self.x_label, true)?;
        for (number, line) in self.lines.iter().enumerate() {
            let colour = if number == 0 { LINE } else { MARK };
            let shift = step * (number as f64 - 0.5 * (self.lines.len() as f64 - 1.0));
            let at = |p: &(f64, Interval)| (p.0 + shift, p.1);
            let means = line.iter().map(at).map(|(x, i)| (x, i.mean));
            chart.draw_series(LineSeries::new(means, colour.stroke_width(2)).point_size(2))?;
            let whisker = |(x, i): (f64, Interval)| {
                PathElement::new(vec![(x, i.low), (x, i.high)], colour.stroke_width(1))
            };
            chart.draw_series(line.iter().map(at).map(whisker))?;
        }
        root.present()?;
        Ok(())
    }
}

type DrawingError = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Axes<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What `draw` writes, as an element of a page.
fn element(
    draw: impl FnOnce(&mut String) -> Result<(), DrawingError>,
) -> Result<String, ReportError> {
    let mut text = String::new();
    draw(&mut text).map_err(|e| ReportError::Chart(e.to_string()))?;
    // An element of an HTML page is in its namespace without being told.
    Ok(text.replace(" xmlns=\"http://www.w3.org/2000/svg\"", ""))
}

/// Axes in the page's manner.
fn axes<'a>(
    root: &Area<'a>,
    x: Range<f64>,
    y: Range<f64>,
    x_label: &str,
    whole_x: bool,
) -> Result<Axes<'a>, DrawingError> {
    let mut chart = ChartBuilder::on(root)
        .margin(6)
        .margin_right(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.25))
        .axis_style(INK)
        .label_style(("sans-serif", 12, &INK))
        .axis_desc_style(("sans-serif", 12, &INK))
        .x_labels(5)
        .y_labels(4)
        .x_desc(x_label)
        .x_label_formatter(&|x| tick(*x, whole_x))
        .y_label_formatter(&|y| tick(*y, false))
        .draw()?;
    Ok(chart)
}

/// From the least to the greatest, never empty, with a margin of a part of the width.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let width = match high - low {
        0.0 => high.abs().max(1.0),
        width => width,
    };
    if high == low {
        return low - 0.5 * width..high + 0.5 * width;
    }
    low - margin * width..high + margin * width
}

/// A number at an axis; none between whole numbers where only these mean something.
fn tick(value: f64, whole: bool) -> String {
    if whole {
        let near = value.round();
        return match (value - near).abs() < 1e-6 {
            true => format!("{near:.0}"),
            false => String::new(),
        };
    }
    let digits = match value.abs() {
        0.0 => 0,
        v if v >= 100.0 => 0,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_point_many_points_and_no_numbers() {
        for points in [
            vec![(1.0, 0.0)],
            vec![(1.0, 2.0), (2.0, 2.0)],
            (0..40).map(|i| (f64::from(i), f64::from(i * i))).collect(),
        ] {
            let chart = Chart {
                marked: points.last().copied(),
                points,
                x_label: "epoch",
                whole_x: true,
            };
            let svg = chart.svg().expect("draws");
            assert!(
                svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
                "{svg}"
            );
            assert!(!svg.contains("http"), "{svg}");
        }
        assert!(Chart::default().svg().is_err());
        let bad = Chart {
            points: vec![(1.0, f64::NAN)],
            ..Chart::default()
        };
        assert!(bad.svg().is_err());
    }

    #[test]
    fn lines_with_intervals_and_no_numbers() {
        let interval = |mean: f64| Interval {
            mean,
            low: mean - 0.01,
            high: mean + 0.02,
        };
        let points = |mean: f64| vec![(1.0, interval(mean)), (4.0, interval(mean + 0.01))];
        let mut chart = IntervalChart {
            lines: vec![points(0.1), points(0.2)],
            x_label: "layers".to_owned(),
        };
        let svg = chart.svg().expect("draws");
        assert!(svg.starts_with("<svg") && !svg.contains("http"), "{svg}");
        assert!(svg.contains("#2563EB") && svg.contains("#D94610"), "{svg}");
        chart.lines[1][0].1.high = f64::INFINITY;
        assert!(chart.svg().is_err());
        assert!(IntervalChart::default().svg().is_err());
    }

    #[test]
    fn ticks() {
        assert_eq!(tick(3.0, true), "3");
        assert_eq!(tick(3.5, true), "");
        assert_eq!(tick(0.12345, false), "0.123");
        assert_eq!(tick(0.0, false), "0");
        assert_eq!(tick(68.19, false), "68.19");
        assert_eq!(tick(7.447_75, false), "7.45");
    }
}
