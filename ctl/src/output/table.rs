//! Tables without lines: columns two spaces apart, so that `awk` and `cut` read them too.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, presets};

/// Longest cell of a table that is not wide.
const CELL: usize = 48;

/// What a value means to the eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Busy,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    text: String,
    tone: Tone,
    is_number: bool,
}

/// The values of one line.
pub type Row = Vec<Value>;

/// Control characters made visible: what a job is called must not steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Text; nothing is shown as `-`.
pub fn text(value: impl AsRef<str>) -> Value {
    let value = plain(value.as_ref());
    Value { text: if value.is_empty() { "-".into() } else { value }, tone: Tone::Plain, is_number: false }
}

/// Text, cut off unless the table is wide.
pub fn short(value: &str, is_wide: bool) -> Value {
    let mut shown = text(value);
    if !is_wide && shown.text.chars().count() > CELL {
        shown.text = shown.text.chars().take(CELL - 1).chain(['…']).collect();
    }
    shown
}

/// Text with a meaning.
pub fn toned(value: impl AsRef<str>, tone: Tone) -> Value {
    Value { tone, ..text(value) }
}

/// A number, to the right.
pub fn number(value: impl ToString) -> Value {
    Value { text: value.to_string(), tone: Tone::Plain, is_number: true }
}

impl Value {
    fn cell(self) -> Cell {
        let alignment = if self.is_number { CellAlignment::Right } else { CellAlignment::Left };
        let cell = Cell::new(self.text).set_alignment(alignment);
        match self.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Busy => cell.fg(Color::Yellow),
        }
    }
}

/// A list.
pub struct Table {
    inner: comfy_table::Table,
    columns: Vec<&'static str>,
    has_rows: bool,
}

impl Table {
    /// With these columns.
    pub fn new(columns: &[&'static str]) -> Self {
        Self { inner: bare(), columns: columns.to_vec(), has_rows: false }
    }

    /// One more line.
    pub fn add(&mut self, row: Row) {
        if !self.has_rows {
            let aligned =
                self.columns.iter().zip(&row).map(|(name, value)| Value { text: (*name).into(), tone: Tone::Plain, ..value.clone() });
            self.inner.set_header(aligned.map(Value::cell));
            self.has_rows = true;
        }
        self.inner.add_row(row.into_iter().map(Value::cell));
    }

    /// Its lines; the header alone when it is empty.
    pub fn render(mut self, is_coloured: bool) -> String {
        if !self.has_rows {
            self.inner.set_header(self.columns);
        }
        finish(self.inner, is_coloured)
    }
}

/// One thing: names on the left, values on the right, blocks of text below.
#[derive(Default)]
pub struct Card {
    lines: Vec<(String, Value)>,
    blocks: Vec<String>,
}

impl Card {
    /// One more line.
    #[must_use]
    pub fn line(mut self, name: &str, value: Value) -> Self {
        self.lines.push((name.into(), Value { is_number: false, ..value }));
        self
    }

    /// One more line if there is anything to say.
    #[must_use]
    pub fn some<T>(self, name: &str, value: Option<T>, show: impl FnOnce(T) -> Value) -> Self {
        match value {
            Some(value) => self.line(name, show(value)),
            None => self,
        }
    }

    /// Text below the lines, after an empty one.
    #[must_use]
    pub fn block(mut self, text: String) -> Self {
        self.blocks.push(text);
        self
    }

    /// Its lines.
    pub fn render(self, is_coloured: bool) -> String {
        let mut inner = bare();
        for (name, value) in self.lines {
            inner.add_row([Cell::new(format!("{name}:")), value.cell()]);
        }
        let mut shown = finish(inner, is_coloured);
        for block in self.blocks {
            shown.push('\n');
            shown.push_str(&block);
            if !block.ends_with('\n') {
                shown.push('\n');
            }
        }
        shown
    }
}

fn bare() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn finish(mut table: comfy_table::Table, is_coloured: bool) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if is_coloured {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_two_spaces_apart() {
        let mut table = Table::new(&["JOB", "DONE", "NAME"]);
        table.add(vec![text("j1"), number(7), text("first")]);
        table.add(vec![text("j100"), number(12_345), text("")]);
        insta::assert_snapshot!(table.render(false), @"
JOB    DONE  NAME
j1        7  first
j100  12345  -
");
        insta::assert_snapshot!(Table::new(&["JOB", "STATE"]).render(false), @"JOB  STATE");
    }

    #[test]
    fn control_characters_stay_visible() {
        let mut table = Table::new(&["NAME"]);
        table.add(vec![text("a\u{1b}[31mb\nc\td")]);
        insta::assert_snapshot!(table.render(false), @r"
NAME
a\u{1b}[31mb\nc\td
");
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let table = || {
            let mut table = Table::new(&["STATE"]);
            table.add(vec![toned("failed", Tone::Bad)]);
            table
        };
        assert!(!table().render(false).contains('\u{1b}'));
        assert!(table().render(true).contains("\u{1b}["));
    }

    #[test]
    fn long_cells_are_cut_unless_wide() {
        assert_eq!(short(&"x".repeat(48), false).text.chars().count(), 48);
        assert!(short(&"ö".repeat(49), false).text.ends_with('…'));
        assert_eq!(short(&"x".repeat(49), true).text.len(), 49);
    }
}
