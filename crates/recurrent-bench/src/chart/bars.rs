//! Horizontal bars in groups.

use std::path::Path;

use plotters::style::text_anchor::HPos;

use super::canvas::{AXIS, Canvas, GRID, INK, Lettering, MUTED, PAPER, Point, series_color};
use super::page::{
    AXIS_TITLE, MARGIN, POINTER_HEIGHT, Page, REFERENCE_WIDTH, Sample, TICK, WIDTH, draw_pointer,
};
use super::scale::{Scale, Span, with_minus_and_groups};
use super::{Axis, ChartError};
use crate::files::write_whole;
use crate::report::Summary;

const LABEL: Lettering = Lettering::new(14.0, INK, HPos::Right);
const VALUE: Lettering = Lettering::new(13.0, MUTED, HPos::Right);
const LINE_LABEL: Lettering = Lettering::new(13.0, INK, HPos::Center);

const MOST_LABEL_WIDTH: f64 = 300.0;
const MOST_TICKS: usize = 7;
/// Between the labels, the bars and the values.
const COLUMN_GAP: f64 = 14.0;
const BAR_GAP: f64 = 2.0;
const GROUP_GAP: f64 = 14.0;
/// For the name of the reference line, above the bars.
const LINE_LABEL_HEIGHT: f64 = 22.0;
/// For the numbers at the ticks and the name of the axis, below the bars.
const TICK_HEIGHT: f64 = 24.0;
const AXIS_TITLE_HEIGHT: f64 = 24.0;

/// Horizontal bars: one group per label, one bar per series in it.
///
/// A bar goes from zero (or the end of a fixed axis that does not reach zero) to the mean; a whisker
/// spans one sample standard deviation to either side. The numbers are at the right of the bars.
#[derive(Debug, Clone)]
pub struct BarChart {
    title: String,
    axis: Axis,
    labels: Vec<String>,
    series: Vec<Series>,
    markers: Option<Markers>,
    line: Option<Line>,
    precision: Option<usize>,
    explanation: Option<String>,
    notes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    bars: Vec<Option<Summary>>,
}

#[derive(Debug, Clone)]
struct Markers {
    name: String,
    values: Vec<Option<f64>>,
}

#[derive(Debug, Clone)]
struct Line {
    label: String,
    value: f64,
}

