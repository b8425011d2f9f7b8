//! Links between our documents: the file is there, and so is the heading.

use super::Finding;
use crate::workspace::File;
use std::collections::BTreeMap;

/// Broken relative links of all Markdown files; `exists` is asked for paths relative to the root.
pub(super) fn findings(files: &[File], exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let headings: BTreeMap<&str, Vec<String>> =
        files.iter().filter(|f| f.is_markdown()).map(|f| (&*f.path, anchors(&f.text))).collect();
    let mut out = Vec::new();
    for file in files.iter().filter(|f| f.is_markdown()) {
        for (line, target) in links(&file.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if path.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, path) };
            let Some(path) = path.filter(|path| exists(path)) else {
                out.push(Finding::new(file, line, format!("the link to `{target}` leads nowhere")));
                continue;
            };
            if let Some(known) =
                headings.get(&*path).filter(|known| !anchor.is_empty() && !known.iter().any(|k| k == anchor))
            {
                let near = known.first().map_or(String::new(), |first| format!("; its first heading is #{first}"));
                out.push(Finding::new(file, line, format!("{path} has no heading for #{anchor}{near}")));
            }
        }
    }
    out
}

/// Lines of a document that are not code, with their number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        (!in_code).then_some((index + 1, line))
    })
}

/// The relative targets of `[text](target)` and `src="target"`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (number, line) in prose(text) {
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("` `");
        let targets = [("](", ')'), ("src=\"", '"'), ("href=\"", '"')].into_iter().flat_map(|(open, close)| {
            plain
                .split(open)
                .skip(1)
                .filter_map(move |part| part.split(close).next())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        let relative = targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:"));
        out.extend(relative.map(|target| (number, target)));
    }
    out
}

/// `target` as seen from the document `from`; `None` if it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The anchors of a document's headings, as code hosting sites make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#'));
    let titles = headings.filter_map(|rest| rest.trim_start_matches('#').strip_prefix(' '));
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    titles
        .map(|title| {
            let slug: String = title.trim().chars().filter(|c| kept(*c)).flat_map(char::to_lowercase).collect();
            let slug = slug.replace(' ', "-");
            let count = seen.entry(slug.clone()).and_modify(|n| *n += 1).or_insert(0);
            if *count == 0 { slug } else { format!("{slug}-{count}") }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> Vec<String> {
        let files = [
            File { path: "docs/a.md".to_owned(), text: text.to_owned() },
            File { path: "README.md".to_owned(), text: "# What it is\n## G1: a, b\n## 两个命令\n".to_owned() },
        ];
        let exists = |path: &str| ["docs/a.md", "README.md", "docs/x.svg"].contains(&path);
        findings(&files, &exists).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn good_links_pass() {
        for text in [
            "[a](../README.md)",
            "[a](../README.md#what-it-is) [b](a.md) [c](#here)\n# Here",
            "[a](../README.md#g1-a-b) [b](../README.md#两个命令)",
            "<img src=\"x.svg\">",
            "[a](https://example.com/x)",
            "`[a](no.md)`",
            "```\n[a](no.md)\n```",
        ] {
            assert_eq!(broken(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn broken_links_are_found() {
        for text in ["[a](no.md)", "[a](../README.md#no)", "[a](#no)", "[a](../../etc/passwd)", "<img src=\"y.svg\">"] {
            assert_eq!(broken(text).len(), 1, "{text}");
        }
    }
}
