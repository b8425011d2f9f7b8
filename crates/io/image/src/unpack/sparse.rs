//! Sparse files as GNU tar writes them into pax archives (formats 0.0, 0.1 and 1.0): from attributes and maps to pieces
//! with positions. Reads no archive; the `tar` crate handles the old GNU format.

use std::io::{self, Read};

use crate::error::Violation;

/// Pieces of one file.
const PIECES_MAX: usize = 1 << 20;
const BLOCK_BYTES: usize = 512;

/// What an entry says about its file's holes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Its real name, if the header has an artificial one.
    pub(super) name: Option<Vec<u8>>,
    /// The size of the whole file, including holes.
    pub(super) bytes: u64,
    /// Where pieces go, in the order of their bytes; `None`: the map precedes the bytes.
    pieces: Option<Vec<Piece>>,
}

/// Bytes of the archive that belong at `offset` of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Sparse {
    /// `None` if the entry is an ordinary file.
    pub(super) fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<Self>, Violation> {
        let mut pairs = Vec::new();
        for pair in entry.pax_extensions().map_err(Violation::Malformed)?.into_iter().flatten() {
            let pair = pair.map_err(Violation::Malformed)?;
            if let Some(key) = pair.key().ok().and_then(|key| key.strip_prefix("GNU.sparse.")) {
                pairs.push((key.to_owned(), pair.value_bytes().to_owned()));
            }
        }
        Self::from_pairs(&pairs)
    }

    /// Of the attributes after `GNU.sparse.`.
    fn from_pairs(pairs: &[(String, Vec<u8>)]) -> Result<Option<Self>, Violation> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let mut sparse = Self::default();
        let (mut version, mut bytes, mut numbers) = ((0, 0), None, Vec::new());
        for (key, value) in pairs {
            match key.as_str() {
                "name" => sparse.name = Some(value.clone()),
                "size" | "realsize" => bytes = Some(number(value)?),
                "major" => version.0 = number(value)?,
                "minor" => version.1 = number(value)?,
                "offset" | "numbytes" => {
                    // Pairs in this order; a key out of order makes the map invalid.
                    if (key == "offset") != numbers.len().is_multiple_of(2) {
                        return Err(refused("its parts are not in order"));
                    }
                    numbers.push(number(value)?);
                }
                "map" if value.is_empty() => {}
                "map" => numbers = value.split(|b| *b == b',').map(number).collect::<Result<_, _>>()?,
                // How many there are is seen.
                "numblocks" => {}
                _ => return Err(refused("it has an attribute that is not known")),
            }
        }
        sparse.bytes = bytes.ok_or_else(|| refused("it does not say how large the file is"))?;
        sparse.pieces = match version {
            (0, 0 | 1) => Some(pieces(&numbers, sparse.bytes)?),
            (1, 0) => None,
            _ => return Err(refused("its version is not known")),
        };
        Ok(Some(sparse))
    }

    /// The pieces; `read` fills blocks with the beginning of the entry's content, if the map is there.
    pub(super) fn pieces<E: From<Violation>>(
        &self,
        mut read: impl FnMut(&mut [u8; BLOCK_BYTES]) -> Result<(), E>,
    ) -> Result<Vec<Piece>, E> {
        if let Some(known) = &self.pieces {
            return Ok(known.clone());
        }
        let (mut numbers, mut digits, mut wanted) = (Vec::new(), Vec::new(), 1);
        while numbers.len() < wanted {
            let mut block = [0; BLOCK_BYTES];
            read(&mut block)?;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                numbers.push(number(&digits)?);
                digits.clear();
                if let [count] = numbers[..] {
                    let count = usize::try_from(count).ok().filter(|count| *count <= PIECES_MAX);
                    wanted = 1 + 2 * count.ok_or_else(|| refused("it has too many parts"))?;
                }
                if numbers.len() == wanted {
                    break;
                }
            }
            if digits.len() > BLOCK_BYTES {
                return Err(refused("a number in it is too long").into());
            }
        }
        Ok(pieces(&numbers[1..], self.bytes)?)
    }
}

fn refused(problem: &'static str) -> Violation {
    Violation::Sparse { problem }
}

fn number(text: impl AsRef<[u8]>) -> Result<u64, Violation> {
    let text = std::str::from_utf8(text.as_ref()).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| refused("a number in it is none, or too large"))
}

