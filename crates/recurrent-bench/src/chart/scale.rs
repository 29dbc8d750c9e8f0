//! Mapping of values to positions on the page, with round numbers at the ticks.

use super::{Axis, ChartError};

/// The range of an axis and the spacing of its ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) from: f64,
    pub(super) to: f64,
    step: f64,
}

impl Span {
    /// The span of an axis: its own range, or one that ends at ticks and contains all finite
    /// `values`; `None` if there are no such values.
    pub(super) fn of(
        axis: &Axis,
        values: impl Iterator<Item = f64>,
        most_ticks: usize,
    ) -> Result<Option<Self>, ChartError> {
        if let Some((from, to)) = axis.range {
            if !(from.is_finite() && to.is_finite() && from < to) {
                let axis = axis.name.clone();
                return Err(ChartError::Range { axis, from, to });
            }
            let step = round_step((to - from) / most_ticks as f64);
            return Ok(Some(Self { from, to, step }));
        }
        Ok(extent(values).map(|(low, high)| Self::around(low, high, most_ticks)))
    }

    fn around(low: f64, high: f64, most_ticks: usize) -> Self {
        let (low, high) = if low < high {
            (low, high)
        } else {
            // A single value: give it room, so that the axis has a length.
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low - room, high + room)
        };
        let step = round_step((high - low) / most_ticks as f64);
        // A value on a tick (but for rounding) needs no further tick.
        let slack = 1e-9;
        Self {
            from: (low / step + slack).floor() * step,
            to: (high / step - slack).ceil() * step,
            step,
        }
    }

    /// The values at the ticks.
    pub(super) fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let slack = 1e-9;
        let first = (self.from / self.step - slack).ceil();
        let count = (self.to / self.step + slack).floor() - first;
        let step = self.step;
        // The addition of zero turns -0 into 0.
        (0..=count.max(0.0) as usize).map(move |i| (first + i as f64) * step + 0.0)
    }

    /// The number at a tick, with as many decimals as the step has.
    pub(super) fn tick_label(&self, value: f64) -> String {
        if self.step >= 1e6 || self.step < 1e-5 {
            // Sums of steps have rounding errors in the last digits.
            let digits = format!("{value:.6e}");
            return without_trailing_zeros(&digits);
        }
        let decimals = (-self.step.log10()).ceil().max(0.0) as usize;
        with_minus_and_groups(&format!("{value:.decimals$}"))
    }
}

/// The smallest and largest finite value.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .fold(None, |ends, value| match ends {
            None => Some((value, value)),
            Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
        })
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let enough = |factor: &&f64| **factor * power >= step * (1.0 - 1e-9);
    factors.iter().find(enough).unwrap_or(&10.0) * power
}

fn without_trailing_zeros(scientific: &str) -> String {
    match scientific.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
            format!("{mantissa}e{exponent}").replace('-', "−")
        }
        _ => scientific.to_string(),
    }
}

/// The number with a true minus sign and, from five digits on, thin spaces between thousands.
pub(super) fn with_minus_and_groups(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        // Small negative numbers are rounded to zero, which has no sign.
        Some(digits) if digits.contains(|c| matches!(c, '1'..='9')) => ("−", digits),
        Some(digits) => ("", digits),
        None => ("", number),
    };
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    if whole.len() < 5 || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("{sign}{digits}");
    }
    let mut grouped = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// A span between two positions on the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) span: Span,
    pub(super) start: f64,
    pub(super) end: f64,
}

impl Scale {
    /// The position of a value, which may be outside of the axis.
    pub(super) fn place(&self, value: f64) -> f64 {
        let part = (value - self.span.from) / (self.span.to - self.span.from);
        self.start + part * (self.end - self.start)
    }

    /// The position of a value, clipped to the axis.
    pub(super) fn place_within(&self, value: f64) -> f64 {
        self.place(value.clamp(self.span.from, self.span.to))
    }

    /// Whether the value is within the axis.
    pub(super) fn contains(&self, value: f64) -> bool {
        (self.span.from..=self.span.to).contains(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(values: &[f64], most_ticks: usize) -> Span {
        let values = values.iter().copied();
        Span::of(&Axis::new("x"), values, most_ticks)
            .unwrap()
            .unwrap()
    }

    fn labels(span: Span) -> Vec<String> {
        span.ticks().map(|tick| span.tick_label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        assert_eq!(
            labels(span(&[0.0, 0.93], 6)),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(span(&[-3.0, 12.0], 4)), ["−5", "0", "5", "10", "15"]);
        assert_eq!(
            labels(span(&[0.0, 20_000.0], 4)),
            [
                "0",
                "5000",
                "10\u{2009}000",
                "15\u{2009}000",
                "20\u{2009}000"
            ]
        );
        assert_eq!(labels(span(&[0.0, 3e7], 3)), ["0e0", "1e7", "2e7", "3e7"]);
    }

    #[test]
    fn a_value_on_a_tick_ends_the_axis() {
        let span = span(&[0.0, 0.1 + 0.2], 3);
        assert_eq!(labels(span), ["0.0", "0.1", "0.2", "0.3"]);
    }

    #[test]
    fn a_single_value_has_room() {
        for value in [0.0, 5.0, -0.3, 1e-12] {
            let span = span(&[value], 5);
            assert!(span.from < value && value < span.to, "{span:?}");
        }
    }

    #[test]
    fn values_that_are_not_finite_do_not_count() {
        let finite = span(&[0.0, 1.0], 5);
        assert_eq!(span(&[0.0, f64::NAN, 1.0, f64::INFINITY], 5), finite);
        let none = Span::of(&Axis::new("x"), [f64::NAN].into_iter(), 5).unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn a_range_must_be_in_order() {
        for (from, to) in [(1.0, 1.0), (2.0, 1.0), (0.0, f64::NAN)] {
            let axis = Axis::new("x").range(from, to);
            assert!(matches!(
                Span::of(&axis, std::iter::empty(), 5),
                Err(ChartError::Range { .. })
            ));
        }
    }

    #[test]
    fn signs_and_groups() {
        let shown = ["-0.5", "-0.00", "1234", "-12345.67", "NaN", "inf"];
        let expected = ["−0.5", "0.00", "1234", "−12\u{2009}345.67", "NaN", "inf"];
        assert_eq!(shown.map(with_minus_and_groups), expected);
    }

    #[test]
    fn places_are_linear() {
        let span = span(&[0.0, 10.0], 5);
        let scale = Scale {
            span,
            start: 100.0,
            end: 200.0,
        };
        assert_eq!(scale.place(5.0), 150.0);
        assert_eq!(scale.place_within(20.0), 200.0);
        assert!(scale.contains(10.0) && !scale.contains(10.1));
    }
}
