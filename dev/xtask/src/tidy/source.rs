//! Rust source with comments and literals blanked, so that rules look at code alone. Knows no grammar beyond tokens.

/// `text` with every character of comments and of string and character literals replaced by a space; line ends stay.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let length = literal_or_comment(&chars, at);
        if length == 0 {
            // The letters before a quote belong to the literal only if they are its prefix, never a longer word.
            let word = word_length(&chars, at).max(1);
            out.extend(&chars[at..at + word]);
            at += word;
        } else {
            out.extend(chars[at..at + length].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    out
}

fn word_length(chars: &[char], at: usize) -> usize {
    chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count()
}

/// The length of the comment or literal that begins at `at`; 0 if none does.
fn literal_or_comment(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    match rest {
        ['/', '/', ..] => rest.iter().take_while(|c| **c != '\n').count(),
        ['/', '*', ..] => block_comment(rest),
        ['\'', ..] => character(rest),
        ['"', ..] => quoted(rest, 0),
        ['b', '\'', ..] => 1 + character(&rest[1..]),
        ['b' | 'c', '"', ..] => quoted(rest, 1),
        ['r', '"' | '#', ..] => raw(rest, 1),
        ['b' | 'c', 'r', '"' | '#', ..] => raw(rest, 2),
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// A character literal; a lifetime has none and gives 0.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, tail @ ..] => 3 + tail.iter().take_while(|c| **c != '\'').count() + 1,
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
    .min(rest.len())
}

fn quoted(rest: &[char], prefix: usize) -> usize {
    let mut at = prefix + 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw(rest: &[char], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        // A raw identifier such as `r#type`.
        return 0;
    }
    let ends =
        |at: usize| rest[at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (open + 1..rest.len()).find(|at| ends(*at)).map_or(rest.len(), |at| at + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("a\"b")"#, "f(      )"),
            (r##"f(r#"a"b"#)"##, "f(        )"),
            ("f(b\"x\", c\"y\", br\"z\")", "f(    ,     ,      )"),
            ("x = '{'; y = '\\''; z = '\\u{7b}'", "x =    ; y =     ; z =         "),
        ] {
            assert_eq!(code_only(text), code, "{text}");
        }
    }

    #[test]
    fn lifetimes_words_and_raw_identifiers_stay() {
        for text in ["fn f<'a>(x: &'a str) {}", "number == r#type", "bar(rb, cr)", "'outer: loop {}"] {
            assert_eq!(code_only(text), text);
        }
    }

    #[test]
    fn cut_texts_do_not_panic() {
        for text in ["\"", "'\\", "r#\"", "/*", "b'", "\"\\", "'\\n"] {
            assert_eq!(code_only(text).len(), text.len());
        }
    }
}
