//! How results are printed: tables for people, JSON and YAML for programs. Data goes to stdout, talk to stderr.

use crate::cli::Output;
use anyhow::Context;
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

/// Rows under headings, in columns as wide as needed.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Adds a row of cells that are made elsewhere.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text; the last column is as wide as it comes.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a string cannot fail.
                let _ = write!(line, "{cell:<width$}   ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Prints text to stdout.
pub fn say(text: impl AsRef<str>) -> anyhow::Result<()> {
    write(text.as_ref().as_bytes())
}

/// Prints bytes to stdout. That nobody reads on is an error too, which `main` does not tell: the rest of the command has
/// no purpose then.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Prints text to stdout for whoever reads it; a platform runs on if nobody does.
pub fn announce(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_ref().as_bytes()).and_then(|()| out.flush());
}

/// Whether the error is that nobody reads our output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.into_iter().any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a line to stderr. That nobody reads it is no error.
pub fn tell(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Prints `value` as `output` says; `table` makes the text for people.
pub fn print<T: Serialize>(output: Output, value: &T, table: impl FnOnce() -> String) -> anyhow::Result<()> {
    match output {
        Output::Table | Output::Wide | Output::Name => say(table()),
        Output::Json => say(serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n"),
        Output::Yaml => say(yaml(value)?),
    }
}

/// `value` as a YAML document.
pub fn yaml<T: Serialize>(value: &T) -> anyhow::Result<String> {
    serde_saphyr::to_string(value).context("cannot write YAML")
}

/// Whether colours may be used on stdout.
pub fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` in the colour with that ANSI number, if colours may be used.
pub fn paint(text: &str, colour: u8) -> String {
    if colours() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The same for stderr.
pub fn paint_stderr(text: &str, colour: u8) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || !io::stderr().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[{colour}m{text}\x1b[0m") }
}

/// A span of time as people say it: `5s`, `3m`, `2h`, `4d`.
pub fn age(since_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(since_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch as a time of day in UTC.
pub fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(["a-long-name".to_owned(), "1".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME          N\na-long-name   1\nb\n");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([age(0, 5_000), age(0, 180_000), age(0, 7_200_000), age(0, 400_000_000)], ["5s", "3m", "2h", "4d"]);
    }
}
