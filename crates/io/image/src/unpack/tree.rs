//! The directory into which a layer is unpacked. Every name is reached through a handle of its parent that the kernel
//! resolved inside the directory (openat2), so no link in a layer leads out of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Lowers;
use super::entry::Meta;
use crate::error::Violation;
use crate::merged::{self, Merged, Node, OPAQUE_XATTR};

/// How often a lookup that raced with a rename elsewhere on the machine is repeated.
const RESOLVE_RETRIES_MAX: usize = 64;

/// Why an entry was not written.
#[derive(Debug)]
pub(super) enum Stop {
    NeedsLowers,
    Violation(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Violation(Violation::Write(error.into()))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Violation(Violation::Write(error))
    }
}

/// What was at the place of a new entry.
#[derive(PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    Whiteout,
}

pub(super) struct Tree {
    root: Rc<OwnedFd>,
    lowers: Option<Merged>,
    used_lowers: bool,
    /// The parent of the last entry; archives list the entries of a directory together.
    cached_parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Writing into a directory changes its time, so times are set at the end.
    directory_times: Vec<(PathBuf, OsString, Timestamps)>,
    root_times: Option<Timestamps>,
}

impl Tree {
    pub(super) fn open(dest: &Path, lowers: &Lowers) -> io::Result<Self> {
        let lowers = match lowers {
            Lowers::Unknown => None,
            Lowers::Known(dirs) => Some(Merged::open(dirs)?),
        };
        Ok(Self {
            root: Rc::new(merged::open_root(dest)?),
            lowers,
            used_lowers: false,
            cached_parent: None,
            directory_times: Vec::new(),
            root_times: None,
        })
    }

    pub(super) fn root(&mut self, meta: &Meta) -> Result<(), Stop> {
        meta.apply_without_times(&open_dir(&self.root, OsStr::new("."))?)?;
        self.root_times = Some(meta.times.clone());
        Ok(())
    }

    pub(super) fn directory(&mut self, parent: &Path, name: &OsStr, meta: &Meta) -> Result<(), Stop> {
        let dir = self.parent(parent)?;
        let before = self.clear(&dir, name, true)?;
        if before != Before::Directory {
            rustix::fs::mkdirat(&*dir, name, Mode::RWXU)?;
        }
        let made = open_dir(&dir, name)?;
        if before == Before::Whiteout {
            set_opaque(&made)?;
        }
        meta.apply_without_times(&made)?;
        self.directory_times.push((parent.to_owned(), name.to_owned(), meta.times.clone()));
        Ok(())
    }

    /// A new, empty, private file; the caller writes it and sets its attributes.
    pub(super) fn create_file(&mut self, parent: &Path, name: &OsStr) -> Result<File, Stop> {
        let dir = self.parent(parent)?;
        self.clear(&dir, name, false)?;
        create_new(&dir, name)
    }

