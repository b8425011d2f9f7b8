//! Events: what clients say is bounded, and the server gives the identifier.

use super::{Given, Kept};
use heptad_api::fields_of;
use heptad_model::{
    Event, Problem,
    event::{MESSAGE_BYTES_MAX, REASON_BYTES_MAX, SUBJECT_BYTES_MAX},
};
use std::sync::LazyLock;

impl Kept for Event {
    fn fields() -> Option<&'static [String]> {
        static FIELDS: LazyLock<Vec<String>> = LazyLock::new(fields_of::<Event>);
        Some(&FIELDS)
    }

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        let texts = [("reason", &self.reason, REASON_BYTES_MAX), ("subject", &self.subject, SUBJECT_BYTES_MAX)];
        let texts = texts.into_iter().chain([("message", &self.message, MESSAGE_BYTES_MAX)]);
        let long = texts.filter(|(_, text, bytes_max)| text.len() > *bytes_max);
        long.map(|(path, _, bytes_max)| Problem {
            path: path.into(),
            message: format!("it is longer than {bytes_max} bytes"),
        })
        .collect()
    }

    fn admit(&mut self, _old: Option<&Self>, given: &Given) {
        self.id = given.id.clone();
    }
}
