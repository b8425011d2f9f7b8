//! How results are printed: tables for people, JSON and YAML for programs. Data goes to stdout, messages to stderr. All
//! text passes [`safe`], since much of it comes from containers; only [`write()`] and [`write_stderr`] pass bytes
//! unchanged.

use crate::args::Output;
use anyhow::Context;
use serde::Serialize;
use std::{
    fmt::Write as _,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IsTerminal, Write as _},
    sync::LazyLock,
};

/// Begins an escape sequence of our own. Random, so that no text from elsewhere can hold it.
static OWN_ESCAPE: LazyLock<String> =
    LazyLock::new(|| format!("\x1b{:016x}", RandomState::new().build_hasher().finish()));

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

    /// Adds a row of ready-made cells.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text; the last column is not padded. Line breaks in a cell are escaped: a row is a line.
    pub fn render(&self) -> String {
        let shown = |row: &Vec<String>| row.iter().map(|cell| escape(cell, |_, _| false)).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = self.rows.iter().map(shown).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &rows {
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

/// `text` without anything that a terminal acts on or that reorders what people read: control characters other than
/// line breaks and tabs, and bidirectional overrides, appear as `\uXXXX`, as in JSON. Colours from [`paint`] stay.
pub fn safe(text: &str) -> String {
    let pieces = text.split(OWN_ESCAPE.as_str());
    let keep = |c, next| matches!((c, next), ('\n' | '\t', _) | ('\r', Some('\n')));
    pieces.map(|piece| escape(piece, keep)).collect::<Vec<_>>().join("\x1b")
}

/// A line that a container wrote, for a terminal.
pub fn safe_line(line: &str) -> String {
    escape(line, |c, _| c == '\t')
}

/// Escapes what could act on a terminal, except the characters (with what follows them) that `keep` names.
fn escape(text: &str, keep: impl Fn(char, Option<char>) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let acts = c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if acts && !keep(c, rest.peek().copied()) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Prints text to stdout.
pub fn say(text: impl AsRef<str>) -> anyhow::Result<()> {
    write(safe(text.as_ref()).as_bytes())
}

/// Prints bytes to stderr unchanged.
pub fn write_stderr(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stderr().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard error")
}

/// Prints bytes to stdout unchanged. If nobody reads on, that is an error too, but `main` does not report it: the rest
/// of the command then has no purpose.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Prints text to stdout for whoever reads it; a platform runs on even if nobody does.
pub fn announce(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(safe(text.as_ref()).as_bytes()).and_then(|()| out.flush());
}

/// Whether the error means that nobody reads our output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.into_iter().any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a line to stderr. It is no error if nobody reads it.
pub fn tell(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", safe(text.as_ref()));
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
    if colours() { painted(text, colour) } else { text.to_owned() }
}

/// The same for stderr.
pub fn paint_stderr(text: &str, colour: u8) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || !io::stderr().is_terminal();
    if plain { text.to_owned() } else { painted(text, colour) }
}

fn painted(text: &str, colour: u8) -> String {
    let escape = OWN_ESCAPE.as_str();
    format!("{escape}[{colour}m{text}{escape}[0m")
}

/// A span of time in short form: `5s`, `3m`, `2h`, `4d`.
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
    fn what_acts_on_a_terminal_is_shown() {
        let cases = [
            ("a\tb\nc\r\nd", "a\tb\nc\r\nd"),
            ("\x1b[31mred\x1b]0;title\x07", "\\u001b[31mred\\u001b]0;title\\u0007"),
            ("over\rwritten\x08\x7f", "over\\u000dwritten\\u0008\\u007f"),
            ("\u{9b}2J \u{202e}cod.exe", "\\u009b2J \\u202ecod.exe"),
            ("héllo 漢字 👩‍🚀", "héllo 漢字 👩‍🚀"),
        ];
        for (text, shown) in cases {
            assert_eq!(safe(text), shown);
            assert_eq!(safe(&safe(text)), shown);
        }
        assert_eq!(safe(&painted("a\x1b[8mb", 32)), "\x1b[32ma\\u001b[8mb\x1b[0m");
        assert_eq!(safe_line("a\tb\n\x1b"), "a\tb\\u000a\\u001b");
    }

    #[test]
    fn a_cell_makes_no_row_of_its_own() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(["a\nFORGED\x1b[2J".to_owned(), "1".to_owned()]);
        assert_eq!(table.render(), "NAME                     N\na\\u000aFORGED\\u001b[2J   1\n");
    }

    #[test]
    fn json_and_yaml_mean_the_same_when_they_are_safe() {
        let value = vec!["\x1b[31m \u{9b}\u{7f} \r a\r\nb \u{202e}\u{2028} \t".to_owned(), "\r\n\x1b".to_owned()];
        let json = safe(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).expect("still JSON"), value);
        let yaml = safe(&yaml(&value).expect("YAML"));
        assert!(!yaml.chars().any(|c| c.is_control() && c != '\n'), "{yaml:?}");
        assert_eq!(serde_saphyr::from_str::<Vec<String>>(&yaml).expect("still YAML"), value, "{yaml}");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([age(0, 5_000), age(0, 180_000), age(0, 7_200_000), age(0, 400_000_000)], ["5s", "3m", "2h", "4d"]);
    }
}
