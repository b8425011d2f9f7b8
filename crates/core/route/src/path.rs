//! Paths as rules see them: the normal form of RFC 3986 (6.2.2) with merged slashes, and whether servers could read a
//! path in a way that rules would judge differently. Knows no rules.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The normal form: unreserved characters are not escaped, escapes are in upper case, `.` and `..` are resolved,
/// slashes are merged. Anything that is not such a path, such as `*`, stays unchanged.
pub(crate) fn normal(path: &str) -> Cow<'_, str> {
    if !path.starts_with('/') || is_plain(path) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(resolved(&spelled(path)))
}

/// One way in which a server may read a normal path.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) path: String,
    /// Without parameters: each segment ends at its first `;`.
    pub(crate) is_bare: bool,
}

/// How servers read a normal path that decode every escape: with `\` as a slash or not, with slashes merged or not,
/// with parameters of segments or without. `None` if one of them could stop before the end, or find a segment of dots,
/// which some resolve and others do not.
pub(crate) fn readings(normal: &str) -> Option<Vec<Reading>> {
    let written = literal(normal);
    if written.contains('\0') {
        return None;
    }
    let mut all = Vec::new();
    for text in [written.replace('\\', "/"), written] {
        for is_bare in [false, true] {
            let segments =
                text.split('/').map(|segment| segment.split(';').next().filter(|_| is_bare).unwrap_or(segment));
            let segments: Vec<&str> = segments.collect();
            if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
                return None;
            }
            let path = segments.join("/");
            all.push(Reading { path: resolved(&path), is_bare });
            all.push(Reading { path, is_bare });
        }
    }
    Some(all)
}

/// One spelling of each character: what need not be escaped is not, the rest is in upper case.
pub(crate) fn spelled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Escape(byte) if is_unreserved(byte) => out.push(char::from(byte)),
            Piece::Escape(byte) => out.push_str(&format!("%{byte:02X}")),
            // Otherwise it could form an escape together with what was decoded after it.
            Piece::Char('%') => out.push_str("%25"),
            Piece::Char(char) if char.is_ascii() => out.push(char),
            Piece::Char(char) => {
                char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
            }
        }
    }
    out
}

/// The characters that are meant, with no escape left.
pub(crate) fn literal(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

enum Piece {
    /// `%XX`
    Escape(u8),
    Char(char),
}

/// A `%` that begins no escape is a character.
fn pieces(text: &str) -> impl Iterator<Item = Piece> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let escape = if first == '%' { rest.get(1..3).and_then(byte) } else { None };
        rest = &rest[if escape.is_some() { 3 } else { first.len_utf8() }..];
        Some(escape.map_or(Piece::Char(first), Piece::Escape))
    })
}

fn byte(digits: &str) -> Option<u8> {
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Without empty segments and segments of dots; what would lead above the root stays at the root.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_open = false;
    for segment in path.split('/') {
        is_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let end = if is_open && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// Whether nothing in it could be written or read otherwise; fast, since this is true of nearly every path.
pub(crate) fn is_plain(path: &str) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii() && !matches!(byte, b'%' | b'\\' | b';' | 0);
    let starts_dot_or_slash = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
    path.bytes().all(|byte| is_plain(&byte)) && !path.as_bytes().windows(2).any(starts_dot_or_slash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_path_have_one_normal_form() {
        for (path, expected) in [
            ("/admin", "/admin"),
            ("//admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/./admin/.", "/admin/"),
            ("/../../admin", "/admin"),
            ("/a/b/..", "/a/"),
            ("/a//", "/a/"),
            ("/..", "/"),
            ("/", "/"),
            ("*", "*"),
            ("", ""),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/...", "/a..b/..."),
            ("/a%2fb%2Fc", "/a%2Fb%2Fc"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/100%", "/100%25"),
            ("/%zz%6", "/%25zz%256"),
            ("/%%361", "/%2561"),
            ("/%2561", "/%2561"),
            ("/a;b=%40", "/a;b=%40"),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    #[test]
    fn servers_read_escapes_backslashes_and_parameters_in_their_ways() {
        let of = |path: &str| -> Option<Vec<String>> {
            Some(readings(&normal(path))?.into_iter().map(|reading| reading.path).collect())
        };
        for path in ["/%2fadmin", "/\\admin", "/%5Cadmin", "/;v=1/admin", "/admin;v=1", "//%61dmin"] {
            assert!(of(path).expect("readings").contains(&"/admin".to_owned()), "{path}: {:?}", of(path));
        }
        assert!(of("/caf%C3%A9/%40").expect("readings").iter().all(|path| path == "/caf\u{e9}/@"));
        for path in ["/admin%2F..%2Fx", "/a%2f.", "/a%5C..%5cb", "/x/..;/admin", "/a%3b/.%3B", "/a%00"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(path in "/([a-c./%25\\\\é]|%[0-9a-fA-F]{2}){0,12}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(&normal(&once), &once);
            prop_assert!(once.starts_with('/') && !once.contains("//") && !once.contains("/../"));
            prop_assert!(!is_plain(&path) || once == path);
        }

        /// A server that decodes once, and then does what some servers do: takes `\` for a slash, merges slashes,
        /// resolves dots, drops parameters.
        #[test]
        fn what_a_server_sees_is_among_the_readings(
            path in "/([ab./;\\\\]|%2[fFeE]|%5[cC]|%3[bB]|%61){0,12}",
            (slashes, merges, dots, bare) in any::<(bool, bool, bool, bool)>(),
        ) {
            let normal = normal(&path);
            let Some(readings) = readings(&normal) else { return Ok(()) };
            let mut seen = literal(&normal);
            if slashes {
                seen = seen.replace('\\', "/");
            }
            if bare {
                seen = seen.split('/').map(|part| part.split(';').next().unwrap_or("")).collect::<Vec<_>>().join("/");
            }
            if dots {
                prop_assert!(!seen.split('/').any(|part| matches!(part, "." | "..")));
            }
            if merges {
                while seen.contains("//") {
                    seen = seen.replace("//", "/");
                }
            }
            prop_assert!(readings.iter().any(|reading| reading.path == seen), "{seen}: {readings:?}");
        }
    }
}
