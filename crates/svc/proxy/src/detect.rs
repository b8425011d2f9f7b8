//! Which protocol a client speaks, from its first bytes: HTTP/1 if they begin a request line, anything else is opaque.
//! HTTP/2's preface and `CONNECT` are opaque here. Knows no socket.

/// The longest method that is recognised.
const METHOD_BYTES_MAX: usize = 24;
/// The most bytes that a decision needs.
pub(crate) const DETECT_BYTES_MAX: usize = METHOD_BYTES_MAX + 1 + ABSOLUTE.len();
const ABSOLUTE: &[u8] = b"http://";

/// What the first bytes reveal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    Http,
    Opaque,
    /// More bytes are needed.
    Undecided,
}

/// Examines the first bytes of a connection.
pub(crate) fn guess(bytes: &[u8]) -> Guess {
    // Empty lines before a request line are to be ignored (RFC 9112, 2.2).
    let skip = bytes.iter().take_while(|&&b| b == b'\r' || b == b'\n').take(2).count();
    let bytes = &bytes[skip..];
    let is_method = |b: &u8| b.is_ascii_uppercase() || *b == b'-';
    let method = bytes.iter().take_while(|b| is_method(b)).count();
    match bytes.get(method) {
        None if method <= METHOD_BYTES_MAX => Guess::Undecided,
        Some(b' ') if (1..=METHOD_BYTES_MAX).contains(&method) && &bytes[..method] != b"PRI" => {
            target(&bytes[method + 1..])
        }
        _ => Guess::Opaque,
    }
}

fn target(bytes: &[u8]) -> Guess {
    let absolute = bytes.iter().zip(ABSOLUTE).take_while(|(byte, wanted)| byte.eq_ignore_ascii_case(wanted)).count();
    match bytes.first() {
        None => Guess::Undecided,
        Some(b'/' | b'*') => Guess::Http,
        Some(_) if absolute == ABSOLUTE.len() => Guess::Http,
        Some(_) if absolute == bytes.len() => Guess::Undecided,
        Some(_) => Guess::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_http_from_the_rest() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Guess::Http),
            (b"\r\nGET /", Guess::Http),
            (b"M-SEARCH * HTTP/1.1", Guess::Http),
            (b"GET HTTP://a/b", Guess::Http),
            (b"", Guess::Undecided),
            (b"GE", Guess::Undecided),
            (b"GET ", Guess::Undecided),
            (b"GET htt", Guess::Undecided),
            (b"GET key\r\n", Guess::Opaque),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Guess::Opaque),
            (b"CONNECT a:1 HTTP/1.1", Guess::Opaque),
            (b"PING\r\n", Guess::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Guess::Opaque),
            (b"get / HTTP/1.1", Guess::Opaque),
            (b"\x16\x03\x01\x02\x00", Guess::Opaque),
            (b"\0\0\0\x08", Guess::Opaque),
            (b" / HTTP", Guess::Opaque),
        ] {
            assert_eq!(guess(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_decision_needs_a_bounded_number_of_bytes() {
        for first in 0..=255_u8 {
            for filler in [b'A', b'-', b' ', b'h', b'\r', b'/'] {
                let bytes = [&[first][..], &[filler; DETECT_BYTES_MAX + 2]].concat();
                assert_ne!(guess(&bytes), Guess::Undecided, "{first} {filler}");
            }
        }
        let longest = [&[b'A'; METHOD_BYTES_MAX][..], b" http://"].concat();
        assert_eq!(guess(&longest), Guess::Http);
    }
}
