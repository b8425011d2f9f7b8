//! The user of a container's process, as people and images write it: `USER[:GROUP]`, names or numbers. The one parser
//! for manifests, images and commands inside. Looks up no name.

use crate::schema::decimal_up_to;
use std::{fmt, str::FromStr};
use thiserror::Error;

/// The largest user or group number, as in Docker and Kubernetes. 4294967295 would mean "leave it as it is" to the kernel.
pub const USER_ID_MAX: u32 = i32::MAX as u32;
/// The longest name of a user or group, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// By number, at most [`USER_ID_MAX`].
    Id(u32),
    /// By a name, which the image defines.
    Name(String),
}

/// A user with or without a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSpec {
    /// The user; root if absent.
    pub user: Option<Principal>,
    /// The group; the user's own if absent.
    pub group: Option<Principal>,
}

/// The text names no user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a user: {problem}; write UID[:GID] with numbers from 0 to {USER_ID_MAX}, or names of the image"
)]
pub struct UserError {
    /// The beginning of the text.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The characters that a name must not contain.
const NOT_IN_NAMES: &str = r"\s\x00-\x1f\x7f-\x9f:/,";

/// What a user or a group may be, as a pattern that is part of others.
fn one_pattern() -> String {
    let id = decimal_up_to(USER_ID_MAX.into());
    let name = format!("([0-9]+[^0-9{NOT_IN_NAMES}]|[^-+0-9{NOT_IN_NAMES}])[^{NOT_IN_NAMES}]*");
    format!("({id}|{name})")
}

/// The same of a whole text.
pub(crate) fn principal_pattern() -> String {
    format!("^{}$", one_pattern())
}

/// What a service's `user` may be, as a pattern.
pub(crate) fn user_pattern() -> String {
    let one = one_pattern();
    format!("^{one}(:{one}?)?$")
}

/// What it may be with the image `host`, besides [`user_pattern`]: numbers above 0.
pub(crate) fn host_user_pattern() -> String {
    "^0*[1-9][0-9]*(:(0*[1-9][0-9]*)?)?$".to_owned()
}

impl FromStr for Principal {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return match text.parse::<u32>() {
                Ok(id) if id <= USER_ID_MAX => Ok(Self::Id(id)),
                _ => Err("the number is too large"),
            };
        }
        match text.chars().next() {
            None => Err("a name is empty"),
            Some('-' | '+') => Err("a number has no sign, and a name begins with a letter"),
            Some(_) if text.len() > NAME_BYTES_MAX => Err("the name is too long"),
            Some(_) if text.contains(|c: char| c.is_whitespace() || c.is_control() || ":/,".contains(c)) => {
                Err("a name has no white space and none of `:`, `/` and `,`")
            }
            Some(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl FromStr for UserSpec {
    type Err = UserError;

    /// An empty text, or an empty part, leaves that part at its default.
    fn from_str(text: &str) -> Result<Self, UserError> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let part = |part: &str| if part.is_empty() { Ok(None) } else { part.parse().map(Some) };
        let both = part(user).and_then(|user| Ok(Self { user, group: part(group)? }));
        both.map_err(|problem| UserError { text: text.chars().take(80).collect(), problem })
    }
}

impl UserSpec {
    /// User and group of a process that sees the host's own files: numbers, and neither root nor its group, which can
    /// read what other users of the host cannot. The group is the user's number if none is named.
    pub fn on_host(&self) -> Result<(u32, u32), &'static str> {
        match (&self.user, self.group.as_ref().or(self.user.as_ref())) {
            (Some(Principal::Id(0)), _) | (_, Some(Principal::Id(0))) => {
                Err("the image `host` cannot run as root or its group; name another UID:GID")
            }
            (Some(Principal::Id(uid)), Some(Principal::Id(gid))) => Ok((*uid, *gid)),
            _ => Err("with the image `host` a user is a number; write UID[:GID]"),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<UserSpec> {
        text.parse().ok()
    }

    fn id(id: u32) -> Option<Principal> {
        Some(Principal::Id(id))
    }

    fn name(name: &str) -> Option<Principal> {
        Some(Principal::Name(name.to_owned()))
    }

    #[test]
    fn names_and_numbers_with_and_without_a_group() {
        assert_eq!(parse(""), Some(UserSpec::default()));
        assert_eq!(parse("1000"), Some(UserSpec { user: id(1000), group: None }));
        assert_eq!(parse("0001:2147483647"), Some(UserSpec { user: id(1), group: id(USER_ID_MAX) }));
        assert_eq!(parse("app:web"), Some(UserSpec { user: name("app"), group: name("web") }));
        assert_eq!(parse("app:"), Some(UserSpec { user: name("app"), group: None }));
        assert_eq!(parse(":5"), Some(UserSpec { user: None, group: id(5) }));
        assert_eq!(parse("_www-data.1$"), Some(UserSpec { user: name("_www-data.1$"), group: None }));
    }

    #[test]
    fn what_the_kernel_would_take_for_something_else_is_refused() {
        for bad in [
            "4294967295",
            "4294967296",
            "2147483648",
            "-1",
            "+1",
            "1:-1",
            "1:4294967295",
            "99999999999999999999999",
            "1:2:3",
            " 1",
            "1 ",
            "a b",
            "a\0",
            "a/b",
            "1:\n",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn nobody_on_the_host_is_root_or_of_its_group() {
        let on_host = |text: &str| parse(text).expect("well-formed").on_host().ok();
        assert_eq!(on_host("1000"), Some((1000, 1000)));
        assert_eq!(on_host("1000:50"), Some((1000, 50)));
        for bad in ["0", "00", "0:1", "1:0", "1:00", "", ":1", "app", "1:web"] {
            assert_eq!(on_host(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_pattern_is_what_is_read(text in "[-+0-9:a ]{0,12}") {
            let reads = |text: &str| parse(text).filter(|spec| spec.user.is_some());
            let matches = |pattern: String| regex::Regex::new(&pattern).expect("a pattern").is_match(&text);
            prop_assert_eq!(reads(&text).is_some(), matches(user_pattern()));
            let on_host = reads(&text).is_some_and(|spec| spec.on_host().is_ok());
            prop_assert_eq!(on_host, matches(user_pattern()) && matches(host_user_pattern()));
        }

        #[test]
        fn numbers_that_pass_are_in_range(text in "[-+0-9:a ]{0,24}") {
            if let Some(spec) = parse(&text) {
                for part in [spec.user, spec.group].into_iter().flatten() {
                    match part {
                        Principal::Id(id) => prop_assert!(id <= USER_ID_MAX),
                        Principal::Name(name) => prop_assert!(name.parse::<i128>().is_err(), "{name}"),
                    }
                }
            }
        }
    }
}
