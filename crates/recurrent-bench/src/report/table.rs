//! A table of results: on the terminal, as CSV and, through serde, as JSON.

use std::fmt;

use comfy_table::{CellAlignment, LineStyle, TableStyle};
use serde::Serialize;

use super::Summary;

/// Rules above and below the heading and at the end.
const STYLE: TableStyle = TableStyle::new()
    .top_border(RULE)
    .header_separator(RULE)
    .bottom_border(RULE);
const RULE: LineStyle = LineStyle::none().fill('─').junction('─');

/// Shown for a missing value on the terminal.
const MISSING: &str = "–";

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Words.
    Text,
    /// One number per row.
    Number,
    /// The mean and spread of several runs per row.
    Spread,
}

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// The left one, as for words.
    Left,
    /// The right one, as for numbers.
    Right,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    title: String,
    unit: Option<String>,
    kind: Kind,
    #[serde(skip)]
    align: Align,
    #[serde(skip)]
    precision: usize,
}

impl Column {
    /// A column of words, on the left side.
    pub fn text(title: impl Into<String>) -> Self {
        Self::new(title, Kind::Text, Align::Left, 0)
    }

    /// A column of numbers with `precision` decimals, on the right side.
    pub fn number(title: impl Into<String>, precision: usize) -> Self {
        Self::new(title, Kind::Number, Align::Right, precision)
    }

    /// A column of summaries, shown as mean ± spread with `precision` decimals each.
    pub fn spread(title: impl Into<String>, precision: usize) -> Self {
        Self::new(title, Kind::Spread, Align::Right, precision)
    }

    fn new(title: impl Into<String>, kind: Kind, align: Align, precision: usize) -> Self {
        Self {
            title: title.into(),
            unit: None,
            kind,
            align,
            precision,
        }
    }

    /// Adds the unit, which is shown in the title.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// Overrides the alignment of the column.
    #[must_use]
    pub fn align(mut self, align: Align) -> Self {
        self.align = align;
        self
    }

    fn heading(&self) -> String {
        self.heading_of("")
    }

    /// The title with a part of a summary, such as "accuracy mean (%)".
    fn heading_of(&self, part: &str) -> String {
        let mut heading = self.title.clone();
        if !part.is_empty() {
            heading.push(' ');
            heading.push_str(part);
        }
        if let Some(unit) = &self.unit {
            heading.push_str(&format!(" ({unit})"));
        }
        heading
    }

    fn csv_headings(&self) -> Vec<String> {
        match self.kind {
            Kind::Text | Kind::Number => vec![self.heading()],
            Kind::Spread => ["mean", "spread", "min", "max"]
                .map(|part| self.heading_of(part))
                .into_iter()
                // A count has no unit.
                .chain([format!("{} runs", self.title)])
                .collect(),
        }
    }

    fn csv_fields(&self, cell: &Cell) -> Vec<String> {
        let mut fields = match cell {
            Cell::Missing => Vec::new(),
            Cell::Text(text) => vec![text.clone()],
            Cell::Number(number) => vec![number.to_string()],
            Cell::Spread(summary) => {
                let numbers = [summary.mean, summary.spread, summary.min, summary.max];
                let count = summary.values.len().to_string();
                let numbers = numbers.into_iter().map(|number| number.to_string());
                numbers.chain([count]).collect()
            }
        };
        fields.resize(self.csv_headings().len(), String::new());
        fields
    }
}

/// A cell of a [`Table`].
///
/// There are conversions from texts, numbers, summaries and, for values which can be missing, from
/// options of these.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Words.
    Text(String),
    /// One number.
    Number(f64),
    /// Several runs.
    Spread(Summary),
    /// No value.
    Missing,
}

impl Cell {
    fn shown(&self, precision: usize) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => format!("{number:.precision$}"),
            Self::Spread(Summary { mean, spread, .. }) => {
                format!("{mean:.precision$} ± {spread:.precision$}")
            }
            Self::Missing => MISSING.to_string(),
        }
    }

    /// Whether a column of this kind can hold the cell.
    fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Missing => true,
            // A word such as "diverged" may replace a number.
            Self::Text(_) => true,
            Self::Number(_) => kind != Kind::Text,
            Self::Spread(_) => kind == Kind::Spread,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_string())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(number as f64)
    }
}

