//! Paths as rules see them: the normal form of RFC 3986 (6.2.2) with merged slashes, and whether servers could read a
//! path in another way that rules would judge differently. Knows no rules.

use std::borrow::Cow;

/// The normal form: unreserved characters are not escaped, escapes are in upper case, `.` and `..` are resolved, slashes
/// are merged. What is no path of that kind, such as `*`, stays as it is.
pub(crate) fn normal(path: &str) -> Cow<'_, str> {
    if !path.starts_with('/') || is_plain(path) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(resolved(&spelled(path)))
}

/// How a server reads it that takes every escape for its character, and a backslash for a slash.
pub(crate) fn loose(path: &str) -> String {
    resolved(&literal(path).replace('\\', "/"))
}

/// Whether servers may stop reading before its end.
pub(crate) fn is_cut(path: &str) -> bool {
    path.contains("%00") || path.contains('\0')
}

/// One spelling of each character: what need not be escaped is not, the rest is in upper case.
pub(crate) fn spelled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Escape(byte) if is_unreserved(byte) => out.push(char::from(byte)),
            Piece::Escape(byte) => out.push_str(&format!("%{byte:02X}")),
            // Else it could begin an escape together with what was decoded behind it.
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
    let mut out = Vec::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Escape(byte) => out.push(byte),
            Piece::Char(char) => out.extend(char.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
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

/// Without empty segments and those of dots; what would lead above the root stays at it.
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

/// Whether nothing in it could be written or read otherwise; quick, since nearly every path is so.
pub(crate) fn is_plain(path: &str) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii() && !matches!(byte, b'%' | b'\\' | 0);
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
    fn the_loose_reading_takes_every_separator() {
        for path in ["/%2fadmin", "/x%2f..%2Fadmin", "/\\admin", "/x%5c..%5Cadmin", "//%61dmin"] {
            assert_eq!(loose(path), "/admin", "{path}");
        }
        assert_eq!(loose("/caf%C3%A9/%40"), "/caf\u{e9}/@");
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(path in "/([a-c./%25\\\\é]|%[0-9a-fA-F]{2}){0,12}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(&normal(&once), &once);
            prop_assert!(once.starts_with('/') && !once.contains("//") && !once.contains("/../"));
            prop_assert!(!is_plain(&path) || once == path);
        }

        #[test]
        fn the_loose_reading_sees_through_every_spelling(path in "/[a-c./@]{0,12}", escaped in prop::collection::vec(any::<bool>(), 13)) {
            let spelt: String = path
                .bytes()
                .zip(escaped)
                .enumerate()
                .map(|(at, (byte, escape))| if escape && at > 0 { format!("%{byte:02x}") } else { char::from(byte).to_string() })
                .collect();
            prop_assert_eq!(loose(&spelt), loose(&path));
        }
    }
}
