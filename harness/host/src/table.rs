//! Tables in the terminal: columns are two spaces apart, and a line is below the headings.

use std::fmt;
use std::ops::Range;
use unicode_width::UnicodeWidthStr as _;

/// Spaces between columns.
const GAP: usize = 2;

/// A table. Cells may have several lines. Headings stand at the bottom of their row, other cells at the top.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Range<usize>,
    right_headings: bool,
    line_beyond: bool,
}

impl Table {
    /// A table without rows.
    pub fn new<T: Into<String>>(headings: impl IntoIterator<Item = T>) -> Self {
        let headings = headings.into_iter().map(Into::into).collect();
        Self { rows: vec![headings], right: 0..0, right_headings: true, line_beyond: false }
    }

    /// Adds a row.
    pub fn push<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Aligns these columns to the right. Lines of a cell stay aligned to the left among each other.
    #[must_use]
    pub fn right(self, columns: Range<usize>) -> Self {
        Self { right: columns, ..self }
    }

    /// Aligns all headings to the left.
    #[must_use]
    pub fn left_headings(self) -> Self {
        Self { right_headings: false, ..self }
    }

    /// The line below the headings ends a gap behind the last column.
    #[must_use]
    pub fn line_beyond(self) -> Self {
        Self { line_beyond: true, ..self }
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
    }
}

/// Columns that a text takes: those of its longest line.
fn width(cell: &str) -> usize {
    cell.lines().map(str::width).max().unwrap_or(0)
}

impl fmt::Display for Table {
    /// Every line ends with a line feed, and none with a space.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|column| self.width(column)).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0).max(1);
            for line in 0..height {
                let mut text = String::new();
                for ((column, cell), full) in row.iter().enumerate().zip(&widths) {
                    let above = if number == 0 { height - cell.lines().count().max(1) } else { 0 };
                    let shown = line.checked_sub(above).and_then(|line| cell.lines().nth(line)).unwrap_or("");
                    let is_right = self.right.contains(&column) && (number > 0 || self.right_headings);
                    let before = if is_right { full - width(cell) } else { 0 };
                    let after = full - before - shown.width() + GAP;
                    text.extend([&" ".repeat(before), shown, &" ".repeat(after)]);
                }
                writeln!(out, "{}", text.trim_end())?;
            }
            if number == 0 {
                let gaps = if self.line_beyond { columns } else { columns.saturating_sub(1) };
                writeln!(out, "{}", "─".repeat(widths.iter().sum::<usize>() + GAP * gaps))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn cells_are_aligned_as_blocks_of_lines() {
        let mut table = Table::new(["name", "frames\nper s", "note"]).right(1..2);
        table.push(["eins", "9", "–"]);
        table.push(["zwei\ndrei", "1234567\n±2", ""]);
        let expected = "       frames\n\
                        name   per s   note\n\
                        ───────────────────\n\
                        eins        9  –\n\
                        zwei  1234567\n\
                        drei  ±2\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(["板", "n"]).right(1..2).left_headings().line_beyond();
        table.push(["x", "100"]);
        assert_eq!(table.to_string(), "板  n\n─────────\nx   100\n");
    }
}
