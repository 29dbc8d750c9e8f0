//! Curves over a common axis.

use std::path::Path;

use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::canvas::{AXIS, Canvas, GRID, INK, Lettering, Point, is_repeated_color, series_color};
use super::page::{AXIS_TITLE, MARGIN, Page, REFERENCE_WIDTH, Sample, TICK, WIDTH};
use super::scale::{Scale, Span};
use super::{Axis, ChartError};
use crate::files::write_whole;

const TICK_LEFT: Lettering = Lettering {
    side: HPos::Right,
    ..TICK
};
const AXIS_TITLE_LEFT: Lettering = Lettering {
    side: HPos::Left,
    ..AXIS_TITLE
};

const MOST_TICKS_X: usize = 8;
const MOST_TICKS_Y: usize = 7;
const PLOT_HEIGHT: f64 = 380.0;
const CURVE_WIDTH: f64 = 2.2;
/// For the name of the vertical axis, horizontally above it.
const Y_TITLE_HEIGHT: f64 = 30.0;
const TICK_GAP: f64 = 8.0;
const TICK_HEIGHT: f64 = 24.0;
const X_TITLE_HEIGHT: f64 = 24.0;

/// Curves over a common axis, such as the loss of several models over the training steps.
#[derive(Debug, Clone)]
pub struct LineChart {
    title: String,
    x_axis: Axis,
    y_axis: Axis,
    series: Vec<Series>,
    line: Option<(String, f64)>,
    notes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    points: Vec<Point>,
}

impl LineChart {
    /// A chart without curves.
    pub fn new(title: impl Into<String>, x_axis: Axis, y_axis: Axis) -> Self {
        Self {
            title: title.into(),
            x_axis,
            y_axis,
            series: Vec::new(),
            line: None,
            notes: Vec::new(),
        }
    }

    /// Adds a curve through points, given as (x, y) from left to right.
    ///
    /// The curve has a gap at points that are not finite. From the ninth on, curves are dashed, because
    /// the colours repeat.
    #[must_use]
    pub fn series(
        mut self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        self.series.push(Series {
            name: name.into(),
            points: points.into_iter().collect(),
        });
        self
    }

    /// Draws a dashed horizontal line over the whole width, such as the loss of guessing.
    #[must_use]
    pub fn line(mut self, label: impl Into<String>, value: f64) -> Self {
        self.line = Some((label.into(), value));
        self
    }

    /// Adds a note below the chart.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Draws the chart as an SVG document.
    ///
    /// # Errors
    ///
    /// Returns a [`ChartError`] if there is nothing to draw or a fixed range of an axis is invalid.
    pub fn to_svg(&self) -> Result<String, ChartError> {
        let points = || self.finite_points();
        let line = self.line.iter().map(|(_, value)| *value);
        let x_span = Span::of(&self.x_axis, points().map(|(x, _)| x), MOST_TICKS_X)?;
        let y_values = points().map(|(_, y)| y).chain(line);
        let y_span = Span::of(&self.y_axis, y_values, MOST_TICKS_Y)?;
        let (Some(x_span), Some(y_span), Some(_)) = (x_span, y_span, points().next()) else {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        };
        let drawing = Drawing::lay_out(self, x_span, y_span);
        Canvas::draw(&self.title, drawing.size(), |canvas| drawing.draw(canvas))
    }

    /// Writes the chart to a file; see [`write_whole`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`LineChart::to_svg`], and an error that names the file if it cannot
    /// be written.
    pub fn save(&self, path: &Path) -> Result<(), ChartError> {
        Ok(write_whole(path, self.to_svg()?.as_bytes())?)
    }

    fn finite_points(&self) -> impl Iterator<Item = Point> {
        let points = self.series.iter().flat_map(|series| &series.points);
        points.copied().filter(is_finite)
    }

    fn legend(&self) -> Vec<(Sample, String)> {
        let series = self.series.iter().enumerate();
        let sample = |index| {
            if is_repeated_color(index) {
                Sample::DashedLine(series_color(index))
            } else {
                Sample::Line(series_color(index))
            }
        };
        let line = self.line.iter();
        series
            .map(|(i, s)| (sample(i), s.name.clone()))
            .chain(line.map(|(label, _)| (Sample::ReferenceLine, label.clone())))
            .collect()
    }
}

