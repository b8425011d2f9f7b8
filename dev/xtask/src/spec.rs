//! `spec`: compiles the proofs under `spec/` with Debian's Coq and asks of every promised theorem what it assumes.
//! Knows no theorem: their names are in `spec/theorems.txt`, their files in `spec/_CoqProject`.

use crate::{metadata, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::{fs, path::Path, process::Command};

/// What Coq prints of a theorem that rests on nothing but its own logic.
const CLOSED: &str = "Closed under the global context";
/// Words that leave something unproved. The audit would notice too; this names the line.
const BANNED: [&str; 8] =
    ["Axiom", "Axioms", "Parameter", "Parameters", "Conjecture", "Admitted", "admit", "Unset Guard Checking"];

pub(crate) fn run() -> Result<()> {
    let root = workspace::root()?;
    let source = root.join("spec");
    let project = read(&source.join("_CoqProject"))?;
    let theorems = read(&source.join("theorems.txt"))?;
    let (files, theorems) = (files_of(&project), theorems_of(&theorems));
    ensure!(!theorems.is_empty(), "spec/theorems.txt names no theorem");
    let unlisted = unlisted(&source, &files)?;
    ensure!(unlisted.is_empty(), "spec/_CoqProject does not name {}", unlisted.join(", "));
    // Coq's output goes where all built files are, beside copies of the sources.
    let built = metadata::load(&root)?.target_directory.join("spec");
    if built.exists() {
        fs::remove_dir_all(&built).with_context(|| format!("cannot empty {}", built.display()))?;
    }
    fs::create_dir_all(&built).with_context(|| format!("cannot make {}", built.display()))?;
    for file in &files {
        let text = read(&source.join(file))?;
        if let Some((line, word)) = banned(&text) {
            bail!("spec/{file}:{line}: `{word}` leaves something unproved");
        }
        fs::write(built.join(file), text).with_context(|| format!("cannot copy spec/{file}"))?;
        coqc(&built, file)?;
    }
    fs::write(built.join("Audit.v"), audit(&files, &theorems)).context("cannot write the audit")?;
    let assumed = assumptions(&coqc(&built, "Audit.v")?);
    ensure!(assumed.len() == theorems.len(), "{} theorems, but {} answers of Coq", theorems.len(), assumed.len());
    let open: Vec<String> = theorems
        .iter()
        .zip(&assumed)
        .filter(|(_, answer)| *answer != CLOSED)
        .map(|(theorem, answer)| format!("{theorem} rests on: {answer}"))
        .collect();
    ensure!(open.is_empty(), "{}", open.join("\n"));
    println!("spec: {} theorems in {} files, all {}", theorems.len(), files.len(), CLOSED.to_lowercase());
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn files_of(project: &str) -> Vec<&str> {
    project.lines().map(str::trim).filter(|line| line.ends_with(".v")).collect()
}

fn theorems_of(list: &str) -> Vec<&str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Proofs that nobody would compile.
fn unlisted(source: &Path, files: &[&str]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(source).context("cannot list spec")? {
        let name = entry.context("cannot list spec")?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".v") && !files.contains(&&*name) {
            out.push(name);
        }
    }
    out.sort();
    Ok(out)
}

fn banned(text: &str) -> Option<(usize, &'static str)> {
    let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
    text.lines().enumerate().find_map(|(index, line)| {
        let has = |word: &&&str| {
            line.match_indices(**word)
                .any(|(at, _)| !line[..at].ends_with(joins) && !line[at + word.len()..].starts_with(joins))
        };
        BANNED.iter().find(has).map(|word| (index + 1, *word))
    })
}

/// Asks about each theorem in turn. A name that does not exist, or is not a theorem's, is an error of Coq.
fn audit(files: &[&str], theorems: &[&str]) -> String {
    let modules: Vec<&str> = files.iter().map(|file| file.trim_end_matches(".v")).collect();
    let mut text = format!("From Heptad Require {}.\n", modules.join(" "));
    for theorem in theorems {
        text.push_str(&format!("Print Assumptions {theorem}.\n"));
    }
    text
}

/// One answer per question: each begins with one of Coq's two openings.
fn assumptions(output: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in output.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match out.last_mut() {
            _ if line == CLOSED || line.starts_with("Axioms:") || line.starts_with("Section Variables:") => {
                out.push(line.to_owned());
            }
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => out.push(line.to_owned()),
        }
    }
    out
}

fn coqc(dir: &Path, file: &str) -> Result<String> {
    let output = Command::new("coqc")
        .args(["-q", "-Q", ".", "Heptad", file])
        .current_dir(dir)
        .output()
        .context("cannot run coqc; `cargo xtask test --prepare` as root installs it (Debian's package coq)")?;
    let refused = || format!("{file} is refused by Coq:\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), refused());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theorem_is_asked_and_every_answer_kept_apart() {
        let text = audit(&files_of("-Q . Heptad\nA.v\nB.v\n"), &theorems_of("# head\nA.x\n\nB.y\n"));
        assert_eq!(text, "From Heptad Require A B.\nPrint Assumptions A.x.\nPrint Assumptions B.y.\n");
        let said =
            "Closed under the global context\nAxioms:\nfoo : nat\n  bar : nat\nClosed under the global context\n";
        assert_eq!(assumptions(said), [CLOSED, "Axioms: foo : nat bar : nat", CLOSED]);
    }

    #[test]
    fn unproved_words_are_found_whole() {
        assert_eq!(banned("Lemma x : True.\nProof. admit. Admitted.\n"), Some((2, "Admitted")));
        assert_eq!(banned("Hypothesis admitted_before : True.\n"), None);
    }

    #[test]
    fn a_proof_that_is_not_listed_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("A.v"), "").expect("written");
        assert_eq!(unlisted(dir.path(), &["A.v"]).expect("listed"), Vec::<String>::new());
        assert_eq!(unlisted(dir.path(), &[]).expect("listed"), ["A.v"]);
    }
}