    pub(super) fn symlink(&mut self, parent: &Path, name: &OsStr, target: &[u8], meta: &Meta) -> Result<(), Stop> {
        let dir = self.parent(parent)?;
        self.clear(&dir, name, false)?;
        rustix::fs::symlinkat(target, &*dir, name)?;
        rustix::fs::chownat(&*dir, name, Some(meta.uid), Some(meta.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(rustix::fs::utimensat(&*dir, name, &meta.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(super) fn fifo(&mut self, parent: &Path, name: &OsStr, meta: &Meta) -> Result<(), Stop> {
        let dir = self.parent(parent)?;
        self.clear(&dir, name, false)?;
        rustix::fs::mknodat(&*dir, name, FileType::Fifo, Mode::RUSR, 0)?;
        rustix::fs::chownat(&*dir, name, Some(meta.uid), Some(meta.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        // Created a moment ago in a directory that nobody else can enter, so it is no link.
        rustix::fs::chmodat(&*dir, name, meta.mode, AtFlags::empty())?;
        Ok(rustix::fs::utimensat(&*dir, name, &meta.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Links to a file of this layer; copies one that only a lower layer has. Returns the bytes copied.
    pub(super) fn hard_link(
        &mut self,
        parent: &Path,
        name: &OsStr,
        from_parent: &Path,
        from_name: &OsStr,
    ) -> Result<u64, Stop> {
        let target = from_parent.join(from_name);
        if let Some(from) = open_in_root(&self.root, from_parent)? {
            match rustix::fs::statat(&from, from_name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_linkable(&stat) => {
                    self.link_here(parent, name, &from, from_name, &stat)?;
                    return Ok(0);
                }
                Ok(stat) if merged::is_whiteout(&stat) => return Err(Violation::LinkTargetMissing { target }.into()),
                Ok(_) => return Err(Violation::LinkTargetRefused { target }.into()),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.copy_from_lower(parent, name, target)
    }

    pub(super) fn whiteout(&mut self, parent: &Path, name: &OsStr) -> Result<(), Stop> {
        let dir = self.parent(parent)?;
        match rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(rustix::fs::mknodat(&*dir, name, FileType::CharacterDevice, Mode::empty(), 0)?),
            // The layer has its own: a directory hides the lower one, a file does so anyway.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                set_opaque(&open_dir(&dir, name)?)
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn opaque(&mut self, parent: &Path) -> Result<(), Stop> {
        let dir = self.parent(parent)?;
        set_opaque(&open_dir(&dir, OsStr::new("."))?)
    }

    /// Sets the directories' times. Returns whether anything of lower layers went into the tree.
    pub(super) fn finish(mut self) -> Result<bool, Violation> {
        for (parent, name, times) in std::mem::take(&mut self.directory_times) {
            let set = || -> Result<(), Errno> {
                let Some(dir) = resolve(&self.root, &parent)? else { return Ok(()) };
                match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        rustix::fs::utimensat(&dir, &name, &times, AtFlags::SYMLINK_NOFOLLOW)
                    }
                    // A later entry took its place.
                    Ok(_) | Err(Errno::NOENT) => Ok(()),
                    Err(e) => Err(e),
                }
            };
            set().map_err(|e| Violation::Write(e.into()))?;
        }
        if let Some(times) = &self.root_times {
            let root = merged::fd_path(&self.root);
            rustix::fs::utimensat(rustix::fs::CWD, root, times, AtFlags::empty())
                .map_err(|e| Violation::Write(e.into()))?;
        }
        Ok(self.used_lowers)
    }

    /// The directory at `path`; creates it if only a lower layer (or none) has it.
    fn parent(&mut self, path: &Path) -> Result<Rc<OwnedFd>, Stop> {
        if let Some((cached, dir)) = &self.cached_parent
            && cached == path
        {
            return Ok(Rc::clone(dir));
        }
        let dir = match open_in_root(&self.root, path)? {
            Some(dir) => Rc::new(dir),
            None => self.make_parent(path)?,
        };
        self.cached_parent = Some((path.to_owned(), Rc::clone(&dir)));
        Ok(dir)
    }

    fn make_parent(&mut self, path: &Path) -> Result<Rc<OwnedFd>, Stop> {
        let Some(lowers) = &self.lowers else { return Err(Stop::NeedsLowers) };
        let view = lowers.with_top(Rc::clone(&self.root));
        let found = view.resolve(path, true).map_err(parent_error)?;
        let rest = match found.node {
            Node::Dir(_) => Vec::new(),
            Node::Missing(rest) if rest.iter().all(|name| name != "..") => rest,
            _ => return Err(Violation::ParentNotDirectory.into()),
        };
        self.used_lowers = true;
        let mut dir = Rc::clone(&self.root);
        let mut at = PathBuf::new();
        let visible = found.dirs.iter().map(|name| (name, true));
        for (name, is_visible) in visible.chain(rest.iter().map(|name| (name, false))) {
            at.push(name);
            let like = if is_visible { self.lower_attributes(&at) } else { None };
            dir = Rc::new(self.make_component(&dir, name, like)?);
        }
        Ok(dir)
    }

    /// One directory of a path without symbolic links; a new one gets the lower layers' attributes.
    fn make_component(&self, dir: &OwnedFd, name: &OsStr, like: Option<Stat>) -> Result<OwnedFd, Stop> {
        let before = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Before::Directory,
            Ok(stat) if merged::is_whiteout(&stat) => Before::Whiteout,
            Ok(_) => return Err(Violation::ParentNotDirectory.into()),
            Err(Errno::NOENT) => Before::Nothing,
            Err(e) => return Err(e.into()),
        };
        if before == Before::Whiteout {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        if before != Before::Directory {
            rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
            let made = open_dir(dir, name)?;
            match like {
                Some(stat) => copy_attributes(&made, &stat)?,
                None => rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?,
            }
            if before == Before::Whiteout {
                set_opaque(&made)?;
            }
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
    }

    fn lower_attributes(&self, path: &Path) -> Option<Stat> {
        match self.lowers.as_ref()?.resolve(path, false).ok()?.node {
            Node::Dir(lower) => rustix::fs::fstat(&*lower).ok(),
            _ => None,
        }
    }

    fn link_here(
        &mut self,
        parent: &Path,
        name: &OsStr,
        from: &OwnedFd,
        from_name: &OsStr,
        stat: &Stat,
    ) -> Result<(), Stop> {
        let dir = self.parent(parent)?;
        match rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Already the same file, perhaps under the same name: removing it first would lose it.
            Ok(old) if (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino) => return Ok(()),
            _ => {}
        }
        self.clear(&dir, name, false)?;
        Ok(rustix::fs::linkat(from, from_name, &*dir, name, AtFlags::empty())?)
    }

    fn copy_from_lower(&mut self, parent: &Path, name: &OsStr, target: PathBuf) -> Result<u64, Stop> {
        let Some(lowers) = &self.lowers else { return Err(Stop::NeedsLowers) };
        let view = lowers.with_top(Rc::clone(&self.root));
        let (from, from_name, stat) = match view.resolve(&target, false).map_err(parent_error)?.node {
            Node::Other(from, from_name, stat) => (from, from_name, stat),
            Node::Missing(_) => return Err(Violation::LinkTargetMissing { target }.into()),
            Node::Dir(_) => return Err(Violation::LinkTargetRefused { target }.into()),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Violation::LinkTargetRefused { target }.into());
        }
        self.used_lowers = true;
        let mut source = merged::open_regular(&from, &from_name)?;
        let mut file = self.create_file(parent, name)?;
        let bytes = io::copy(&mut source, &mut file)?;
        copy_attributes(&file, &stat)?;
        Ok(bytes)
    }

    /// Makes room for a new entry. A directory stays if `keep_directory`.
    fn clear(&mut self, dir: &OwnedFd, name: &OsStr, keep_directory: bool) -> Result<Before, Stop> {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Before::Nothing),
            Err(e) => return Err(e.into()),
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && keep_directory {
            return Ok(Before::Directory);
        }
        // What is removed may be an ancestor of the remembered parent.
        self.cached_parent = None;
        if is_directory {
            std::fs::remove_dir_all(merged::fd_path(dir).join(name))?;
            return Ok(Before::Nothing);
        }
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        Ok(if merged::is_whiteout(&stat) { Before::Whiteout } else { Before::Nothing })
    }
}

fn parent_error(error: io::Error) -> Stop {
    match Errno::from_io_error(&error) {
        Some(Errno::NOTDIR | Errno::LOOP) => Violation::ParentNotDirectory.into(),
        _ => error.into(),
    }
}

fn is_linkable(stat: &Stat) -> bool {
    matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink | FileType::Fifo)
}

/// The directory at `path` if this layer has all of it; links on the way stay inside the root.
fn open_in_root(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Stop> {
    match resolve(root, path) {
        Err(Errno::LOOP) => Err(Violation::ParentNotDirectory.into()),
        other => Ok(other?),
    }
}

fn resolve(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let mut retries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), within) {
            Ok(dir) => return Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::AGAIN | Errno::INTR) if retries < RESOLVE_RETRIES_MAX => retries += 1,
            Err(e) => return Err(e),
        }
    }
}

fn open_dir(dir: &OwnedFd, name: &OsStr) -> Result<File, Stop> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?))
}

fn create_new(dir: &OwnedFd, name: &OsStr) -> Result<File, Stop> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
}

fn set_opaque(dir: &File) -> Result<(), Stop> {
    Ok(rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
}

fn copy_attributes(file: &File, like: &Stat) -> Result<(), Stop> {
    rustix::fs::fchown(file, Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid)))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(like.st_mode & 0o7777))?;
    let time =
        |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(like.st_atime, like.st_atime_nsec),
        last_modification: time(like.st_mtime, like.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(file, &times)?)
}
