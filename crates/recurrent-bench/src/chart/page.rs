//! The parts of a chart around the data: title, legend and note, from top to bottom.

use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, INK, Lettering, MUTED, PAPER, Point};

pub(super) const WIDTH: f64 = 960.0;
pub(super) const MARGIN: f64 = 28.0;
/// The width between the margins.
const INNER: f64 = WIDTH - 2.0 * MARGIN;

const TITLE: Lettering = Lettering::new(20.0, INK, HPos::Left).bold();
const TITLE_LINE: f64 = 28.0;
const LEGEND: Lettering = Lettering::new(14.0, INK, HPos::Left);
const LEGEND_LINE: f64 = 24.0;
const NOTE: Lettering = Lettering::new(12.5, MUTED, HPos::Left);
const NOTE_LINE: f64 = 18.0;
/// The space between title, legend, data and note.
const GAP: f64 = 12.0;

pub(super) const AXIS_TITLE: Lettering = Lettering::new(14.0, INK, HPos::Center);
pub(super) const TICK: Lettering = Lettering::new(13.0, MUTED, HPos::Center);

/// The width of lines that mark a value.
pub(super) const REFERENCE_WIDTH: f64 = 1.6;
/// The height of the triangle of a pointer, above its line.
pub(super) const POINTER_HEIGHT: f64 = 8.0;

/// The sample of a series in the legend.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sample {
    Bar(RGBColor),
    Line(RGBColor),
    DashedLine(RGBColor),
    ReferenceLine,
    Pointer,
}

/// The sides of samples, and their distances to their names and to the next entry.
const SAMPLE_WIDTH: f64 = 24.0;
const SAMPLE_GAP: f64 = 8.0;
const ENTRY_GAP: f64 = 26.0;

/// The texts around the data, laid out.
pub(super) struct Page {
    title: Vec<String>,
    /// The entries with their places relative to the left margin and the top of the legend.
    legend: Vec<(Sample, String, Point)>,
    legend_lines: usize,
    note: Vec<String>,
}

impl Page {
    pub(super) fn new(title: &str, entries: Vec<(Sample, String)>, notes: &[String]) -> Self {
        let (legend, legend_lines) = lay_out(entries);
        let wrapped = notes.iter().flat_map(|note| NOTE.wrapped(note, INNER));
        Self {
            title: TITLE.wrapped(title, INNER),
            legend,
            legend_lines,
            note: wrapped.collect(),
        }
    }

    /// Where the data can start.
    pub(super) fn top(&self) -> f64 {
        self.legend_top() + height_of(self.legend_lines, LEGEND_LINE)
    }

    fn legend_top(&self) -> f64 {
        MARGIN + height_of(self.title.len(), TITLE_LINE)
    }

    /// The height of the page if the data end at `bottom`.
    pub(super) fn height(&self, bottom: f64) -> f64 {
        let note = match self.note.len() {
            0 => 0.0,
            lines => GAP + lines as f64 * NOTE_LINE,
        };
        (bottom + note + MARGIN * 0.75).ceil()
    }

    /// Draws the texts around data which end at `bottom`.
    pub(super) fn draw(&self, canvas: &mut Canvas<'_>, bottom: f64) -> Result<(), String> {
        for (i, line) in self.title.iter().enumerate() {
            let y = MARGIN + (i as f64 + 0.5) * TITLE_LINE;
            canvas.text(line, (MARGIN, y), TITLE)?;
        }
        for (sample, name, (x, y)) in &self.legend {
            let place = (MARGIN + x, self.legend_top() + y);
            draw_sample(canvas, *sample, place)?;
            let text_x = place.0 + SAMPLE_WIDTH + SAMPLE_GAP;
            canvas.text(name, (text_x, place.1), LEGEND)?;
        }
        for (i, line) in self.note.iter().enumerate() {
            let y = bottom + GAP + (i as f64 + 0.5) * NOTE_LINE;
            canvas.text(line, (MARGIN, y), NOTE)?;
        }
        Ok(())
    }
}

/// The height of lines with the gap after them, nothing for no lines.
fn height_of(lines: usize, line: f64) -> f64 {
    match lines {
        0 => 0.0,
        lines => lines as f64 * line + GAP,
    }
}

/// Puts the entries side by side and starts a new line when one does not fit.
fn lay_out(entries: Vec<(Sample, String)>) -> (Vec<(Sample, String, Point)>, usize) {
    let mut placed = Vec::with_capacity(entries.len());
    let (mut x, mut line) = (0.0, 0);
    for (sample, name) in entries {
        let name = LEGEND.fitted(&name, INNER - SAMPLE_WIDTH - SAMPLE_GAP);
        let width = SAMPLE_WIDTH + SAMPLE_GAP + LEGEND.width(&name);
        if x > 0.0 && x + width > INNER {
            (x, line) = (0.0, line + 1);
        }
        placed.push((sample, name, (x, (line as f64 + 0.5) * LEGEND_LINE)));
        x += width + ENTRY_GAP;
    }
    let lines = if placed.is_empty() { 0 } else { line + 1 };
    (placed, lines)
}

fn draw_sample(canvas: &mut Canvas<'_>, sample: Sample, (x, y): Point) -> Result<(), String> {
    let ends = [(x, y), (x + SAMPLE_WIDTH, y)];
    match sample {
        Sample::Bar(color) => canvas.rect((x, y - 6.5), (x + SAMPLE_WIDTH, y + 6.5), color),
        Sample::Line(color) => canvas.path(&ends, color, 2.5),
        Sample::DashedLine(color) => canvas.dashed(&ends, color, 2.5),
        Sample::ReferenceLine => canvas.dashed(&ends, INK, REFERENCE_WIDTH),
        Sample::Pointer => draw_pointer(canvas, x + SAMPLE_WIDTH / 2.0, (y - 2.0, y + 8.0)),
    }
}

/// A dark line from `top` to `bottom` with a triangle on it, which points at bars from above: it is
/// seen on any bar and covers little of it.
pub(super) fn draw_pointer(
    canvas: &mut Canvas<'_>,
    x: f64,
    (top, bottom): (f64, f64),
) -> Result<(), String> {
    let line = [(x, top), (x, bottom)];
    canvas.path(&line, PAPER, 4.0)?;
    canvas.path(&line, INK, 2.0)?;
    let base = top - POINTER_HEIGHT;
    let triangle = [(x - 6.0, base), (x + 6.0, base), (x, top + 1.0)];
    canvas.polygon(&triangle, INK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legend_entries_do_not_overlap_or_leave_the_page() {
        let name = |i| format!("series with a long name, number {i}");
        let entries: Vec<_> = (0..9).map(|i| (Sample::Pointer, name(i))).collect();
        let (placed, lines) = lay_out(entries);
        assert!(lines > 1);
        let right = |entry: &(Sample, String, Point)| {
            entry.2.0 + SAMPLE_WIDTH + SAMPLE_GAP + LEGEND.width(&entry.1)
        };
        for pair in placed.windows(2) {
            let on_new_line = pair[1].2.1 > pair[0].2.1;
            assert!(on_new_line || pair[1].2.0 >= right(&pair[0]) + ENTRY_GAP - 1e-9);
        }
        assert!(placed.iter().all(|entry| right(entry) <= INNER));
    }

    #[test]
    fn nothing_takes_no_room() {
        let page = Page::new("", Vec::new(), &[]);
        assert_eq!(page.top(), MARGIN);
    }
}
