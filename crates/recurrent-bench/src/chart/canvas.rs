//! A page to draw on, in pixels with fractions.

use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle};

use super::ChartError;

/// Plotters uses integer coordinates, which makes curves jagged. So everything is drawn larger by this factor,
/// and the SVG scales it down.
const FINE: f64 = 10.0;

/// Plotters divides the size of every text by this number.
const PLOTTERS_FONT_DIVISOR: f64 = 1.24;

/// Common sans-serif fonts, the generic family last.
const FONTS: &str = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif";

pub(super) type Point = (f64, f64);

/// The colours of texts and lines that are not data.
pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(super) const MUTED: RGBColor = RGBColor(0x5a, 0x5a, 0x5a);
pub(super) const AXIS: RGBColor = RGBColor(0x80, 0x80, 0x80);
pub(super) const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);
pub(super) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// The colours of series by Okabe and Ito, in an order that keeps neighbours far apart.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2), // blue
    RGBColor(0xe6, 0x9f, 0x00), // orange
    RGBColor(0x00, 0x9e, 0x73), // bluish green
    RGBColor(0xd5, 0x5e, 0x00), // vermillion
    RGBColor(0xcc, 0x79, 0xa7), // reddish purple
    RGBColor(0x56, 0xb4, 0xe9), // sky blue
    RGBColor(0x00, 0x00, 0x00), // black
    RGBColor(0xf0, 0xe4, 0x42), // yellow
];

/// The colour of a series; they repeat after the eighth.
pub(super) fn series_color(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// Whether an earlier series has the same colour, so that this one needs another marker.
pub(super) fn is_repeated_color(index: usize) -> bool {
    index >= PALETTE.len()
}

/// The lengths of a dash and of the gap after it.
pub(super) const DASH: (f64, f64) = (6.0, 4.0);

/// The style of a text and its anchor.
#[derive(Clone, Copy)]
pub(super) struct Lettering {
    pub(super) size: f64,
    pub(super) color: RGBColor,
    pub(super) bold: bool,
    pub(super) side: HPos,
}

impl Lettering {
    pub(super) const fn new(size: f64, color: RGBColor, side: HPos) -> Self {
        Self {
            size,
            color,
            bold: false,
            side,
        }
    }

    pub(super) const fn bold(mut self) -> Self {
        self.bold = true;
        self
    }

    /// An upper estimate of the width of a text.
    ///
    /// The fonts of the reader are not known. The widths are those of DejaVu Sans, the widest of
    /// the usual fonts, so there is room enough in all.
    pub(super) fn width(&self, text: &str) -> f64 {
        let ems: f64 = text.chars().map(ems_of).sum();
        ems * self.size * if self.bold { 1.1 } else { 1.0 }
    }

    /// The text, cut short with an ellipsis if it is wider than `most`.
    pub(super) fn fitted(&self, text: &str, most: f64) -> String {
        if self.width(text) <= most {
            return text.to_string();
        }
        let mut kept = text.to_string();
        while kept.pop().is_some() && self.width(&kept) + ems_of('…') * self.size > most {}
        kept.trim_end().to_string() + "…"
    }

    /// The text in lines no wider than `most`, broken between words.
    pub(super) fn wrapped(&self, text: &str, most: f64) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.width(line) + self.width(" ") + self.width(word) <= most => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_string()),
            }
        }
        lines
    }
}

fn ems_of(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | ' ' | '\u{2009}' => 0.34,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '/' | '-' | '!' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' | '—' => 1.0,
        _ if c.is_ascii_uppercase() => 0.74,
        _ if c.is_ascii() => 0.64,
        // Wide scripts and signs have about a square each; accented letters are narrower.
        '\u{80}'..'\u{250}' => 0.7,
        _ => 1.0,
    }
}

/// A white page which becomes an SVG document.
pub(super) struct Canvas<'a> {
    backend: SVGBackend<'a>,
}

