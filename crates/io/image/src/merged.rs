//! A read-only view of several layer directories as overlayfs would show them, resolved component by
//! component through directory handles so that no symbolic link of an image leaves the image.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// As many as the kernel follows.
const SYMLINKS_MAX: usize = 40;

const DIR_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories of each layer that make up one visible directory, top layer first.
type Stack = Vec<Rc<OwnedFd>>;

/// Layers, top first.
pub(crate) struct Merged {
    roots: Stack,
}

/// The target of a path.
pub(crate) enum Node {
    /// A directory; its topmost handle.
    Dir(Rc<OwnedFd>),
    /// Anything else: the directory in the topmost layer that has it, its name there, and its attributes.
    Other(Rc<OwnedFd>, OsString, Box<Stat>),
    /// Nothing; these components remain.
    Missing(Vec<OsString>),
}

/// The target of a path, and the visible directories on the way, free of symbolic links.
pub(crate) struct Found {
    pub(crate) node: Node,
    pub(crate) dirs: Vec<OsString>,
}

enum Step {
    Dir(Stack),
    Symlink(OsString),
    Other(Rc<OwnedFd>, Box<Stat>),
    Missing,
}

impl Merged {
    pub(crate) fn open(layers: &[PathBuf]) -> io::Result<Self> {
        let open = |dir: &PathBuf| Ok(Rc::new(open_root(dir)?));
        Ok(Self { roots: layers.iter().map(open).collect::<io::Result<_>>()? })
    }

    /// The same layers with another one on top.
    pub(crate) fn with_top(&self, top: Rc<OwnedFd>) -> Self {
        Self { roots: std::iter::once(top).chain(self.roots.iter().cloned()).collect() }
    }

    /// Follows `path` from the root, symbolic links included (the last one only if `follow_last`).
    pub(crate) fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<Found> {
        let mut stack = self.roots.clone();
        let mut dirs: Vec<OsString> = Vec::new();
        let mut todo: VecDeque<OsString> = components(path.as_os_str());
        let mut symlinks = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                dirs.pop();
                stack = self.walk(&dirs)?;
                continue;
            }
            match step(&stack, &name)? {
                Step::Dir(next) => {
                    stack = next;
                    dirs.push(name);
                }
                Step::Symlink(target) if follow_last || !todo.is_empty() => {
                    symlinks += 1;
                    if symlinks > SYMLINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    if target.as_bytes().starts_with(b"/") {
                        dirs.clear();
                        stack = self.roots.clone();
                    }
                    let mut ahead = components(&target);
                    ahead.append(&mut todo);
                    todo = ahead;
                }
                Step::Symlink(_) => return last(&stack, name, dirs),
                Step::Other(dir, stat) if todo.is_empty() => {
                    return Ok(Found { node: Node::Other(dir, name, stat), dirs });
                }
                Step::Other(..) => return Err(Errno::NOTDIR.into()),
                Step::Missing => {
                    let rest = std::iter::once(name).chain(todo).collect();
                    return Ok(Found { node: Node::Missing(rest), dirs });
                }
            }
        }
        match stack.into_iter().next() {
            Some(top) => Ok(Found { node: Node::Dir(top), dirs }),
            None => Ok(Found { node: Node::Missing(Vec::new()), dirs }),
        }
    }

    /// The content of a regular file; `None` if there is no such file.
    pub(crate) fn read(&self, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let (dir, name) = match self.resolve(Path::new(path), true)?.node {
            Node::Other(dir, name, _) => (dir, name),
            Node::Dir(_) => return Err(Errno::ISDIR.into()),
            Node::Missing(_) => return Ok(None),
        };
        let mut file = open_regular(&dir, &name)?.take(bytes_max + 1);
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        if content.len() as u64 > bytes_max {
            return Err(Errno::FBIG.into());
        }
        Ok(Some(content))
    }

    /// Directories that are known to be visible and free of symbolic links.
    fn walk(&self, dirs: &[OsString]) -> io::Result<Stack> {
        let mut stack = self.roots.clone();
        for name in dirs {
            match step(&stack, name)? {
                Step::Dir(next) => stack = next,
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(stack)
    }
}

/// Opens a regular file without following a link and without waiting for the other end of a fifo.
pub(crate) fn open_regular(dir: &OwnedFd, name: &OsStr) -> io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::INVAL.into()) }
}

/// The directory handle of a layer's root.
pub(crate) fn open_root(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

/// A whiteout in overlayfs's form: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn last(stack: &Stack, name: OsString, dirs: Vec<OsString>) -> io::Result<Found> {
    for dir in stack {
        match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                return Ok(Found { node: Node::Other(Rc::clone(dir), name, Box::new(stat)), dirs });
            }
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Found { node: Node::Missing(vec![name]), dirs })
}

/// One component down, by overlayfs's rules: the topmost entry wins, directories merge until something
/// that is no directory, a whiteout or an opaque directory ends the merge.
fn step(stack: &Stack, name: &OsStr) -> io::Result<Step> {
    let mut merged = Stack::new();
    for (index, dir) in stack.iter().enumerate() {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let handle = rustix::fs::openat(dir, name, DIR_FLAGS, Mode::empty())?;
            let ends = index + 1 < stack.len() && is_opaque(&handle);
            merged.push(Rc::new(handle));
            if ends {
                break;
            }
        } else if !merged.is_empty() || is_whiteout(&stat) {
            break;
        } else if kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
            return Ok(Step::Symlink(OsStr::from_bytes(target.to_bytes()).to_owned()));
        } else {
            return Ok(Step::Other(Rc::clone(dir), Box::new(stat)));
        }
    }
    Ok(if merged.is_empty() { Step::Missing } else { Step::Dir(merged) })
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0_u8; 4];
    matches!(rustix::fs::getxattr(fd_path(dir), OPAQUE_XATTR, &mut value), Ok(1) if value[0] == b'y')
}

/// Marks a directory that hides what lower layers have in it.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// A path to an open handle, for calls that accept no `O_PATH` handle.
pub(crate) fn fd_path(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// The components of a path; `.` and empty ones omitted, `..` kept.
fn components(path: &OsStr) -> VecDeque<OsString> {
    path.as_bytes()
        .split(|b| *b == b'/')
        .filter(|c| !c.is_empty() && *c != b".")
        .map(|c| OsStr::from_bytes(c).to_owned())
        .collect()
}

#[cfg(test)]
mod tests;
