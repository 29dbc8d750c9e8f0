//! Charts as SVG files.
//!
//! - [`BarChart`]: horizontal bars in groups, for one [`Summary`](crate::report::Summary) per
//!   label and series, with whiskers, published values and a reference line;
//! - [`LineChart`]: curves over a common axis, such as the loss over the training steps.
//!
//! Both use the colours of Okabe and Ito, which are distinguishable with any colour vision, and
//! lay out every text themselves: the page grows with the number of bars and legend entries, so
//! nothing overlaps. Output is deterministic.

mod bars;
mod canvas;
mod lines;
mod page;
mod scale;

use thiserror::Error;

pub use bars::BarChart;
pub use lines::LineChart;

use crate::files::WriteError;

/// What an axis shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    name: String,
    unit: Option<String>,
    range: Option<(f64, f64)>,
}

impl Axis {
    /// An axis with a name, no unit, and a range that fits the values.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            unit: None,
            range: None,
        }
    }

    /// Adds the unit, which is shown after the name.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// Fixes the range of the axis; values outside are clipped.
    #[must_use]
    pub fn range(mut self, from: f64, to: f64) -> Self {
        self.range = Some((from, to));
        self
    }

    fn title(&self) -> String {
        match &self.unit {
            Some(unit) => format!("{} ({unit})", self.name),
            None => self.name.clone(),
        }
    }
}

/// A chart could not be drawn or written.
#[derive(Debug, Error)]
pub enum ChartError {
    /// There is no finite value to draw.
    #[error("the chart `{title}` has nothing to draw; expected at least one finite value")]
    Empty {
        /// The title of the chart.
        title: String,
    },
    /// A series does not have one value per label.
    #[error(
        "`{series}` in the chart `{title}` has {got} values; expected {expected}, one per label"
    )]
    Length {
        /// The title of the chart.
        title: String,
        /// The name of the series.
        series: String,
        /// The number of values it has.
        got: usize,
        /// The number of labels.
        expected: usize,
    },
    /// The ends of an axis are not two different finite numbers in order.
    #[error("the axis `{axis}` goes from {from} to {to}; expected two finite numbers in order")]
    Range {
        /// The name of the axis.
        axis: String,
        /// The requested start.
        from: f64,
        /// The requested end.
        to: f64,
    },
    /// The SVG library reported an error.
    #[error("could not draw the chart `{title}`: {reason}")]
    Draw {
        /// The title of the chart.
        title: String,
        /// The message of the library.
        reason: String,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
