//! What a tar entry says about itself: a checked path and the attributes that are adopted. Touches only the file to
//! which it is told to apply them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use crate::error::Violation;

const XATTR_PAX_PREFIX: &str = "SCHILY.xattr.";

/// Where an entry goes, and whether its name is one of the markers that hide lower layers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EntryPath {
    /// The root directory of the layer.
    Root,
    /// An ordinary name.
    Plain { parent: PathBuf, name: OsString },
    /// `.wh.NAME`: hides NAME of the lower layers.
    Whiteout { parent: PathBuf, name: OsString },
    /// `.wh..wh..opq`: hides all that lower layers have in the directory.
    Opaque { parent: PathBuf },
    /// Left over from another filesystem's way of storing layers.
    Ignored,
}

impl EntryPath {
    /// Leading and double slashes and `.` are ignored; `..` is refused, because no builder writes it.
    pub(super) fn parse(bytes: &[u8], depth_max: usize) -> Result<Self, Violation> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(Violation::ParentComponent),
                _ if part.contains(&0) => return Err(Violation::BadName),
                _ => parts.push(part),
            }
            if parts.len() > depth_max {
                return Err(Violation::TooDeep { max: depth_max });
            }
        }
        let Some(name) = parts.pop() else { return Ok(Self::Root) };
        let parent = PathBuf::from(OsString::from_vec(parts.join(&b'/')));
        Ok(match name.strip_prefix(b".wh.") {
            Some(b".wh..opq") => Self::Opaque { parent },
            Some(hidden) if hidden.starts_with(b".wh.") => Self::Ignored,
            Some(b"" | b"." | b"..") => return Err(Violation::BadName),
            Some(hidden) => Self::Whiteout { parent, name: OsStr::from_bytes(hidden).to_owned() },
            None => Self::Plain { parent, name: OsStr::from_bytes(name).to_owned() },
        })
    }
}

/// The name for error messages.
pub(super) fn lossy_name<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).into_owned()
}

/// Owner, mode, time and attributes of an entry.
pub(super) struct Meta {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) mode: Mode,
    pub(super) times: Timestamps,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Meta {
    pub(super) fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Self, Violation> {
        let header = entry.header();
        let uid = owner(header.uid().map_err(Violation::Malformed)?)?;
        let gid = owner(header.gid().map_err(Violation::Malformed)?)?;
        let mode = Mode::from_raw_mode(header.mode().map_err(Violation::Malformed)? & 0o7777);
        let mut seconds = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        let mut nanoseconds = 0;
        let mut xattrs = Vec::new();
        for pair in entry.pax_extensions().map_err(Violation::Malformed)?.into_iter().flatten() {
            let pair = pair.map_err(Violation::Malformed)?;
            let Ok(key) = pair.key() else { continue };
            if key == "mtime" {
                (seconds, nanoseconds) = pair.value().ok().and_then(parse_time).unwrap_or((seconds, 0));
            } else if let Some(name) = key.strip_prefix(XATTR_PAX_PREFIX).filter(|n| may_carry(n)) {
                xattrs.push((OsString::from(name), pair.value_bytes().to_owned()));
            }
        }
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), mode, times, xattrs })
    }

    /// Owner first: changing it clears set-id bits and file capabilities.
    pub(super) fn apply_to(&self, file: &File) -> io::Result<()> {
        self.apply_without_times(file)?;
        Ok(rustix::fs::futimens(file, &self.times)?)
    }

    pub(super) fn apply_without_times(&self, file: &File) -> io::Result<()> {
        rustix::fs::fchown(file, Some(self.uid), Some(self.gid))?;
        rustix::fs::fchmod(file, self.mode)?;
        for (name, value) in &self.xattrs {
            match rustix::fs::fsetxattr(file, name.as_os_str(), value, XattrFlags::empty()) {
                // The filesystem has no attributes of this kind: the file works without them.
                Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// File capabilities and users' own attributes; never those that the kernel or overlayfs acts on
/// (`trusted.*`, labels of security modules, `user.overlay.*`).
fn may_carry(name: &str) -> bool {
    let plain = !name.contains('\0') && name.len() <= 255;
    plain && (name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay.")))
}

fn owner(id: u64) -> Result<u32, Violation> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Violation::Owner { owner: id }),
    }
}

/// `SECONDS[.FRACTION]`, perhaps negative.
fn parse_time(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok().filter(|n| *n >= 0)?;
    if text.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EntryPath, Violation> {
        EntryPath::parse(text.as_bytes(), 4)
    }

    #[test]
    fn names_and_markers() {
        let plain = |parent: &str, name: &str| EntryPath::Plain { parent: parent.into(), name: name.into() };
        assert_eq!(parse("a/b/c").expect("plain"), plain("a/b", "c"));
        assert_eq!(parse("./a//./b/").expect("plain"), plain("a", "b"));
        assert_eq!(parse("/etc/passwd").expect("plain"), plain("etc", "passwd"));
        assert_eq!(parse("./").expect("root"), EntryPath::Root);
        assert_eq!(parse("a/.wh.b").expect("whiteout"), EntryPath::Whiteout { parent: "a".into(), name: "b".into() });
        assert_eq!(parse("a/.wh..wh..opq").expect("opaque"), EntryPath::Opaque { parent: "a".into() });
        assert_eq!(parse("a/.wh..wh.plnk").expect("ignored"), EntryPath::Ignored);
        for bad in [".wh.", ".wh..", ".wh...", "a\0b"] {
            assert!(matches!(parse(bad), Err(Violation::BadName)), "{bad:?}");
        }
        for bad in ["..", "../x", "a/../../x", "/..", "a/.."] {
            assert!(matches!(parse(bad), Err(Violation::ParentComponent)), "{bad:?}");
        }
        assert!(matches!(parse("a/b/c/d/e"), Err(Violation::TooDeep { max: 4 })));
    }

    #[test]
    fn times_and_attributes() {
        assert_eq!(parse_time("12"), Some((12, 0)));
        assert_eq!(parse_time("12.5"), Some((12, 500_000_000)));
        assert_eq!(parse_time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse_time("x"), None);
        assert!(may_carry("security.capability") && may_carry("user.x"));
        for bad in ["trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "system.posix_acl_access"] {
            assert!(!may_carry(bad), "{bad}");
        }
        assert!(owner(u64::from(u32::MAX)).is_err() && owner(1 << 40).is_err() && owner(0).is_ok());
    }
}