fn is_finite((x, y): &Point) -> bool {
    x.is_finite() && y.is_finite()
}

/// A chart laid out on its page.
struct Drawing<'a> {
    chart: &'a LineChart,
    page: Page,
    x: Scale,
    /// Starts at the bottom.
    y: Scale,
}

impl<'a> Drawing<'a> {
    fn lay_out(chart: &'a LineChart, x_span: Span, y_span: Span) -> Self {
        let page = Page::new(&chart.title, chart.legend(), &chart.notes);
        let labels = y_span.ticks().map(|tick| y_span.tick_label(tick));
        let label_width = labels.map(|label| TICK.width(&label)).fold(0.0, f64::max);
        let top = page.top() + Y_TITLE_HEIGHT;
        Self {
            chart,
            page,
            x: Scale {
                span: x_span,
                start: (MARGIN + label_width + TICK_GAP).round(),
                // Half of the last number of the axis is outside.
                end: WIDTH - MARGIN - 12.0,
            },
            y: Scale {
                span: y_span,
                start: top + PLOT_HEIGHT,
                end: top,
            },
        }
    }

    fn size(&self) -> (f64, f64) {
        (WIDTH, self.page.height(self.below_axis()))
    }

    fn below_axis(&self) -> f64 {
        self.y.start + TICK_HEIGHT + X_TITLE_HEIGHT
    }

    fn draw(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        self.page.draw(canvas, self.below_axis())?;
        self.draw_y_axis(canvas)?;
        self.draw_x_axis(canvas)?;
        for (i, series) in self.chart.series.iter().enumerate() {
            self.draw_series(canvas, series, series_color(i), is_repeated_color(i))?;
        }
        self.draw_line(canvas)
    }

    fn draw_y_axis(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        for tick in self.y.span.ticks() {
            let y = self.y.place(tick);
            canvas.horizontal(y, (self.x.start, self.x.end), GRID)?;
            let label = self.y.span.tick_label(tick);
            canvas.text(&label, (self.x.start - TICK_GAP, y), TICK_LEFT)?;
        }
        let place = (MARGIN, self.y.end - Y_TITLE_HEIGHT / 2.0 - 4.0);
        canvas.text(&self.chart.y_axis.title(), place, AXIS_TITLE_LEFT)
    }

    fn draw_x_axis(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        let bottom = self.y.start;
        canvas.horizontal(bottom, (self.x.start, self.x.end), AXIS)?;
        for tick in self.x.span.ticks() {
            let x = self.x.place(tick);
            canvas.vertical(x, (bottom, bottom + 5.0), AXIS)?;
            let label = self.x.span.tick_label(tick);
            canvas.text(&label, (x, bottom + 4.0 + TICK_HEIGHT / 2.0), TICK)?;
        }
        let middle = (self.x.start + self.x.end) / 2.0;
        let y = bottom + 4.0 + TICK_HEIGHT + X_TITLE_HEIGHT / 2.0;
        canvas.text(&self.chart.x_axis.title(), (middle, y), AXIS_TITLE)
    }

    /// The reference line is named in the legend, because next to it there may be curves.
    fn draw_line(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        match self.chart.line {
            Some((_, value)) if self.y.contains(value) => {
                let y = self.y.place(value);
                let ends = [(self.x.start, y), (self.x.end, y)];
                canvas.dashed(&ends, INK, REFERENCE_WIDTH)
            }
            _ => Ok(()),
        }
    }

    fn draw_series(
        &self,
        canvas: &mut Canvas<'_>,
        series: &Series,
        color: RGBColor,
        dashed: bool,
    ) -> Result<(), String> {
        for piece in series.points.split(|point| !is_finite(point)) {
            let places: Vec<Point> = piece.iter().map(|point| self.place(*point)).collect();
            if let [alone] = places[..] {
                if self.x.contains(piece[0].0) && self.y.contains(piece[0].1) {
                    canvas.dot(alone, CURVE_WIDTH * 1.5, color)?;
                }
                continue;
            }
            for run in visible(&places, self.corners()) {
                if dashed {
                    canvas.dashed(&run, color, CURVE_WIDTH)?;
                } else {
                    canvas.path(&run, color, CURVE_WIDTH)?;
                }
            }
        }
        Ok(())
    }

