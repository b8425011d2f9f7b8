//! Finds and reads instances in a directory and those directly below it. The first line of a file alone determines its
//! kind, so names do not matter: an index of planted instances, a list of nodes, a list of requests. Skips other files.

mod openb;
mod planted;
mod table;
#[cfg(test)]
mod tests;

use crate::instance::{Instances, Recorded};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
pub use table::LoadError;
use table::heading;

/// Everything in `directory` and in the directories right below it.
pub fn load(directory: &Path) -> Result<Instances, LoadError> {
    let mut found = Instances::default();
    let (files, directories) = entries(directory)?;
    of_directory(&files, &mut found)?;
    for below in directories {
        of_directory(&entries(&below)?.0, &mut found)?;
    }
    if found.planted.is_empty() && found.recorded.is_empty() {
        let problem = format!(
            "no instances; expected an index of planted ones (first line {}…) or a list of nodes ({}) with lists of requests ({}…)",
            planted::INDEX_COLUMNS.join(","),
            openb::NODE_COLUMNS.join(","),
            openb::POD_COLUMNS.join(","),
        );
        return Err(LoadError::Whole { path: directory.into(), problem });
    }
    Ok(found)
}

/// The files and the directories in one, each ordered by name.
fn entries(directory: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), LoadError> {
    let unread = |cause| LoadError::Read { path: directory.into(), cause };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(unread)? {
        paths.push(entry.map_err(unread)?.path());
    }
    paths.sort();
    Ok(paths.into_iter().partition(|path| !path.is_dir()))
}

fn of_directory(files: &[PathBuf], found: &mut Instances) -> Result<(), LoadError> {
    let (mut clusters, mut lists) = (Vec::new(), Vec::new());
    for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "csv")) {
        let names = heading(path)?.unwrap_or_default();
        let begins = |columns: &[&str]| columns.iter().all(|column| names.iter().any(|name| name == column));
        if begins(&planted::INDEX_COLUMNS) {
            found.planted.extend(planted::instances(path)?);
        } else if begins(&openb::NODE_COLUMNS) {
            clusters.push((stem(path), Arc::new(openb::nodes(path)?)));
        } else if begins(&openb::POD_COLUMNS) {
            lists.push(path);
        }
    }
    if let (Some(list), true) = (lists.first(), clusters.is_empty()) {
        let problem =
            format!("no list of nodes beside it; expected one with the first line {}", openb::NODE_COLUMNS.join(","));
        return Err(LoadError::Whole { path: (*list).clone(), problem });
    }
    for list in lists {
        let items = Arc::new(openb::items(list)?);
        for (cluster, nodes) in &clusters {
            let name = if clusters.len() == 1 { stem(list) } else { format!("{}@{cluster}", stem(list)) };
            found.recorded.push(Recorded { name, nodes: nodes.clone(), items: items.clone() });
        }
    }
    Ok(())
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
