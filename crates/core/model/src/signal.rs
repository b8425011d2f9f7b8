//! Signals as people and images write them: `SIGQUIT`, `quit`, `3`, `SIGRTMIN+3`. Sends none.

use crate::schema::decimal_up_to;
use thiserror::Error;

/// The signal that asks a container to end unless somebody chooses another.
pub const SIGTERM: i32 = 15;

/// The names of signals 1 to 31, in their order, without `SIG`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const OTHER_NAMES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The real-time signals that programs may use; the C library keeps 32 and 33.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// The text names no signal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a signal; write a name such as SIGQUIT or SIGRTMIN+3, or a number from 1 to {RT_MAX}")]
pub struct SignalError {
    /// The beginning of the text.
    pub text: String,
}

/// The number of the signal that `text` names: with or without `SIG`, in any case, or a number from 1 to 64.
pub fn parse_signal(text: &str) -> Result<i32, SignalError> {
    number(text).ok_or_else(|| SignalError { text: text.chars().take(40).collect() })
}

/// What [`parse_signal`] reads, as a pattern; names in capitals.
pub(crate) fn signal_pattern() -> String {
    let names = NAMES.iter().copied().chain(OTHER_NAMES.iter().map(|(name, _)| *name)).collect::<Vec<_>>().join("|");
    let beyond = decimal_up_to((RT_MAX - RT_MIN).unsigned_abs().into());
    let numbers = (1..=RT_MAX).map(|number| number.to_string()).collect::<Vec<_>>().join("|");
    format!(r"^((SIG)?({names}|RTMIN(\+{beyond})?|RTMAX(-{beyond})?)|{numbers})$")
}

fn number(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=RT_MAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let beyond = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<i32>().ok(),
        Some(_) => None,
        None => rest.is_empty().then_some(0),
    };
    let found = if let Some(rest) = name.strip_prefix("RTMIN") {
        RT_MIN.checked_add(beyond(rest, '+')?)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        RT_MAX.checked_sub(beyond(rest, '-')?)?
    } else if let Some(index) = NAMES.iter().position(|known| *known == name) {
        index as i32 + 1
    } else {
        return OTHER_NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    };
    let real_time = name.starts_with("RT");
    (!real_time || (RT_MIN..=RT_MAX).contains(&found)).then_some(found)
}

/// The signal's name with `SIG`.
pub fn signal_name(number: i32) -> String {
    let named = usize::try_from(number).ok().and_then(|number| NAMES.get(number.checked_sub(1)?));
    match named {
        Some(name) => format!("SIG{name}"),
        None if (RT_MIN..=RT_MAX).contains(&number) => format!("SIGRTMIN+{}", number - RT_MIN),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_known_by_its_number_and_its_names() {
        let pattern = regex::Regex::new(&signal_pattern()).expect("a pattern");
        for signal in (1..=31).chain(RT_MIN..=RT_MAX) {
            let name = signal_name(signal);
            assert_eq!(parse_signal(&name), Ok(signal), "{name}");
            assert_eq!(parse_signal(&name.to_ascii_lowercase()[3..]), Ok(signal), "{name}");
            assert_eq!(parse_signal(&signal.to_string()), Ok(signal));
            assert!(pattern.is_match(&name) && pattern.is_match(&name[3..]) && pattern.is_match(&signal.to_string()));
        }
        let known =
            [("SIGINT", 2), ("SIGRTMIN", 34), ("rtmin+3", 37), ("SIGRTMAX", 64), ("SIGRTMAX-14", 50), ("IOT", 6)];
        for (text, signal) in known {
            assert_eq!(parse_signal(text), Ok(signal), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        let pattern = regex::Regex::new(&signal_pattern()).expect("a pattern");
        for bad in [
            "",
            "0",
            "65",
            "-9",
            "+9",
            "999999999999",
            "SIG",
            "SIGSIGTERM",
            "SIGFOO",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN++1",
            "RTMIN+-1",
            "RTMAX+1",
            "RTMAX-31",
            "RTMIN+4294967296",
            " TERM",
            "SIGTERM ",
        ] {
            assert!(parse_signal(bad).is_err() && !pattern.is_match(bad), "{bad:?}");
        }
    }
}