impl BarChart {
    /// A chart without bars; the labels are listed from top to bottom.
    pub fn new(
        title: impl Into<String>,
        axis: Axis,
        labels: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            title: title.into(),
            axis,
            labels: labels.into_iter().map(Into::into).collect(),
            series: Vec::new(),
            markers: None,
            line: None,
            precision: None,
            explanation: None,
            notes: Vec::new(),
        }
    }

    /// Adds a series with one bar per label; `None` leaves the bar out.
    #[must_use]
    pub fn series(
        mut self,
        name: impl Into<String>,
        bars: impl IntoIterator<Item = Option<Summary>>,
    ) -> Self {
        self.series.push(Series {
            name: name.into(),
            bars: bars.into_iter().collect(),
        });
        self
    }

    /// Marks a value in the groups, such as the published one; `None` leaves a group without.
    #[must_use]
    pub fn markers(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = Option<f64>>,
    ) -> Self {
        self.markers = Some(Markers {
            name: name.into(),
            values: values.into_iter().collect(),
        });
        self
    }

    /// Draws a dashed vertical line through all groups, such as the result of guessing.
    #[must_use]
    pub fn line(mut self, label: impl Into<String>, value: f64) -> Self {
        self.line = Some(Line {
            label: label.into(),
            value,
        });
        self
    }

    /// Sets the decimals of the numbers next to the bars; by default they depend on the axis.
    #[must_use]
    pub fn precision(mut self, decimals: usize) -> Self {
        self.precision = Some(decimals);
        self
    }

    /// Replaces the note that explains the bars, if a bar is not the mean of runs.
    #[must_use]
    pub fn explanation(mut self, text: impl Into<String>) -> Self {
        self.explanation = Some(text.into());
        self
    }

    /// Adds a note below the chart, after the one that explains the bars.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Draws the chart as an SVG document.
    ///
    /// # Errors
    ///
    /// Returns a [`ChartError`] if a series does not have one value per label, if there is nothing to
    /// draw, or if the fixed range of the axis is invalid.
    pub fn to_svg(&self) -> Result<String, ChartError> {
        self.check_lengths()?;
        let span = Span::of(&self.axis, self.all_values(), MOST_TICKS)?
            .filter(|_| self.summaries().any(|summary| summary.mean.is_finite()))
            .ok_or_else(|| ChartError::Empty {
                title: self.title.clone(),
            })?;
        let drawing = Drawing::lay_out(self, span);
        Canvas::draw(&self.title, drawing.size(), |canvas| drawing.draw(canvas))
    }

    /// Writes the chart to a file; see [`write_whole`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`BarChart::to_svg`], and an error that names the file if it cannot be
    /// written.
    pub fn save(&self, path: &Path) -> Result<(), ChartError> {
        Ok(write_whole(path, self.to_svg()?.as_bytes())?)
    }

    fn check_lengths(&self) -> Result<(), ChartError> {
        let series = self.series.iter().map(|s| (&s.name, s.bars.len()));
        let markers = self.markers.iter().map(|m| (&m.name, m.values.len()));
        let expected = self.labels.len();
        match series.chain(markers).find(|(_, got)| *got != expected) {
            None => Ok(()),
            Some((name, got)) => Err(ChartError::Length {
                title: self.title.clone(),
                series: name.clone(),
                got,
                expected,
            }),
        }
    }

    fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.series.iter().flat_map(|series| &series.bars).flatten()
    }

    /// All values that the axis must include. Bars start at zero, so zero is one of them.
    fn all_values(&self) -> impl Iterator<Item = f64> {
        let whiskers = self.summaries().flat_map(ends);
        let markers = self.markers.iter().flat_map(|markers| &markers.values);
        let line = self.line.iter().map(|line| line.value);
        [0.0]
            .into_iter()
            .chain(whiskers)
            .chain(markers.flatten().copied())
            .chain(line)
    }

    fn legend(&self) -> Vec<(Sample, String)> {
        let mut entries = Vec::new();
        // A single series is what the title says.
        if self.series.len() > 1 || self.markers.is_some() {
            let bars = self.series.iter().enumerate();
            entries.extend(bars.map(|(i, s)| (Sample::Bar(series_color(i)), s.name.clone())));
        }
        let markers = self.markers.iter();
        entries.extend(markers.map(|markers| (Sample::Pointer, markers.name.clone())));
        entries
    }

    /// The notes, with the explanation of the bars in front.
    fn all_notes(&self) -> Vec<String> {
        let explanation = self.explanation.clone();
        [explanation.unwrap_or_else(|| self.explanation_of_runs())]
            .into_iter()
            .chain(self.notes.clone())
            .collect()
    }

    fn explanation_of_runs(&self) -> String {
        let counts = || self.summaries().map(|summary| summary.values.len());
        match (counts().min(), counts().max()) {
            (_, Some(1)) => "Each bar is a single run.".to_string(),
            (Some(low), Some(high)) => {
                let runs = if low == high {
                    low.to_string()
                } else {
                    format!("{low} to {high}")
                };
                format!("Bars: mean of {runs} runs. Whiskers: ± 1 sample standard deviation.")
            }
            _ => String::new(),
        }
    }

    /// The number next to a bar.
    fn value_text(&self, bar: Option<&Summary>, span: Span) -> String {
        let decimals = self.precision.unwrap_or_else(|| decimals_for(span));
        let number = |value: f64| with_minus_and_groups(&format!("{value:.decimals$}"));
        match bar {
            None => "–".to_string(),
            Some(bar) if !bar.mean.is_finite() => "not finite".to_string(),
            Some(bar) if bar.values.len() < 2 => number(bar.mean),
            Some(bar) => format!("{} ± {}", number(bar.mean), number(bar.spread)),
        }
    }
}

/// The ends of the whisker of a bar.
fn ends(bar: &Summary) -> [f64; 2] {
    [bar.mean - bar.spread, bar.mean + bar.spread]
}

/// As many decimals as tell a thousandth of the axis.
fn decimals_for(span: Span) -> usize {
    (3.0 - (span.to - span.from).log10().ceil()).max(0.0) as usize
}

/// A chart laid out on its page.
struct Drawing<'a> {
    chart: &'a BarChart,
    page: Page,
    scale: Scale,
    /// The top of the first group and the bottom of the last one, with half a gap around them.
    top: f64,
    bottom: f64,
    bar_height: f64,
    group_height: f64,
    group_gap: f64,
}

