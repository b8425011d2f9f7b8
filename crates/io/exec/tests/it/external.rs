//! The same promises when runc makes the containers.

use std::time::Duration;

use heptad_exec::{ContainerState, ExitKind};

use super::support::{Kind, Node, code, eventually};

#[test]
fn runc_runs_what_the_embedded_runtime_runs() {
    let mut node = Node::new(Kind::External);
    let (exit, output) =
        node.run(&node.script("code", "id -u; grep -E '^(CapBnd|Seccomp:)' /proc/self/status; exit 7"));
    assert_eq!(code(&exit), 7);
    assert_eq!(output, "0\nCapBnd:\t00000000000004eb\nSeccomp:\t2\n");
    let pid = node.start(&node.script("long", "sleep 100"));
    assert_eq!(node.exec("long", "echo inside; unshare -m true; exit 3").how, ExitKind::Code(3));
    node.close();
    node.open();
    assert_eq!(node.driver().status("long").expect("known").state, ContainerState::Running { pid });
    let exit = node.driver().stop("long", Some(Duration::from_millis(100))).expect("stopped");
    assert_eq!(exit.how, ExitKind::Signal(9));
    let mut spec = node.script("missing", "");
    spec.args = vec!["no-such-program".to_owned()];
    assert!(node.driver().start(&spec).expect_err("cannot start").to_string().contains("no-such-program"));
    let mut spec = node.script("hungry", "dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.limits.memory_bytes = Some(32 * 1024 * 1024);
    let (exit, _) = node.run(&spec);
    assert!(exit.oom_killed);
    eventually(Duration::from_secs(30), || node.driver().remove("hungry").ok()).expect("removed");
}
