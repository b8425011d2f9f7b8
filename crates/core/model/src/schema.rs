//! The checks of `validate` on plain texts and on several fields together, expressed in JSON Schema, so that the API's
//! document states them too. Uses the bounds of those checks. Checks nothing itself.

use crate::ids::LABEL_PATTERN;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Text without NUL.
pub(crate) const TEXT_PATTERN: &str = r"^[^\x00]*$";

/// Address and port. For IPv6 addresses it gives the characters, not the form.
const SOCKET_ADDRESS_PATTERN: &str = concat!(
    r"^((25[0-5]|(2[0-4]|1[0-9]|[1-9])?[0-9])(\.(25[0-5]|(2[0-4]|1[0-9]|[1-9])?[0-9])){3}|\[[0-9A-Fa-f:.]{2,45}\])",
    r":(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})$"
);

macro_rules! text_schema {
    ($(#[$doc:meta])* $visible:vis $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug)]
        $visible struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

pub(crate) use text_schema;

text_schema!(
    /// Address and port.
    pub SocketAddress,
    { "type": "string", "pattern": SOCKET_ADDRESS_PATTERN }
);
text_schema!(
    /// A name: an RFC 1123 label.
    pub(crate) Name,
    { "type": "string", "pattern": LABEL_PATTERN }
);
text_schema!(
    /// Free text. JSON Schema counts characters, the check counts bytes.
    pub(crate) Text,
    { "type": "string", "pattern": TEXT_PATTERN, "maxLength": crate::validate::TEXT_BYTES_MAX }
);
text_schema!(
    /// A key of a label, a taint or a selector.
    pub(crate) Word,
    { "type": "string", "pattern": r"^[^\s]+$", "maxLength": crate::validate::WORD_BYTES_MAX }
);
text_schema!(
    /// A value of a taint or a selector.
    pub(crate) WordValue,
    { "type": "string", "pattern": TEXT_PATTERN, "maxLength": crate::validate::WORD_BYTES_MAX }
);
text_schema!(
    /// A key or a value of a service's labels.
    pub(crate) LabelText,
    { "type": "string", "maxLength": crate::validate::WORD_BYTES_MAX }
);
text_schema!(
    /// A port of TCP or UDP.
    pub(crate) PortNumber,
    { "type": "integer", "minimum": 1, "maximum": u16::MAX }
);

/// The schema of a type as other schemas contain it.
pub(crate) fn of<T: JsonSchema>() -> Schema {
    T::json_schema(&mut SchemaGenerator::default())
}

/// Requires the field to be present and not null.
pub(crate) fn given(field: &str) -> Schema {
    let value = json_schema!({ "not": { "type": "null" } });
    self::field(field, value)
}

/// The same for each of them, for `oneOf` and `anyOf`.
pub(crate) fn each_given(fields: &[&str]) -> Vec<Schema> {
    fields.iter().map(|field| given(field)).collect()
}

/// Requires the field to be present and to fit.
pub(crate) fn field(field: &str, fits: Schema) -> Schema {
    json_schema!({ "type": "object", "required": [field], "properties": { field: fits } })
}

/// Requires `then` wherever `when` holds.
pub(crate) fn implies(when: Schema, then: Schema) -> Schema {
    json_schema!({ "if": when, "then": then })
}

/// A pattern for the decimal numbers from 0 to `most`, with leading zeros.
pub(crate) fn decimal_up_to(most: u64) -> String {
    let digits = most.to_string();
    let shorter = (digits.len() > 1).then(|| format!("[0-9]{{1,{}}}", digits.len() - 1));
    let below = digits.char_indices().filter(|(_, digit)| *digit > '0').map(|(i, digit)| {
        let below = char::from_u32(digit as u32 - 1).unwrap_or('0');
        let rest = match digits.len() - i - 1 {
            0 => String::new(),
            rest => format!("[0-9]{{{rest}}}"),
        };
        format!("{}[0-{below}]{rest}", &digits[..i])
    });
    let all: Vec<String> = shorter.into_iter().chain(below).chain([digits.clone()]).collect();
    format!("0*({})", all.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_read_are_a_pattern() {
        let pattern = regex::Regex::new(SOCKET_ADDRESS_PATTERN).expect("a pattern");
        for text in [
            "10.0.0.1:80",
            "255.255.255.255:65535",
            "0.0.0.0:0",
            "[::1]:7444",
            "[fe80::1:2]:1",
            "256.0.0.1:1",
            "1.2.3:4",
            "1.2.3.4:65536",
            "1.2.3.4",
            ":80",
            "",
            "a:1",
            "01.2.3.4:5",
            "::1:80",
        ] {
            assert_eq!(pattern.is_match(text), text.parse::<std::net::SocketAddr>().is_ok(), "{text}");
        }
    }

    #[test]
    fn numbers_up_to_a_bound_are_a_pattern() {
        for most in [0, 7, 10, 64, 365, 1_000] {
            let pattern = regex::Regex::new(&format!("^({})$", decimal_up_to(most))).expect("a pattern");
            for number in 0..2_000 {
                assert_eq!(pattern.is_match(&number.to_string()), number <= most, "{number} of {most}");
            }
            assert!(pattern.is_match("000") && !pattern.is_match("") && !pattern.is_match("-1"));
        }
    }
}