impl<'a> Drawing<'a> {
    fn lay_out(chart: &'a BarChart, span: Span) -> Self {
        let page = Page::new(&chart.title, chart.legend(), &chart.all_notes());
        let labels = chart.labels.iter().map(|label| LABEL.width(label));
        let values = chart.series.iter().flat_map(|series| &series.bars);
        let values = values.map(|bar| VALUE.width(&chart.value_text(bar.as_ref(), span)));
        let label_width = widest(labels).min(MOST_LABEL_WIDTH);
        let line_label = chart.line.as_ref().map_or(0.0, |_| LINE_LABEL_HEIGHT);
        let bar_height = match chart.series.len() {
            1 => 20.0,
            _ => 15.0,
        };
        let top = page.top() + line_label;
        let bars = chart.series.len().max(1) as f64;
        let group_height = bars * bar_height + (bars - 1.0) * BAR_GAP;
        let pointer = chart.markers.as_ref().map_or(0.0, |_| POINTER_HEIGHT);
        let group_gap = GROUP_GAP + pointer;
        Self {
            chart,
            page,
            scale: Scale {
                span,
                start: (MARGIN + label_width + COLUMN_GAP).round(),
                end: (WIDTH - MARGIN - widest(values) - COLUMN_GAP).round(),
            },
            top,
            bottom: top + (group_height + group_gap) * chart.labels.len() as f64,
            bar_height,
            group_height,
            group_gap,
        }
    }

    fn size(&self) -> (f64, f64) {
        (WIDTH, self.page.height(self.below_axis()))
    }

    fn below_axis(&self) -> f64 {
        self.bottom + TICK_HEIGHT + AXIS_TITLE_HEIGHT
    }

    fn draw(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        self.page.draw(canvas, self.below_axis())?;
        self.draw_axis(canvas)?;
        for group in 0..self.chart.labels.len() {
            self.draw_group(canvas, group)?;
        }
        self.draw_zero(canvas)?;
        self.draw_line(canvas)?;
        for group in 0..self.chart.labels.len() {
            self.draw_marker(canvas, group)?;
        }
        // Last, so that the lines do not hide them.
        for group in 0..self.chart.labels.len() {
            self.draw_whiskers(canvas, group)?;
        }
        Ok(())
    }

    fn draw_axis(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        for tick in self.scale.span.ticks() {
            let x = self.scale.place(tick);
            canvas.vertical(x, (self.top, self.bottom), GRID)?;
            let label = self.scale.span.tick_label(tick);
            canvas.text(&label, (x, self.bottom + TICK_HEIGHT / 2.0), TICK)?;
        }
        let middle = (self.scale.start + self.scale.end) / 2.0;
        let y = self.bottom + TICK_HEIGHT + AXIS_TITLE_HEIGHT / 2.0;
        canvas.text(&self.chart.axis.title(), (middle, y), AXIS_TITLE)
    }

    /// The line the bars start from.
    fn draw_zero(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        let x = self.scale.place_within(0.0);
        canvas.vertical(x, (self.top, self.bottom), AXIS)
    }

    fn group_top(&self, group: usize) -> f64 {
        self.top + self.group_gap / 2.0 + group as f64 * (self.group_height + self.group_gap)
    }

    fn bar_top(&self, group: usize, series: usize) -> f64 {
        self.group_top(group) + series as f64 * (self.bar_height + BAR_GAP)
    }

    fn draw_group(&self, canvas: &mut Canvas<'_>, group: usize) -> Result<(), String> {
        let middle = self.group_top(group) + self.group_height / 2.0;
        let label = LABEL.fitted(&self.chart.labels[group], MOST_LABEL_WIDTH);
        canvas.text(&label, (self.scale.start - COLUMN_GAP, middle), LABEL)?;
        for (i, series) in self.chart.series.iter().enumerate() {
            let bar = series.bars[group].as_ref();
            let top = self.bar_top(group, i);
            let value = self.chart.value_text(bar, self.scale.span);
            let place = (WIDTH - MARGIN, top + self.bar_height / 2.0);
            canvas.text(&value, place, VALUE)?;
            if let Some(bar) = bar.filter(|bar| bar.mean.is_finite()) {
                let start = (self.scale.place_within(0.0), top);
                let end = (self.scale.place_within(bar.mean), top + self.bar_height);
                canvas.rect(start, end, series_color(i))?;
            }
        }
        Ok(())
    }

    fn draw_whiskers(&self, canvas: &mut Canvas<'_>, group: usize) -> Result<(), String> {
        for (i, series) in self.chart.series.iter().enumerate() {
            // False also for a spread that is not a number.
            let bar = series.bars[group].as_ref().filter(|bar| bar.spread > 0.0);
            if let Some(bar) = bar.filter(|bar| bar.mean.is_finite()) {
                let y = self.bar_top(group, i) + self.bar_height / 2.0;
                self.draw_whisker(canvas, ends(bar), y)?;
            }
        }
        Ok(())
    }

