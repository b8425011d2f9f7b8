//! What a container cannot do, each tried from inside.

use std::collections::BTreeSet;
use std::time::Duration;

use heptad_exec::{ContainerSpec, ExecError, ExecRequest, ExitKind, RootFs, User};

use super::support::{Kind, Node, code};

fn host_python(id: &str, program: &str) -> ContainerSpec {
    ContainerSpec::new(id, RootFs::Host, ["python3", "-c", program].map(str::to_owned).to_vec())
}

#[test]
fn system_calls_outside_the_list_are_refused() {
    let node = Node::oci();
    let program = "\
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    result = libc.syscall(number, *args)
    print(name, 'ok' if result >= 0 else errno.errorcode[ctypes.get_errno()])
call('unshare', 272, 0x10000000)
call('keyctl', 250, 0, 0)
call('mount', 165, 0, 0, 0, 0, 0)
call('bpf', 321, 0, 0, 0)
call('clone_newuser', 56, 0x10000000 | 17, 0, 0, 0, 0)
call('clone3', 435, 0, 0)
call('future', 4000)
call('io_uring', 425, 1, 0)
call('getpid', 39)
call('vsock', 41, 40, 1, 0)
";
    let (exit, output) = node.run(&host_python("calls", program));
    assert_eq!(code(&exit), 0, "{output}");
    let expected = "unshare EPERM\nkeyctl EPERM\nmount EPERM\nbpf EPERM\nclone_newuser EPERM\nclone3 ENOSYS\n\
                    future ENOSYS\nio_uring EPERM\ngetpid ok\nvsock EPERM\n";
    assert_eq!(output, expected);
}

#[test]
fn capabilities_are_the_named_ones_and_none_is_inherited() {
    let node = Node::oci();
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status";
    let mut spec = node.script("none", status);
    spec.capabilities = BTreeSet::new();
    let (_, output) = node.run(&spec);
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(output.contains(&format!("{name}:\t0000000000000000")), "{output}");
    }
    assert!(output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"), "{output}");
    let (_, output) = node.run(&node.script("default", status));
    // chown, dac_override, fowner, kill, setgid, setuid, net_bind_service
    assert!(output.contains("CapBnd:\t00000000000004eb") && output.contains("CapInh:\t0000000000000000"), "{output}");
    let mut spec = node.script("greedy", status);
    spec.capabilities.insert("CAP_SYS_ADMIN".to_owned());
    assert!(node.driver().start(&spec).expect_err("refused").to_string().contains("CAP_SYS_ADMIN"));
}

