//! Rewords the deserializer's errors for people who write manifests, with a suggestion. Knows no schema and no place.

/// What is wrong at `path`; `text` is the deserializer's error.
pub(super) fn explain(path: &str, text: &str) -> String {
    if let Some(list) = text.strip_prefix("unknown field ") {
        let (field, known) = quoted(list);
        return match nearest(field, &known) {
            Some(near) => format!("unknown field `{field}`; did you mean `{near}`?"),
            None if known.is_empty() => format!("unknown field `{field}`; no field is possible here"),
            None => format!("unknown field `{field}`; possible here: {}", known.join(", ")),
        };
    }
    let told = plain(text);
    let is_text_without_quotes = text.contains("expected a string")
        && ["integer ", "floating point ", "boolean "]
            .iter()
            .any(|found| text.contains(&format!("invalid type: {found}")));
    let hint = if is_text_without_quotes { "; write it in quotes" } else { "" };
    if path.is_empty() || path == "." { format!("{told}{hint}") } else { format!("{path}: {told}{hint}") }
}

/// The missing field, if that is the error.
pub(super) fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.strip_suffix('`')
}

/// Whether both paths lead to one field; a leading dot is ignored.
pub(super) fn is_same_field(a: &str, b: &str) -> bool {
    a.trim_start_matches('.') == b.trim_start_matches('.')
}

/// Whether `inner` leads into what is at `path`.
pub(super) fn is_inside(inner: &str, path: &str) -> bool {
    inner.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']))
}

fn plain(text: &str) -> String {
    if let Some(field) = missing_field(text) {
        return format!("the field `{field}` is missing");
    }
    if let Some(list) = text.strip_prefix("unknown variant ") {
        let (word, known) = quoted(list);
        return match nearest(word, &known) {
            Some(near) => format!("`{word}` is not known here; did you mean `{near}`?"),
            None => format!("`{word}` is not known here; write one of {}", known.join(", ")),
        };
    }
    if let Some(field) = text.strip_prefix("duplicate field ") {
        return format!("{field} is given twice");
    }
    let pair = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    match pair.and_then(|pair| pair.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("expected {}, found {}", wanted(expected), given(found)),
        None => text.to_owned(),
    }
}

/// The first word in backticks, and the others.
fn quoted(text: &str) -> (&str, Vec<&str>) {
    let mut words = text.split('`').skip(1).step_by(2);
    (words.next().unwrap_or_default(), words.collect())
}

fn wanted(expected: &str) -> String {
    let most: u64 = match expected {
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX.into(),
        "u64" | "usize" => u64::MAX,
        "i32" | "i64" => return "a whole number".to_owned(),
        "f32" | "f64" => return "a number".to_owned(),
        "a string" | "string" => return "text".to_owned(),
        "a boolean" => return "true or false".to_owned(),
        "a sequence" | "sequence" => return "a list".to_owned(),
        "a map" | "map" => return "a map of fields".to_owned(),
        // The names of types are the program's own.
        other if ["struct ", "enum ", "unit struct ", "newtype struct "].iter().any(|t| other.starts_with(t)) => {
            return "a map of fields".to_owned();
        }
        other => return other.to_owned(),
    };
    format!("a whole number from 0 to {most}")
}

fn given(found: &str) -> String {
    match found {
        "null" | "unit value" => "nothing".to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "a map".to_owned(),
        other => {
            let value = other.split_once(' ').map_or(other, |(_, value)| value);
            // `floating point` has two words.
            value.strip_prefix("point ").unwrap_or(value).to_owned()
        }
    }
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate));
    let begins = |candidate: &str| candidate.len() > 2 && (candidate.starts_with(word) || word.starts_with(candidate));
    scored.min().filter(|(distance, candidate)| *distance <= 2.max(word.len() / 3) || begins(candidate)).map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_program_are_not_named() {
        for (text, told) in [
            ("invalid type: string \"x\", expected u32", "expected a whole number from 0 to 4294967295, found \"x\""),
            ("invalid value: integer `70000`, expected u16", "expected a whole number from 0 to 65535, found `70000`"),
            ("invalid type: floating point `1.5`, expected u8", "expected a whole number from 0 to 255, found `1.5`"),
            ("invalid type: map, expected a string", "expected text, found a map"),
            ("invalid type: integer `2`, expected a string", "expected text, found `2`; write it in quotes"),
            ("invalid type: null, expected a sequence", "expected a list, found nothing"),
            ("invalid type: string \"/\", expected struct HttpForm", "expected a map of fields, found \"/\""),
            ("invalid type: string \"yes\", expected a boolean", "expected true or false, found \"yes\""),
            ("missing field `image`", "the field `image` is missing"),
            (
                "unknown variant `roling`, expected `rolling` or `blue_green`",
                "`roling` is not known here; did you mean `rolling`?",
            ),
            (
                "unknown variant `x`, expected one of `service`, `job`",
                "`x` is not known here; write one of service, job",
            ),
            ("duplicate field `name`", "`name` is given twice"),
            ("memory is finer than a byte", "memory is finer than a byte"),
        ] {
            assert_eq!(explain(".", text), told);
        }
    }
}
