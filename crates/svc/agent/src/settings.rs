//! What a container takes from configs and secrets: variables for its process, and files in a directory of the node, in
//! memory if possible. Knows neither configs nor secrets: the control plane supplies the resulting values.

use crate::context::{Context, Failure, chain, failure};
use heptad_api::operations::{ContainerSettings, SettingsFile};
use heptad_exec::Mount;
use heptad_model::{Container, ContainerId};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

/// How many files of settings one container may take.
const FILES_MAX: usize = 4_096;

impl Context {
    /// What the container takes; asks nothing for a container that takes nothing.
    pub(crate) async fn settings(&self, container: &Container) -> Result<ContainerSettings, Failure> {
        let template = &container.template;
        if template.environment_from.is_empty() && template.files.is_empty() {
            return Ok(ContainerSettings::default());
        }
        if self.network.is_none() && !template.files.is_empty() {
            let message = "files of configs and secrets need isolated containers, and this node runs plain processes; use \
                           `environment_from`, or run heptad as root";
            return Err(Failure { reason: "SettingsFailed", message: message.to_owned(), fault: None });
        }
        let given = self.plane.settings(&container.id).await;
        let given = given.map_err(|error| failure("SettingsMissing", &error))?;
        if given.files.len() > FILES_MAX {
            let message = format!("{} files of settings; at most {FILES_MAX} are possible", given.files.len());
            return Err(Failure { reason: "SettingsFailed", message, fault: None });
        }
        Ok(given)
    }

    /// Writes the files for the container's user; returns the mounts that show them inside.
    pub(crate) async fn settings_mounts(
        &self,
        id: &ContainerId,
        files: Vec<SettingsFile>,
        user: (u32, u32),
    ) -> Result<Vec<Mount>, Failure> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let dir = self.settings_dir(id);
        let written = self.files_on_thread(move || write(&dir, files, user)).await;
        let written = written.map_err(|error| failure("SettingsFailed", &error))?;
        written.map_err(|error| failure("SettingsFailed", &error))
    }

    fn settings_dir(&self, id: &ContainerId) -> PathBuf {
        self.options.settings_dir.join(id.as_str())
    }

    /// Removes the files of a container that is gone.
    pub(crate) async fn remove_settings(&self, id: &ContainerId) {
        let dir = self.settings_dir(id);
        let removed = self.files_on_thread(move || match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(container = %id, error = chain(&error), "files of settings stay behind");
        }
    }
}

/// Writes the files under numbers, in a directory that nobody else may enter. They replace those of the previous run,
/// which has ended.
fn write(dir: &Path, files: Vec<SettingsFile>, (uid, gid): (u32, u32)) -> io::Result<Vec<Mount>> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut mounts = Vec::with_capacity(files.len());
    for (number, file) in files.into_iter().enumerate() {
        let source = dir.join(number.to_string());
        let mut open = fs::OpenOptions::new();
        let mut written = open.write(true).create_new(true).mode(0o600).open(&source)?;
        io::Write::write_all(&mut written, file.content.as_bytes())?;
        chown(&source, Some(uid), Some(gid))?;
        // Last: the process's mask must not narrow the mode, and nothing may widen it before the owner is right.
        fs::set_permissions(&source, fs::Permissions::from_mode(file.mode))?;
        mounts.push(Mount::Bind { source, target: file.path.into(), read_only: true });
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_have_their_mode_and_replace_those_before() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = base.path().join("web-1");
        let about = fs::metadata(base.path()).expect("metadata");
        let file = |path: &str, mode, content: &str| SettingsFile { path: path.into(), mode, content: content.into() };
        let user = (about.uid(), about.gid());
        let first = [file("/etc/a", 0o400, "one"), file("/etc/b", 0o444, "two")];
        assert_eq!(write(&dir, first.to_vec(), user).expect("written").len(), 2);
        let mounts = write(&dir, vec![file("/etc/c", 0o440, "three")], user).expect("written");
        let [Mount::Bind { source, target, read_only: true }] = &mounts[..] else { panic!("{mounts:?}") };
        assert_eq!(target, Path::new("/etc/c"));
        assert_eq!(fs::read_to_string(source).expect("read"), "three");
        assert_eq!(fs::metadata(source).expect("metadata").mode() & 0o7777, 0o440);
        assert_eq!(fs::metadata(&dir).expect("metadata").mode() & 0o077, 0);
        assert_eq!(fs::read_dir(&dir).expect("listed").count(), 1);
    }
}