#[test]
fn commands_inside_are_held_as_the_container_is() {
    let node = Node::oci();
    node.start(&node.script("held", "sleep 100"));
    let output = node.exec("held", "grep -E '^(CapBnd|CapInh|NoNewPrivs|Seccomp:)' /proc/self/status; unshare -m true");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("CapBnd:\t00000000000004eb") && text.contains("CapInh:\t0000000000000000"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    assert!(output.how != ExitKind::Code(0));
}

#[test]
fn only_three_descriptors_and_an_own_directory_are_inherited() {
    let node = Node::oci();
    let script = "ls -l /proc/self/fd 2>/dev/null | grep -v '/proc/' | grep -c -- '->'; readlink /proc/self/cwd; pwd";
    let (_, output) = node.run(&node.script("fds", script));
    assert_eq!(output, "3\n/\n/\n");
    node.start(&node.script("fds-exec", "sleep 100"));
    let output = node.exec("fds-exec", script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3\n/\n/\n");
}

#[test]
fn no_number_keeps_the_rights_of_who_starts() {
    for kind in [Kind::Oci, Kind::External, Kind::Process] {
        let node = Node::new(kind);
        let users = [(u32::MAX, 5, vec![]), (5, u32::MAX, vec![]), (5, 5, vec![u32::MAX]), (1 << 31, 5, vec![])];
        for (uid, gid, additional_gids) in users {
            let user = User { uid, gid, additional_gids };
            let mut spec = node.script("asks", "id -u");
            spec.user = user.clone();
            assert!(matches!(node.driver().start(&spec), Err(ExecError::InvalidSpec { .. })), "{kind:?} {user:?}");
            spec.user = User::nobody();
            spec.args = ["sleep", "100"].map(str::to_owned).to_vec();
            node.start(&spec);
            let mut request = ExecRequest::new(vec!["id".to_owned()]);
            request.command.user = Some(user.clone());
            let refused = node.driver().exec("asks", &request);
            assert!(matches!(refused, Err(ExecError::InvalidSpec { .. })), "{kind:?} {user:?}");
            node.driver().stop("asks", Some(Duration::ZERO)).expect("stopped");
            node.driver().remove("asks").expect("removed");
        }
        let mut spec = node.script("host", "id -u");
        (spec.rootfs, spec.user) = (RootFs::Host, User { uid: 5, gid: 0, additional_gids: vec![] });
        assert!(matches!(node.driver().start(&spec), Err(ExecError::InvalidSpec { .. })), "{kind:?}");
    }
}

/// Only opens for writing and writes nothing: the test fails if that works.
#[test]
fn nothing_of_the_kernels_can_be_written_from_inside() {
    for kind in [Kind::Oci, Kind::External] {
        let node = Node::new(kind);
        let script = "\
try() { while read -r f; do if true >> $f; then echo WRITABLE $f; fi; done 2>/dev/null; }
find /sys/fs/cgroup -type f | try
find /sys/fs/cgroup -type d | while read -r d; do mkdir $d/made 2>/dev/null && echo WRITABLE $d; done
for d in /sys/fs/cgroup /sys/fs/cgroup/* /sys /proc /proc/sys; do
  mount -o remount,rw $d 2>/dev/null && echo REMOUNTED $d; mount -o remount,bind,rw $d 2>/dev/null && echo REMOUNTED $d
done
find /sys -maxdepth 5 -type f | try
find /proc/sys /proc/irq /proc/bus /proc/fs /proc/sysrq-trigger -type f 2>/dev/null | try
find /sys/fs/cgroup -name 'cgroup.procs' | wc -l
echo done";
        let (_, output) = node.run(&node.script("writes", script));
        assert!(!output.contains("WRITABLE") && !output.contains("REMOUNTED"), "{kind:?}: {output}");
        let shown = output.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        assert!(shown > Some(0) && output.ends_with("done\n"), "{kind:?}: its own limits can be read: {output}");
    }
}

#[test]
fn kernel_files_are_masked_or_read_only() {
    let node = Node::oci();
    // Which of them exist depends on the kernel; of those that do, none may be readable.
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts; do \
                  if [ -e $f ]; then cat $f; fi; done | wc -c; ls -A /sys/firmware | wc -l; \
                  echo 1 > /proc/sys/kernel/panic; touch /sys/x; \
                  mount -t tmpfs none /tmp || echo no mount; ls /dev | grep -c -E 'sda|vda|mem|kmsg'";
    let (_, output) = node.run(&node.script("masked", script));
    let lines: Vec<&str> = output.lines().filter(|line| !line.contains(": ")).collect();
    assert_eq!(lines, ["0", "0", "no mount", "0"], "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
}

/// A container that makes its first program `/proc/self/exe` gets the runtime's own program executed, and may then open
/// it: CVE-2019-5736. Ours is executed from a read-only mount.
#[test]
fn the_shims_program_cannot_be_written_from_inside() {
    let node = Node::oci();
    let shim = std::path::Path::new(env!("CARGO_BIN_EXE_heptad-exec-test-shim"));
    let before = std::fs::metadata(shim).expect("the program").len();
    node.start(&node.script("target", "sleep 100"));
    let started = std::fs::read_to_string(node.bundle("target").join("started.json")).expect("readable");
    let pid = started.split("\"shim_pid\":").nth(1).and_then(|rest| rest.split(',').next()).expect("a pid");
    // The worst case: root holds a descriptor of the executed file.
    let exe = std::fs::File::open(format!("/proc/{pid}/exe")).expect("readable");
    let flags = nix::sys::statvfs::fstatvfs(&exe).expect("known").flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{flags:?}");
    let writable = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe"));
    assert!(matches!(writable.expect_err("refused").raw_os_error(), Some(libc::EROFS | libc::ETXTBSY)));
    let mut spec = node.script("attack", "");
    spec.args = vec!["/proc/self/exe".to_owned()];
    if node.driver().start(&spec).is_ok() {
        node.driver().wait("attack", Duration::from_secs(30)).expect("known").expect("ends");
    }
    assert_eq!(std::fs::metadata(shim).expect("the program").len(), before);
}

#[test]
fn links_in_the_image_do_not_lead_mounts_out_of_it() {
    let node = Node::oci();
    std::fs::create_dir(node.path("outside")).expect("a directory");
    std::fs::remove_dir(node.path("busybox/var")).expect("empty");
    std::os::unix::fs::symlink(node.path("outside"), node.path("busybox/var")).expect("a link");
    let mut spec = node.script("links", "true");
    let mount = heptad_exec::Mount::Tmpfs { target: "/var/planted".into(), size_bytes: 4_096, mode: 0o755 };
    spec.mounts.push(mount);
    let _ = node.driver().start(&spec);
    assert_eq!(std::fs::read_dir(node.path("outside")).expect("listable").count(), 0);
}

#[test]
fn the_shim_cannot_be_spoken_to_by_others() {
    for kind in [Kind::Oci, Kind::Process] {
        let node = Node::new(kind);
        node.start(&node.script("quiet", "sleep 100"));
        let mode = |path: std::path::PathBuf| {
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).expect("there").permissions()) & 0o777
        };
        assert_eq!(mode(node.bundle("quiet").join("control.sock")), 0o600);
        assert_eq!(mode(node.bundle("quiet")), 0o700);
        assert_eq!(mode(node.bundle("quiet").join("shim-config.json")), 0o600);
    }
}