impl From<Summary> for Cell {
    fn from(summary: Summary) -> Self {
        Self::Spread(summary)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

/// A table of results; its [`Display`](fmt::Display) is the form for the terminal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If the row has another number of cells than the table has columns, or a cell is of another
    /// kind than its column (a number among words, a summary among single numbers): that is a
    /// bug of the experiment.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = row.into_iter().collect();
        assert_eq!(
            row.len(),
            self.columns.len(),
            "a row must have as many cells (left) as the table has columns (right)"
        );
        for (cell, column) in row.iter().zip(&self.columns) {
            assert!(
                cell.fits(column.kind),
                "the column `{}` holds {:?}, got {cell:?}",
                column.title,
                column.kind
            );
        }
        self.rows.push(row);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as CSV (RFC 4180) with all digits.
    ///
    /// A column of summaries becomes five: mean, spread, min, max and the number of runs. A missing
    /// value is an empty field.
    pub fn to_csv(&self) -> String {
        let headings = self.columns.iter().flat_map(Column::csv_headings).collect();
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row);
            cells
                .flat_map(|(column, cell)| column.csv_fields(cell))
                .collect()
        });
        std::iter::once(headings)
            .chain(rows)
            .map(csv_line)
            .collect()
    }
}

fn csv_line(fields: Vec<String>) -> String {
    let quoted: Vec<String> = fields.iter().map(|field| csv_field(field)).collect();
    quoted.join(",") + "\r\n"
}

fn csv_field(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_string()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = comfy_table::Table::new();
        shown.load_style(STYLE);
        shown.set_header(self.columns.iter().map(Column::heading));
        for row in &self.rows {
            let cells = row.iter().zip(&self.columns);
            shown.add_row(cells.map(|(cell, column)| cell.shown(column.precision)));
        }
        for (shown, column) in shown.column_iter_mut().zip(&self.columns) {
            shown.set_cell_alignment(match column.align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        write!(f, "{}", shown.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::text("model"),
            Column::number("weights", 0),
            Column::spread("accuracy", 2).unit("%"),
        ]);
        table.push([
            "lstm, \"small\"".into(),
            1200_usize.into(),
            Summary::of(&[50.0, 53.0]).into(),
        ]);
        table.push(["peephole".into(), Cell::Missing, 7.0.into()]);
        table.push(["gru".into(), Some(350.0).into(), None::<Summary>.into()]);
        table
    }

    #[test]
    fn the_terminal_form() {
        let expected = [
            "────────────────────────────────────────",
            " model           weights   accuracy (%)",
            "────────────────────────────────────────",
            " lstm, \"small\"      1200   51.50 ± 2.12",
            " peephole              –           7.00",
            " gru                 350              –",
            "────────────────────────────────────────",
        ];
        assert_eq!(table().to_string(), expected.join("\n"));
    }

    #[test]
    fn csv_has_all_digits_and_quotes() {
        let lines = [
            "model,weights,accuracy mean (%),accuracy spread (%),accuracy min (%),\
             accuracy max (%),accuracy runs",
            "\"lstm, \"\"small\"\"\",1200,51.5,2.1213203435596424,50,53,2",
            "peephole,,7,,,,",
            "gru,350,,,,,",
        ];
        assert_eq!(table().to_csv(), lines.join("\r\n") + "\r\n");
    }

    #[test]
    #[should_panic(expected = "as many cells")]
    fn a_short_row_is_refused() {
        table().push(["lstm".into()]);
    }

    #[test]
    #[should_panic(expected = "the column `weights`")]
    fn a_summary_among_numbers_is_refused() {
        let summary: Cell = Summary::of(&[1.0]).into();
        table().push(["lstm".into(), summary, Cell::Missing]);
    }
}