impl Canvas<'_> {
    /// Draws on a page of the given size and gives the document; `title` is for error messages.
    pub(super) fn draw(
        title: &str,
        (width, height): (f64, f64),
        paint: impl FnOnce(&mut Canvas<'_>) -> Result<(), String>,
    ) -> Result<String, ChartError> {
        let mut svg = String::new();
        let (fine_width, fine_height) = (fine(width) as u32, fine(height) as u32);
        let mut canvas = Canvas {
            backend: SVGBackend::with_string(&mut svg, (fine_width, fine_height)),
        };
        canvas
            .rect((0.0, 0.0), (width, height), PAPER)
            .and_then(|()| paint(&mut canvas))
            .and_then(|()| canvas.backend.present().map_err(reason))
            .map_err(|reason| ChartError::Draw {
                title: title.to_string(),
                reason,
            })?;
        drop(canvas);
        let fine_size = format!("width=\"{fine_width}\" height=\"{fine_height}\"");
        // Round joins and ends: the default ones make spikes at the turns of noisy curves.
        let real_size = format!(
            "width=\"{width}\" height=\"{height}\" stroke-linejoin=\"round\" \
             stroke-linecap=\"round\""
        );
        Ok(svg.replacen(&fine_size, &real_size, 1))
    }

    /// A filled rectangle between two corners.
    pub(super) fn rect(&mut self, from: Point, to: Point, color: RGBColor) -> Result<(), String> {
        let corner = (from.0.min(to.0), from.1.min(to.1));
        let opposite = (from.0.max(to.0), from.1.max(to.1));
        let style = ShapeStyle::from(color).filled();
        let (corner, opposite) = (fine_point(corner), fine_point(opposite));
        self.backend
            .draw_rect(corner, opposite, &style, true)
            .map_err(reason)
    }

    /// A crisp vertical line, one pixel wide, at the pixel nearest to `x`.
    pub(super) fn vertical(
        &mut self,
        x: f64,
        (top, bottom): (f64, f64),
        color: RGBColor,
    ) -> Result<(), String> {
        let x = x.round();
        self.rect((x, top), (x + 1.0, bottom), color)
    }

    /// A crisp horizontal line, one pixel wide, at the pixel nearest to `y`.
    pub(super) fn horizontal(
        &mut self,
        y: f64,
        (left, right): (f64, f64),
        color: RGBColor,
    ) -> Result<(), String> {
        let y = y.round();
        self.rect((left, y), (right, y + 1.0), color)
    }

    /// A line through points.
    pub(super) fn path(
        &mut self,
        points: &[Point],
        color: RGBColor,
        width: f64,
    ) -> Result<(), String> {
        let style = ShapeStyle::from(color).stroke_width(fine(width) as u32);
        let mut points: Vec<_> = points.iter().copied().map(fine_point).collect();
        // Long curves have many points in one place.
        points.dedup();
        self.backend.draw_path(points, &style).map_err(reason)
    }

    /// A dashed line through points.
    pub(super) fn dashed(
        &mut self,
        points: &[Point],
        color: RGBColor,
        width: f64,
    ) -> Result<(), String> {
        for dash in dashes(points, DASH) {
            self.path(&dash, color, width)?;
        }
        Ok(())
    }

    /// A filled shape with these corners.
    pub(super) fn polygon(&mut self, corners: &[Point], color: RGBColor) -> Result<(), String> {
        let corners = corners.iter().copied().map(fine_point);
        let style = ShapeStyle::from(color).filled();
        self.backend.fill_polygon(corners, &style).map_err(reason)
    }

    /// A filled disc.
    pub(super) fn dot(
        &mut self,
        center: Point,
        radius: f64,
        color: RGBColor,
    ) -> Result<(), String> {
        let style = ShapeStyle::from(color).filled();
        self.backend
            .draw_circle(fine_point(center), fine(radius) as u32, &style, true)
            .map_err(reason)
    }

    /// A text whose middle is at the height of `place`.
    pub(super) fn text(
        &mut self,
        text: &str,
        place: Point,
        lettering: Lettering,
    ) -> Result<(), String> {
        let style = if lettering.bold {
            FontStyle::Bold
        } else {
            FontStyle::Normal
        };
        let size = lettering.size * FINE * PLOTTERS_FONT_DIVISOR;
        let style = FontDesc::new(FontFamily::Name(FONTS), size, style)
            .color(&lettering.color.to_rgba())
            .pos(Pos::new(lettering.side, VPos::Center));
        self.backend
            .draw_text(text, &style, fine_point(place))
            .map_err(reason)
    }
}

fn fine(length: f64) -> f64 {
    (length * FINE).round()
}

fn fine_point((x, y): Point) -> (i32, i32) {
    (fine(x) as i32, fine(y) as i32)
}

fn reason(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Cuts a line into dashes.
fn dashes(points: &[Point], (on, off): (f64, f64)) -> Vec<Vec<Point>> {
    let mut dashes: Vec<Vec<Point>> = Vec::new();
    let mut drawing = true;
    let mut left = on;
    let mut dash: Vec<Point> = points.first().copied().into_iter().collect();
    for pair in points.windows(2) {
        let [mut from, to] = [pair[0], pair[1]];
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length <= left {
                left -= length;
                if drawing {
                    dash.push(to);
                }
                break;
            }
            let part = left / length;
            from = (
                from.0 + part * (to.0 - from.0),
                from.1 + part * (to.1 - from.1),
            );
            if drawing {
                dash.push(from);
                dashes.push(std::mem::take(&mut dash));
            } else {
                dash = vec![from];
            }
            drawing = !drawing;
            left = if drawing { on } else { off };
        }
    }
    if dash.len() > 1 {
        dashes.push(dash);
    }
    dashes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Lettering = Lettering::new(10.0, INK, HPos::Left);

    #[test]
    fn a_line_is_cut_into_dashes() {
        let line = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)];
        let expected = vec![vec![(0.0, 0.0), (6.0, 0.0)], vec![(10.0, 0.0), (10.0, 6.0)]];
        assert_eq!(dashes(&line, (6.0, 4.0)), expected);
        assert!(dashes(&[], DASH).is_empty());
    }

    #[test]
    fn a_long_text_is_cut_or_wrapped() {
        let text = "a rather long name of a model";
        let cut = PLAIN.fitted(text, 80.0);
        assert!(cut.ends_with('…') && PLAIN.width(&cut) <= 80.0, "{cut}");
        assert_eq!(PLAIN.fitted(text, 1000.0), text);

        let lines = PLAIN.wrapped(text, 80.0);
        assert!(lines.len() > 1);
        assert!(lines.iter().all(|line| PLAIN.width(line) <= 80.0));
        assert_eq!(lines.join(" "), text);
    }

    #[test]
    fn the_document_has_the_size_asked_for() {
        let svg = Canvas::draw("t", (30.0, 20.0), |canvas| {
            canvas.text("a < b", (1.0, 2.0), PLAIN)
        })
        .unwrap();
        assert!(svg.starts_with("<svg width=\"30\" height=\"20\""), "{svg}");
        assert!(svg.contains("viewBox=\"0 0 300 200\""));
        assert!(svg.contains("a &lt; b"));
        assert!(svg.trim_end().ends_with("</svg>"));
    }
}
