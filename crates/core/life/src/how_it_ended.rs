//! The wording about a run that ended. Pure text.

use heptad_model::{Bytes, Exit, ExitKind, signal_name};

const SIGKILL: i32 = 9;
/// The word for a run that ended for lack of memory.
pub(crate) const OOM_KILLED: &str = "OOMKilled";

/// How a run ended whose memory limit was `memory` (0 is none): one word, and the beginning of a sentence.
pub(crate) fn how_it_ended(exit: &Exit, memory: Bytes) -> (&'static str, String) {
    let (word, how) = match exit.how {
        ExitKind::Code(0) => ("Completed", "it ended with exit code 0".to_owned()),
        ExitKind::Code(code) => ("Error", format!("it ended with exit code {code}")),
        ExitKind::Signal(signal) => {
            let code = exit.how.shell_code();
            ("Error", format!("it was ended by {} (exit code {code})", signal_name(signal)))
        }
        ExitKind::Unknown => ("Error", "it ended with its shim, so its exit code is not known".to_owned()),
    };
    if !exit.oom_killed {
        return (word, how);
    }
    let limit = if memory.0 > 0 { format!("its limit of {memory}") } else { "there is".to_owned() };
    let text = match exit.how {
        ExitKind::Signal(SIGKILL) => format!("it was killed for using more memory than {limit}"),
        _ => format!("one of its processes was killed for using more memory than {limit}; {how}"),
    };
    (OOM_KILLED, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_word_and_its_cause() {
        let said = |how, oom_killed, mib| how_it_ended(&Exit { how, oom_killed, at_ms: 0 }, Bytes::mib(mib));
        assert_eq!(said(ExitKind::Code(0), false, 64).0, "Completed");
        assert_eq!(said(ExitKind::Code(3), false, 64), ("Error", "it ended with exit code 3".to_owned()));
        assert!(said(ExitKind::Signal(11), false, 64).1.contains("SIGSEGV (exit code 139)"));
        assert!(said(ExitKind::Unknown, false, 64).1.contains("not known"));
        let (word, text) = said(ExitKind::Signal(9), true, 64);
        assert_eq!((word, text.as_str()), ("OOMKilled", "it was killed for using more memory than its limit of 64Mi"));
        let (word, text) = said(ExitKind::Code(1), true, 0);
        assert!(word == "OOMKilled" && text.contains("than there is; it ended with exit code 1"), "{text}");
    }
}