/// Pairs of offset and length, ascending and within the file.
fn pieces(numbers: &[u64], file_bytes: u64) -> Result<Vec<Piece>, Violation> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > PIECES_MAX {
        return Err(refused("it has an odd number of parts, or too many"));
    }
    let mut end = 0;
    let mut pieces = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks_exact(2) {
        let piece = Piece { offset: pair[0], bytes: pair[1] };
        let after = piece.offset.checked_add(piece.bytes).filter(|after| *after <= file_bytes);
        if piece.offset < end {
            return Err(refused("its parts overlap"));
        }
        end = after.ok_or_else(|| refused("a part is beyond the end of the file"))?;
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Apart from a full disk, the only way in which a hole can fail.
pub(super) fn set_length(file: &std::fs::File, bytes: u64) -> Result<(), Violation> {
    match file.set_len(bytes) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge || error.kind() == io::ErrorKind::InvalidInput => {
            Err(refused("the file is larger than this file system can have"))
        }
        other => other.map_err(Violation::Write),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<Sparse>, Violation> {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        Sparse::from_pairs(&pairs)
    }

    fn read_map(text: &[u8]) -> Result<Vec<Piece>, Violation> {
        let sparse = parse(&[("major", "1"), ("minor", "0"), ("realsize", "100000")])?.expect("sparse");
        let mut blocks = text.chunks(BLOCK_BYTES);
        sparse.pieces(|block| {
            let next = blocks.next().ok_or(Violation::Malformed(io::ErrorKind::UnexpectedEof.into()))?;
            block[..next.len()].copy_from_slice(next);
            Ok(())
        })
    }

    #[test]
    fn the_maps_of_all_formats_say_the_same() {
        let want = [Piece { offset: 0, bytes: 5 }, Piece { offset: 9, bytes: 1 }];
        let map = |sparse: Sparse| sparse.pieces(|_| Err::<(), _>(refused("nothing to read"))).expect("pieces");
        let oldest = [
            ("size", "10"),
            ("numblocks", "2"),
            ("offset", "0"),
            ("numbytes", "5"),
            ("offset", "9"),
            ("numbytes", "1"),
        ];
        assert_eq!(map(parse(&oldest).expect("0.0").expect("sparse")), want);
        let older = parse(&[("name", "d/s"), ("size", "10"), ("numblocks", "2"), ("map", "0,5,9,1")]).expect("0.1");
        assert_eq!(older.as_ref().and_then(|sparse| sparse.name.clone()), Some(b"d/s".to_vec()));
        assert_eq!(map(older.expect("sparse")), want);
        assert_eq!(read_map(b"2\n0\n5\n9\n1\n\0\0").expect("1.0"), want);
        assert_eq!(parse(&[]).expect("ordinary"), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let cases: [&[(&str, &str)]; 9] = [
            &[("map", "0,5")],
            &[("size", "10"), ("map", "0,5,9")],
            &[("size", "10"), ("map", "5,3,4,1")],
            &[("size", "10"), ("map", "9,2")],
            &[("size", "10"), ("map", "18446744073709551615,2")],
            &[("size", "10"), ("map", "-1,2")],
            &[("size", "10"), ("numbytes", "5"), ("offset", "0")],
            &[("size", "10"), ("major", "2"), ("minor", "0")],
            &[("size", "10"), ("colour", "red")],
        ];
        for pairs in cases {
            assert!(matches!(parse(pairs), Err(Violation::Sparse { .. })), "{pairs:?}");
        }
        for text in [&b"99999999999\n"[..], b"x\n", &[b'1'; 2000], b"1\n0\n200000\n"] {
            assert!(matches!(read_map(text), Err(Violation::Sparse { .. })), "{text:?}");
        }
        assert!(matches!(read_map(b"3\n1\n"), Err(Violation::Sparse { .. } | Violation::Malformed(_))));
    }

    proptest! {
        #[test]
        fn pieces_come_back_from_a_map_in_the_content(lengths in proptest::collection::vec((0_u64..50, 0_u64..50), 0..400)) {
            let (mut text, mut end, mut want) = (format!("{}\n", lengths.len()), 0, Vec::new());
            for (hole, bytes) in lengths {
                let offset = end + hole;
                text += &format!("{offset}\n{bytes}\n");
                want.push(Piece { offset, bytes });
                end = offset + bytes;
            }
            prop_assert_eq!(read_map(text.as_bytes()).expect("a map"), want);
        }
    }
}
