//! Where the repository is and which files belong to it. Knows no rule.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The repository's root: above this crate, or above the crate whose test program we run.
pub(crate) fn root() -> Result<PathBuf> {
    // Cargo says where it runs us; the place where we were built is for those who start the program themselves.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut above = Path::new(&here).ancestors();
    let root = above.find(|dir| dir.join("Cargo.lock").is_file()).context("no directory above has a Cargo.lock")?;
    Ok(root.to_owned())
}

/// A text file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }
}

/// Dotted directories that hold files of ours.
const DOTTED: [&str; 3] = [".ci", ".cargo", ".github"];
const SKIPPED: [&str; 2] = ["target", "node_modules"];
/// In an additional working tree it is a file that says where the repository is.
const GIT: &str = ".git";

/// All text files below `root` in a stable order; generated and binary files are left out.
pub(crate) fn files(root: &Path) -> Result<Vec<File>> {
    let mut out = Vec::new();
    collect(root, root, &mut out)?;
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}

fn collect(root: &Path, dir: &Path, out: &mut Vec<File>) -> Result<()> {
    let listing = || format!("cannot list {}", dir.display());
    for entry in fs::read_dir(dir).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let kind = entry.file_type().with_context(listing)?;
        if kind.is_dir() {
            let wanted = if name.starts_with('.') { DOTTED.contains(&&*name) } else { !SKIPPED.contains(&&*name) };
            if wanted {
                collect(root, &path, out)?;
            }
        } else if kind.is_file() && name != GIT {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if let Ok(text) = String::from_utf8(bytes) {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                out.push(File { path: relative, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_and_binary_files_are_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, bytes) in
            [("a/b.rs", &b"x"[..]), ("target/c.rs", b"x"), (".git/d", b"x"), (".ci/run", b"x"), ("e.png", b"\xff\xfe")]
        {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, bytes).expect("written");
        }
        let found: Vec<String> = files(dir.path()).expect("listed").into_iter().map(|f| f.path).collect();
        assert_eq!(found, [".ci/run", "a/b.rs"]);
    }
}