    fn place(&self, (x, y): Point) -> Point {
        (self.x.place(x), self.y.place(y))
    }

    fn corners(&self) -> [Point; 2] {
        [(self.x.start, self.y.end), (self.x.end, self.y.start)]
    }
}

/// The parts of a line inside of the rectangle between two corners (left top, right bottom).
fn visible(line: &[Point], corners: [Point; 2]) -> Vec<Vec<Point>> {
    let mut runs: Vec<Vec<Point>> = Vec::new();
    for pair in line.windows(2) {
        let Some([from, to]) = clipped([pair[0], pair[1]], corners) else {
            continue;
        };
        match runs.last_mut() {
            Some(run) if run.last() == Some(&from) => run.push(to),
            _ => runs.push(vec![from, to]),
        }
    }
    runs
}

/// The part of a segment inside of a rectangle (the algorithm of Liang and Barsky).
fn clipped([from, to]: [Point; 2], [low, high]: [Point; 2]) -> Option<[Point; 2]> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let sides = [
        (-dx, from.0 - low.0),
        (dx, high.0 - from.0),
        (-dy, from.1 - low.1),
        (dy, high.1 - from.1),
    ];
    // The part of the segment, from 0 to 1, that is inside of all sides so far.
    let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
    for (direction, distance) in sides {
        if direction == 0.0 {
            if distance < 0.0 {
                return None;
            }
        } else if direction < 0.0 {
            enter = enter.max(distance / direction);
        } else {
            leave = leave.min(distance / direction);
        }
    }
    if enter > leave {
        return None;
    }
    let at = |part: f64| match part {
        // Exactly the ends, so that neighbouring segments are seen to meet.
        0.0 => from,
        1.0 => to,
        part => (from.0 + part * dx, from.1 + part * dy),
    };
    Some([at(enter), at(leave)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: [Point; 2] = [(0.0, 0.0), (10.0, 10.0)];

    fn chart() -> LineChart {
        let x = Axis::new("training steps");
        let y = Axis::new("loss").unit("nats");
        let falling = (0..50).map(|i| (f64::from(i * 100), 3.0 / f64::from(i + 1)));
        LineChart::new("Training", x, y)
            .series("lstm & co", falling)
            .series("gap", [(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0), (3.0, 2.0)])
            .line("guessing", 2.3)
            .note("A note.")
    }

    #[test]
    fn all_texts_are_there() {
        let svg = chart().to_svg().unwrap();
        for text in [
            "Training",
            "training steps",
            "loss (nats)",
            "lstm &amp; co",
            "gap",
            "guessing",
            "5000",
            "A note.",
        ] {
            assert!(svg.contains(text), "no `{text}` in {svg}");
        }
    }

    #[test]
    fn the_same_data_give_the_same_bytes() {
        assert_eq!(chart().to_svg().unwrap(), chart().to_svg().unwrap());
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let empty = LineChart::new("t", Axis::new("x"), Axis::new("y"));
        let empty = empty
            .line("only a line", 1.0)
            .series("s", [(0.0, f64::NAN)]);
        assert!(matches!(empty.to_svg(), Err(ChartError::Empty { .. })));
    }

    #[test]
    fn a_line_is_cut_at_the_edges() {
        let line = [
            (-5.0, 5.0),
            (5.0, 5.0),
            (5.0, 15.0),
            (8.0, 15.0),
            (8.0, 8.0),
        ];
        let expected = vec![
            vec![(0.0, 5.0), (5.0, 5.0), (5.0, 10.0)],
            vec![(8.0, 10.0), (8.0, 8.0)],
        ];
        assert_eq!(visible(&line, BOX), expected);
    }

    #[test]
    fn a_segment_outside_is_not_visible() {
        assert_eq!(clipped([(-5.0, -1.0), (15.0, -1.0)], BOX), None);
        assert_eq!(clipped([(11.0, 0.0), (12.0, 10.0)], BOX), None);
        assert_eq!(clipped([(9.0, -5.0), (15.0, 1.0)], BOX), None);
        assert_eq!(
            clipped([(1.0, 1.0), (2.0, 2.0)], BOX),
            Some([(1.0, 1.0), (2.0, 2.0)])
        );
    }
}
