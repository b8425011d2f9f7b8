//! One comma-separated file, read row by row: numbers with the place where they stand, so that a bad one is easy to find.
//! Knows no format.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

/// A file of rows is read up to this size.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// It is larger than is read.
    #[error("{path} has {size_bytes} bytes; at most {FILE_BYTES_MAX} are read")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// It is not a table.
    #[error("{path}:{line}: not a row of comma-separated values")]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Why.
        #[source]
        cause: csv::Error,
    },
    /// It lacks a column.
    #[error("{path}:1: no column {column}; the first line must name {expected}")]
    Column {
        /// The file.
        path: PathBuf,
        /// The missing one.
        column: String,
        /// All that are needed.
        expected: String,
    },
    /// A value is not what was expected.
    #[error("{path}:{line}: column {column} is {found:?}; expected {expected}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The column.
        column: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// The file as a whole is not what was expected.
    #[error("{path}: {problem}")]
    Whole {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

/// A table with its heading.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    columns: BTreeMap<String, usize>,
    rows: Vec<(u64, csv::StringRecord)>,
}

/// The names in the first line of a file; `None` if it is no text.
pub(crate) fn heading(path: &Path) -> Result<Option<Vec<String>>, LoadError> {
    let mut reader = open(path)?;
    Ok(reader.headers().ok().map(|names| names.iter().map(str::to_owned).collect()))
}

fn open(path: &Path) -> Result<csv::Reader<fs::File>, LoadError> {
    let unread = |cause| LoadError::Read { path: path.into(), cause };
    let file = fs::File::open(path).map_err(unread)?;
    let size_bytes = file.metadata().map_err(unread)?.len();
    if size_bytes > FILE_BYTES_MAX {
        return Err(LoadError::Size { path: path.into(), size_bytes });
    }
    Ok(csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file))
}

impl Table {
    /// Reads a file whose first line names at least `expected`.
    pub(crate) fn read(path: &Path, expected: &[&str]) -> Result<Self, LoadError> {
        let mut reader = open(path)?;
        let bad = |line, cause| LoadError::Row { path: path.into(), line, cause };
        let names = reader.headers().map_err(|cause| bad(1, cause))?.clone();
        let columns: BTreeMap<String, usize> = names.iter().enumerate().map(|(i, name)| (name.to_owned(), i)).collect();
        if let Some(column) = expected.iter().find(|name| !columns.contains_key(**name)) {
            return Err(LoadError::Column {
                path: path.into(),
                column: (*column).into(),
                expected: expected.join(","),
            });
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|cause| {
                let line = cause.position().map_or(0, csv::Position::line);
                bad(line, cause)
            })?;
            rows.push((record.position().map_or(0, csv::Position::line), record));
        }
        Ok(Self { path: path.into(), columns, rows })
    }

    /// The rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, record)| Row { table: self, line: *line, record })
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Says what is wrong with the file as a whole.
    pub(crate) fn wrong(&self, problem: impl fmt::Display) -> LoadError {
        LoadError::Whole { path: self.path.clone(), problem: problem.to_string() }
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    table: &'a Table,
    line: u64,
    record: &'a csv::StringRecord,
}

impl<'a> Row<'a> {
    /// The text of a column; nothing if there is no such column.
    pub(crate) fn text(&self, column: &str) -> &'a str {
        self.table.columns.get(column).and_then(|index| self.record.get(*index)).unwrap_or_default()
    }

    /// A whole number within `range`.
    pub(crate) fn number(&self, column: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, LoadError> {
        let parsed = self.text(column).parse::<u64>().ok().filter(|number| range.contains(number));
        parsed.ok_or_else(|| self.wrong(column, format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// Says what should stand in a column.
    pub(crate) fn wrong(&self, column: &str, expected: impl Into<String>) -> LoadError {
        LoadError::Value {
            path: self.table.path.clone(),
            line: self.line,
            column: column.into(),
            found: self.text(column).into(),
            expected: expected.into(),
        }
    }
}