    fn draw_whisker(&self, canvas: &mut Canvas<'_>, ends: [f64; 2], y: f64) -> Result<(), String> {
        let half = self.bar_height * 0.26;
        let cap = |x| [(x, y - half), (x, y + half)];
        // A light edge first: the dark line must be seen on dark bars, too.
        for (width, color) in [(3.6, PAPER), (1.6, INK)] {
            let within = ends.map(|end| self.scale.place_within(end));
            canvas.path(&within.map(|x| (x, y)), color, width)?;
            for end in ends.into_iter().filter(|end| self.scale.contains(*end)) {
                canvas.path(&cap(self.scale.place(end)), color, width)?;
            }
        }
        Ok(())
    }

    fn draw_line(&self, canvas: &mut Canvas<'_>) -> Result<(), String> {
        let Some(line) = &self.chart.line else {
            return Ok(());
        };
        if !self.scale.contains(line.value) {
            return Ok(());
        }
        let x = self.scale.place(line.value);
        let ends: [Point; 2] = [(x, self.top - 2.0), (x, self.bottom)];
        canvas.path(&ends, PAPER, 3.0)?;
        canvas.dashed(&ends, INK, REFERENCE_WIDTH)?;
        // Near the ends of the axis the name is moved inwards, so that it stays on the page.
        let half = LINE_LABEL.width(&line.label) / 2.0;
        let (first, last) = (MARGIN + half, WIDTH - MARGIN - half);
        let place = x.min(last).max(first);
        let y = self.top - LINE_LABEL_HEIGHT / 2.0;
        canvas.text(&line.label, (place, y), LINE_LABEL)
    }

    fn draw_marker(&self, canvas: &mut Canvas<'_>, group: usize) -> Result<(), String> {
        let value = self.chart.markers.as_ref().and_then(|m| m.values[group]);
        let Some(value) = value.filter(|value| self.scale.contains(*value)) else {
            return Ok(());
        };
        let x = self.scale.place(value);
        let top = self.group_top(group);
        draw_pointer(canvas, x, (top - 1.0, top + self.group_height + 2.0))
    }
}

fn widest(widths: impl Iterator<Item = f64>) -> f64 {
    widths.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f64]) -> Option<Summary> {
        Summary::of(values)
    }

    fn chart() -> BarChart {
        let axis = Axis::new("accuracy").unit("%");
        BarChart::new("Capacity & more", axis, ["lstm", "gru <small>", "none"])
            .series("first", [summary(&[50.0, 60.0]), summary(&[70.0]), None])
            .series(
                "second",
                [summary(&[80.0, 81.0]), summary(&[f64::NAN]), None],
            )
            .markers("published", [Some(55.0), None, Some(75.0)])
            .line("guessing", 12.5)
            .note("A note.")
    }

    #[test]
    fn all_texts_are_there() {
        let svg = chart().to_svg().unwrap();
        for text in [
            "Capacity &amp; more",
            "accuracy (%)",
            "lstm",
            "gru &lt;small&gt;",
            "first",
            "second",
            "published",
            "guessing",
            "55.0 ± 7.1",
            "70.0",
            "not finite",
            "mean of 1 to 2 runs",
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
    fn bars_start_at_zero() {
        let axis = Axis::new("gain");
        let chart =
            BarChart::new("t", axis, ["a", "b"]).series("s", [summary(&[90.0]), summary(&[-20.0])]);
        let drawing_values: Vec<f64> = chart.all_values().collect();
        assert!(drawing_values.contains(&0.0));
        let span = Span::of(&chart.axis, chart.all_values(), MOST_TICKS);
        let span = span.unwrap().unwrap();
        assert!(span.from <= -20.0 && span.to >= 90.0);
    }

    #[test]
    fn a_series_of_another_length_is_refused() {
        let error = chart().series("third", [None]).to_svg().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`third` in the chart `Capacity & more` has 1 values; expected 3, one per label"
        );
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let empty = BarChart::new("t", Axis::new("x"), ["a"]).series("s", [None]);
        assert!(matches!(empty.to_svg(), Err(ChartError::Empty { .. })));
        let diverged =
            BarChart::new("t", Axis::new("x"), ["a"]).series("s", [summary(&[f64::NAN])]);
        assert!(matches!(diverged.to_svg(), Err(ChartError::Empty { .. })));
    }

    #[test]
    fn the_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("charts/capacity.svg");
        chart().save(&path).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, chart().to_svg().unwrap());
    }
}
