//! Rules over single files: heads, lengths, words, paths, attributes of crates, sources of dependencies.

use super::{Finding, source::code_only};
use crate::workspace::File;

const HEAD_LINES_MAX: usize = 5;
const FILE_LINES_MAX: usize = 1_000;
/// rustfmt breaks at 120 where it can; this bounds what it cannot break.
const LINE_CHARS_MAX: usize = 160;

/// Macros and attributes that leave something undone. Looked for in code alone. The words are put together here so that
/// this file does not break its own rules.
const CODE_BANNED: [(&str, &str); 5] = [
    (concat!("to", "do!"), "finish it, or leave it out"),
    (concat!("unimplemented", "!"), "finish it, or leave it out"),
    (concat!("dbg", "!"), "it is left from debugging"),
    (concat!("#[ig", "nore]"), "a test that does not run shows nothing; fix it, remove it, or give the reason"),
    (concat!("#![allow(", "warnings"), "name the lint and give a reason"),
];

/// Words that speak of the future instead of doing it. Looked for in comments too.
const TEXT_BANNED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("for ", "now,"),
    concat!("for ", "now."),
];

/// Directories of somebody's machine.
const PATHS_BANNED: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn findings(files: &[File]) -> Vec<Finding> {
    let mut out = Vec::new();
    for file in files {
        out.extend(paths(file));
        out.extend(sources(file));
        if file.path.ends_with("/Cargo.toml") {
            out.extend(lints(file));
        }
        if file.is_rust() {
            out.extend(head(file));
            out.extend(lengths(file));
            out.extend(code_words(file));
            out.extend(text_words(file));
            out.extend(attributes(file));
        }
    }
    out
}

/// Every source file says in a few lines what it is. A longer introduction may follow after an empty line.
fn head(file: &File) -> Option<Finding> {
    let lines = file.text.lines().take_while(|line| line.starts_with("//! ")).count();
    match lines {
        0 => Some(Finding::new(
            file,
            1,
            "it begins with no `//!` head; say in 1 to 5 lines what it is and does not know",
        )),
        1..=HEAD_LINES_MAX => None,
        _ => Some(Finding::new(file, 1, format!("its head has {lines} lines; {HEAD_LINES_MAX} are enough"))),
    }
}

fn lengths(file: &File) -> Vec<Finding> {
    let mut out = Vec::new();
    let count = file.text.lines().count();
    if count > FILE_LINES_MAX {
        out.push(Finding::new(file, 0, format!("it has {count} lines, more than {FILE_LINES_MAX}; divide it")));
    }
    for (index, line) in file.text.lines().enumerate() {
        let width = line.chars().count();
        if width > LINE_CHARS_MAX {
            out.push(Finding::new(
                file,
                index + 1,
                format!("the line has {width} characters, more than {LINE_CHARS_MAX}"),
            ));
        }
    }
    out
}

fn code_words(file: &File) -> Vec<Finding> {
    let code = code_only(&file.text);
    let mut out = Vec::new();
    for (index, line) in code.lines().enumerate() {
        for (word, remedy) in CODE_BANNED {
            if finds_word(line, word) {
                out.push(Finding::new(file, index + 1, format!("`{word}` is banned: {remedy}")));
            }
        }
    }
    out
}

fn text_words(file: &File) -> Vec<Finding> {
    let mut out = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for word in TEXT_BANNED.iter().filter(|word| finds_word(line, word)) {
            out.push(Finding::new(file, index + 1, format!("`{word}` is banned: do it, or say what is so and why")));
        }
    }
    out
}

/// Whether `word` stands in `line` and is not part of a longer word.
fn finds_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let starts_as_word = word.starts_with(joins);
        let ends_as_word = word.ends_with(joins);
        !(starts_as_word && before.ends_with(joins) || ends_as_word && after.starts_with(joins))
    })
}

/// No file names a directory of the machine on which it was written.
fn paths(file: &File) -> Vec<Finding> {
    let mut out = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for path in PATHS_BANNED {
            let absolute = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}*/".contains(c));
            if line.match_indices(path).any(|(at, _)| absolute(at)) {
                out.push(Finding::new(
                    file,
                    index + 1,
                    format!("it names `{path}`, a directory of somebody's machine"),
                ));
            }
        }
    }
    out
}

