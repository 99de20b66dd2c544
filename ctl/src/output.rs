//! Where data goes, and in which form: stdout, as a table, a wide one, JSON or JSON lines. Everything else goes to stderr.

pub mod table;

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::SystemTime,
};

use serde::Serialize;
use swarm_proto::UnixMillis;

pub use table::{Card, Row, Table};

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns, nothing cut off.
    Wide,
    /// One JSON value.
    Json,
    /// One JSON value a line.
    Jsonl,
}

/// How this call shows things.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    pub format: Format,
    /// Whether stdout is a terminal that takes colours.
    pub is_coloured: bool,
    /// For ages.
    pub now: UnixMillis,
}

/// What can be shown in every format.
pub trait View: Serialize {
    /// Its line in a list.
    fn row(&self, look: Look) -> Row;
    /// Names of what [`View::row`] gives.
    fn columns(is_wide: bool) -> Vec<&'static str>;
    /// Everything about it, a line for each.
    fn card(&self, look: Look) -> Card;
}

/// What rendering depends on.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub is_wide: bool,
    pub now: UnixMillis,
}

impl Out {
    /// For the stdout of this process.
    pub fn of_process(format: Format) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixMillis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Self { format, is_coloured: !no_color && io::stdout().is_terminal(), now }
    }

    pub const fn look(&self) -> Look {
        Look { is_wide: matches!(self.format, Format::Wide), now: self.now }
    }

    /// A list.
    pub fn list<V: View>(&self, list: &[V]) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let mut table = Table::new(&V::columns(self.look().is_wide));
                list.iter().for_each(|item| table.add(item.row(self.look())));
                write(&table.render(self.is_coloured))
            }
            Format::Json => write_line(&pretty(&list)),
            Format::Jsonl => list.iter().try_for_each(|item| write_line(&compact(item))),
        }
    }

    /// One thing, with all that is known of it.
    pub fn one<V: View>(&self, item: &V) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => write(&item.card(self.look()).render(self.is_coloured)),
            Format::Json | Format::Jsonl => self.data(item),
        }
    }

    /// Something that is text for people, made by `text`, and data for programs.
    pub fn either(&self, data: &impl Serialize, text: impl FnOnce(Look) -> String) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => write(&text(self.look())),
            Format::Json | Format::Jsonl => self.data(data),
        }
    }

    /// A line of a stream: text for people, a JSON line for programs.
    pub fn line(&self, data: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => write_line(&text()),
            Format::Json | Format::Jsonl => write_line(&compact(data)),
        }
    }

    fn data(&self, data: &impl Serialize) -> io::Result<()> {
        write_line(&if self.format == Format::Json { pretty(data) } else { compact(data) })
    }

    /// Whether a program reads.
    pub const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl)
    }
}

/// JSON over many lines.
pub fn pretty(data: &impl Serialize) -> String {
    serde_json::to_string_pretty(data).expect("what is shown has string keys and finite numbers")
}

/// JSON on one line.
pub fn compact(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("what is shown has string keys and finite numbers")
}

/// Text to stdout, flushed: whoever reads a pipe sees it at once.
pub fn write(text: &str) -> io::Result<()> {
    bytes(text.as_bytes())
}

/// Bytes to stdout.
pub fn bytes(data: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data)?;
    stdout.flush()
}

fn write_line(text: &str) -> io::Result<()> {
    write(&format!("{text}\n"))
}

/// Bytes to stderr. Nobody is told when that cannot be written, there being nowhere to tell it.
pub fn error_bytes(data: &[u8]) {
    let _ = io::stderr().lock().write_all(data);
}

/// A remark to the person, beside the data.
pub fn note(text: &str) {
    error_bytes(format!("swarmctl: {text}\n").as_bytes());
}

/// Whether somebody may be looking at stderr.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}
