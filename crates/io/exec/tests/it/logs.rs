//! Output: bounded on disk, never blocking the container, followed as it arrives.

use std::time::Duration;

use heptad_exec::{LogItem, LogLimits, LogStream};

use super::support::{Node, code};

#[test]
fn logs_rotate_within_their_bound() {
    let node = Node::oci();
    let mut spec = node.script("chatty", "seq 1 40000; echo last");
    spec.log = LogLimits { file_bytes_max: 131_072, files_max: 3 };
    let (exit, output) = node.run(&spec);
    assert_eq!(code(&exit), 0);
    assert!(output.ends_with("40000\nlast\n"), "the newest is kept");
    let files: Vec<u64> = std::fs::read_dir(node.bundle("chatty"))
        .expect("listable")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("container.log"))
        .map(|entry| entry.metadata().expect("a file").len())
        .collect();
    assert!(files.len() == 3 && files.iter().all(|bytes| *bytes <= 131_072), "{files:?}");
    let mut tail = node.driver().logs("chatty", Some(2), false).expect("a log");
    let mut lines = Vec::new();
    while let LogItem::Record(record) = tail.next(Duration::ZERO).expect("readable") {
        assert_eq!(record.stream, LogStream::Stdout);
        lines.push(record.log);
    }
    assert_eq!(lines, ["40000", "last"]);
}

#[test]
fn followers_see_all_until_the_end() {
    let node = Node::oci();
    let mut spec = node.script("slow", "for i in $(seq 1 3000); do echo line $i; done; sleep 0.3; echo end");
    spec.log = LogLimits { file_bytes_max: 131_072, files_max: 4 };
    node.start(&spec);
    let mut reader = node.driver().logs("slow", None, true).expect("a log");
    let mut lines = Vec::new();
    loop {
        match reader.next(Duration::from_secs(60)).expect("readable") {
            LogItem::Record(record) => lines.push(record.log),
            LogItem::Waiting => panic!("silent after {} lines", lines.len()),
            LogItem::End => break,
        }
    }
    assert_eq!((lines.len(), lines.last().map(String::as_str)), (3_001, Some("end")));
}
