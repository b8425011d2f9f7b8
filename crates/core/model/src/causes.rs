//! An error with its causes as text, for logs and answers that carry nothing else.

use std::error::Error;

/// The error and its causes in one line. A cause that the text already ends with is not repeated: some errors print
/// their own cause.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn link(text: &'static str, source: Option<Link>) -> Link {
        Link { text, source: source.map(Box::new) }
    }

    #[test]
    fn every_cause_is_said_once() {
        let root = || link("no space left", None);
        assert_eq!(with_causes(&root()), "no space left");
        let written = link("cannot write /x", Some(root()));
        assert_eq!(with_causes(&link("cannot store", Some(written))), "cannot store: cannot write /x: no space left");
        assert_eq!(with_causes(&link("broken: no space left", Some(root()))), "broken: no space left");
    }
}