/// Dependencies come from crates.io and from nowhere else.
fn sources(file: &File) -> Vec<Finding> {
    let is_lock = file.path == "Cargo.lock";
    let is_config = file.path.starts_with(".cargo/");
    let mut out = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if is_lock && line.starts_with("source = ") && !line.contains(CRATES_IO) {
            out.push(Finding::new(file, index + 1, "the package does not come from crates.io"));
        }
        if is_config && (line.starts_with("[source") || line.starts_with("[registr")) {
            out.push(Finding::new(
                file,
                index + 1,
                "where packages are fetched is the user's choice, not the repository's",
            ));
        }
    }
    out
}

/// Every crate is under the lints of the workspace.
fn lints(file: &File) -> Option<Finding> {
    let has = file.text.contains("[lints]\nworkspace = true");
    (!has).then(|| Finding::new(file, 0, "it lacks `[lints]` with `workspace = true`"))
}

/// What the root of a library must deny.
fn attributes(file: &File) -> Vec<Finding> {
    let mut out = Vec::new();
    if !(file.path.starts_with("crates/") && file.path.ends_with("/src/lib.rs")) {
        return out;
    }
    let has = |attribute: &str| file.text.lines().any(|line| line.trim() == attribute);
    if !has("#![forbid(unsafe_code)]") && !has("#![deny(unsafe_op_in_unsafe_fn)]") {
        out.push(Finding::new(file, 0, "it lacks `#![forbid(unsafe_code)]`"));
    }
    if file.path.starts_with("crates/core/") && !has("#![deny(missing_docs)]") {
        out.push(Finding::new(file, 0, "it lacks `#![deny(missing_docs)]`"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: impl Into<String>) -> File {
        File { path: path.to_owned(), text: text.into() }
    }

    fn broken(path: &str, text: impl Into<String>) -> Vec<String> {
        findings(&[file(path, text)]).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn a_good_file_passes() {
        let text = "//! What it is.\n\nfn f() {\n    g(\"todo!\");\n}\n";
        assert_eq!(broken("crates/io/a/src/b.rs", text), Vec::<String>::new());
    }

    #[test]
    fn each_rule_fires() {
        let long_line = format!("//! x\n// {}\n", "x".repeat(LINE_CHARS_MAX));
        for (text, word) in [
            ("fn f() {}\n".to_owned(), "head"),
            (format!("{}fn f() {{}}\n", "//! x\n".repeat(6)), "6 lines"),
            (format!("//! x\n{}", "\n".repeat(FILE_LINES_MAX)), "divide it"),
            (long_line, "characters"),
            (format!("//! x\n// {}: y\n", TEXT_BANNED[1]), TEXT_BANNED[1]),
            (format!("//! x\n// It is so {}\n", TEXT_BANNED[4]), TEXT_BANNED[4]),
            (format!("//! x\nconst A: &str = \"{}x\";\n", PATHS_BANNED[0]), "somebody's machine"),
        ] {
            let found = broken("dev/a/src/b.rs", text.clone());
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(word), "{found:?} should name {word}");
        }
        for (word, _) in CODE_BANNED {
            let found = broken("dev/a/src/b.rs", format!("//! x\nfn f() {{ {word}() }}\n"));
            assert_eq!(found.len(), 1, "{word}: {found:?}");
        }
    }

    #[test]
    fn words_count_whole_and_paths_absolute() {
        let text = format!("//! x\n// an id such as {}Y or scratch{}y\n", TEXT_BANNED[2], PATHS_BANNED[0]);
        assert_eq!(broken("dev/a/src/b.rs", text), Vec::<String>::new());
    }

    #[test]
    fn libraries_forbid_unsafe_code_and_core_wants_documentation() {
        assert_eq!(broken("crates/core/a/src/lib.rs", "//! x\n").len(), 2);
        assert_eq!(broken("crates/io/a/src/lib.rs", "//! x\n").len(), 1);
        let good = "//! x\n#![forbid(unsafe_code)]\n#![deny(missing_docs)]\n";
        assert_eq!(broken("crates/core/a/src/lib.rs", good), Vec::<String>::new());
    }

    #[test]
    fn packages_come_from_crates_io() {
        let lock = format!("source = \"{CRATES_IO}\"\nsource = \"git+https://example.com/x\"\n");
        assert_eq!(broken("Cargo.lock", lock).len(), 1);
        assert_eq!(broken(".cargo/config.toml", "[source.crates-io]\nreplace-with = \"x\"\n").len(), 1);
        assert_eq!(broken("crates/io/a/Cargo.toml", "[package]\n").len(), 1);
    }
}
