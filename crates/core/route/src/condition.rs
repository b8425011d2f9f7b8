//! Conditions of traffic rules, compiled once and evaluated for every request. Knows no precedence of rules.

use crate::{
    facts::HttpFacts,
    path::{self, Reading},
};
use heptad_model::{Condition, Field, Operator, condition::compile_regex};
use percent_encoding::percent_decode_str;
use regex::Regex;
use std::borrow::Cow;

/// A condition whose regular expression is compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) source: Condition,
    /// The value; for a path, in its normal form.
    value: String,
    regex: Option<Regex>,
}

impl Compiled {
    pub(crate) fn new(source: &Condition) -> Result<Self, regex::Error> {
        let regex = match source.operator {
            Operator::Regex => Some(compile_regex(&source.value)?),
            _ => None,
        };
        let value = if source.field == Field::Path { path::spelled(&source.value) } else { source.value.clone() };
        Ok(Self { source: source.clone(), value, regex })
    }

    /// Whether it holds for a request; `None` is a request that is not HTTP and so has no fields.
    pub(crate) fn holds(&self, http: Option<&HttpFacts<'_>>) -> bool {
        let found = http.and_then(|http| field(http, &self.source.field));
        self.compare(found.as_deref(), &self.value)
    }

    /// Whether it looks at the path.
    pub(crate) fn is_on_path(&self) -> bool {
        self.source.field == Field::Path
    }

    /// Whether it holds for a server's reading of the path as for the path itself. A regular expression about escapes,
    /// and a value with parameters, concern the path as it is written.
    pub(crate) fn agrees(&self, normal: &str, reading: &Reading) -> bool {
        let value = &self.source.value;
        let is_spelled = (self.regex.is_some() && value.contains('%')) || (reading.is_bare && value.contains(';'));
        !self.is_on_path()
            || is_spelled
            || self.compare(Some(normal), &self.value) == self.compare(Some(&reading.path), &path::literal(value))
    }

    fn compare(&self, found: Option<&str>, value: &str) -> bool {
        match (self.source.operator, found) {
            (Operator::Equals, found) => found == Some(value),
            (Operator::NotEquals, found) => found != Some(value),
            (Operator::Contains, found) => found.is_some_and(|text| text.contains(value)),
            (Operator::NotContains, found) => !found.is_some_and(|text| text.contains(value)),
            (Operator::Exists, found) => found.is_some(),
            (Operator::Prefix, found) => found.is_some_and(|text| text.starts_with(value)),
            (Operator::Regex, found) => {
                found.is_some_and(|text| self.regex.as_ref().is_some_and(|regex| regex.is_match(text)))
            }
        }
    }
}

fn field<'a>(http: &HttpFacts<'a>, field: &Field) -> Option<Cow<'a, str>> {
    match field {
        Field::Method => Some(Cow::Borrowed(http.method)),
        Field::Path => Some(path::normal(http.path)),
        Field::Header(name) => http.headers.get(name),
        Field::Query(name) => query(http.query?, name),
    }
}

/// The first parameter of that name, decoded as HTML forms encode it.
fn query<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| decoded(key) == name)
        .map(|(_, value)| decoded(value))
}

/// Undoes `+` and `%XX`; what is not a valid escape stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'+' || b == b'%') {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(field: &str, operator: Operator, value: &str) -> bool {
        let headers = vec![("x-beta".to_owned(), "yes please".to_owned())];
        let http =
            HttpFacts { method: "GET", path: "/cart/7", query: Some("a=1&b=x%20y+z&c&a=2&d=%zz"), headers: &headers };
        let field = Field::try_from(field.to_owned()).expect("a field");
        let source = Condition { field, operator, value: value.to_owned() };
        Compiled::new(&source).expect("compiles").holds(Some(&http))
    }

    #[test]
    fn operators_say_what_the_model_documents() {
        use Operator::*;
        for (field, operator, value, expected) in [
            ("method", Equals, "GET", true),
            ("method", Equals, "get", false),
            ("path", Prefix, "/cart", true),
            ("path", Prefix, "cart", false),
            ("path", Regex, r"^/cart/\d+$", true),
            ("path", Regex, r"^\d+$", false),
            ("path", NotContains, "admin", true),
            ("header:X-Beta", Contains, "yes", true),
            ("header:X-Beta", NotEquals, "yes please", false),
            ("header:x-none", NotEquals, "anything", true),
            ("header:x-none", NotContains, "anything", true),
            ("header:x-none", Equals, "", false),
            ("header:x-none", Contains, "", false),
            ("header:x-none", Prefix, "", false),
            ("header:x-none", Regex, "", false),
            ("header:x-none", Exists, "", false),
            ("header:x-beta", Exists, "", true),
            ("query:a", Equals, "1", true),
            ("query:b", Equals, "x y z", true),
            ("query:c", Equals, "", true),
            ("query:c", Exists, "", true),
            ("query:d", Equals, "%zz", true),
            ("query:e", Exists, "", false),
        ] {
            assert_eq!(holds(field, operator, value), expected, "{field} {operator:?} {value}");
        }
    }

    #[test]
    fn what_is_not_http_has_no_fields() {
        for (operator, expected) in [(Operator::Equals, false), (Operator::NotEquals, true), (Operator::Exists, false)]
        {
            let source = Condition { field: Field::Path, operator, value: String::new() };
            assert_eq!(Compiled::new(&source).expect("compiles").holds(None), expected, "{operator:?}");
        }
    }
}
