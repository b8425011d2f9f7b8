//! Real images: from a layout and from a registry, in containers that find each other by name; images that are missing;
//! another OCI runtime.

use crate::{essence, shell};
use heptad_e2e::{Platform, Registry, busybox_layout, wait_until};
use std::time::Duration;

fn site(name: &str, image: &str) -> String {
    format!(
        "service: {name}\nimage: {image}\nports: [8080]\nresources: {{ cpu: 50m, memory: 64Mi }}\nstop_grace_ms: 300\n\
         health_check: {{ http: {{ path: / }}, interval_ms: 200 }}\n"
    )
}

/// Asks a service by its name from inside a container of another, through the resolver of glibc.
fn fetch(platform: &Platform, from: &str, name: &str) -> (i32, String) {
    let script = format!("exec 3<>/dev/tcp/{name}/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3");
    platform.shell(from, &format!("bash -c \"{script}\""))
}

#[test]
fn images_from_a_layout_and_a_registry_run_and_find_each_other() {
    let registry = Registry::start();
    let platform = Platform::start(&["--insecure-registry", &registry.address]);
    let layout = busybox_layout(platform.dir(), &["v1", "v2"]);
    let pushed = registry.push(&format!("{}:v2", layout.display()), "team/site:v2");
    let local = site("local", &format!("oci:{}:v1", layout.display()));
    platform.apply(&[local, site("pulled", &pushed), shell("box", "sleep 100000", "")].join("---\n"));
    wait_until("the names are known", Duration::from_secs(60), || {
        fetch(&platform, "pulled", "local.default.internal").0 == 0
    });
    assert_eq!(fetch(&platform, "pulled", "local.default.internal"), (0, "v1\n".to_owned()));
    assert_eq!(fetch(&platform, "local", "pulled.default.internal"), (0, "v2\n".to_owned()));
    assert_eq!(fetch(&platform, "box", "local.default.internal"), (0, "v1\n".to_owned()));
    assert_eq!(fetch(&platform, "box", "pulled"), (0, "v2\n".to_owned()));
    assert_ne!(fetch(&platform, "local", "nobody.default.internal").0, 0);
    assert_eq!(platform.shell("pulled", "id -u; id -g"), (0, "1000\n1000\n".to_owned()), "the image's user");

    let missing = [
        site("typo", &format!("{}/team/sight:v2", registry.address)),
        site("nowhere", "oci:/nonexistent:v1"),
        site("closed", "localhost:1/team/site:v1"),
    ];
    let file = platform.write("missing.yaml", &missing.join("---\n"));
    platform.ok(&["apply", "-f", &file]);
    for (service, subject) in [("typo", "team/sight"), ("nowhere", "/nonexistent"), ("closed", "localhost:1")] {
        let failed =
            platform.await_containers(service, "no image", |all| all.iter().any(|c| c.reason == "ImagePullFailed"));
        assert!(failed[0].message.contains(subject), "{:?}", failed[0].message);
        let why = platform.ok(&["why", service]);
        assert!(why.contains("ImagePullFailed") && why.contains(subject), "{why}");
    }
    // An image that comes later is found by the next try.
    registry.push(&format!("{}:v1", layout.display()), "team/sight:v2");
    platform.await_containers("typo", "the image is there now", |all| all.iter().all(|c| c.ready));
}

#[test]
fn another_runtime_serves_as_well() {
    let mut platform = Platform::start(&["--oci-runtime", "runc"]);
    let layout = busybox_layout(platform.dir(), &["v1"]);
    let image = format!("oci:{}:v1", layout.display());
    platform.apply(&[site("a", &image), site("b", &image)].join("---\n"));
    wait_until("the names are known", Duration::from_secs(60), || fetch(&platform, "a", "b.default.internal").0 == 0);
    assert_eq!(platform.shell("a", "exit 5").0, 5);
    let before = essence(&platform.containers("a"));
    platform.kill();
    platform.launch();
    let adopted = platform.await_containers("a", "adopted", |all| all.iter().all(|c| c.ready));
    assert_eq!(essence(&adopted), before);
    assert_eq!(fetch(&platform, "b", "a.default.internal"), (0, "v1\n".to_owned()));
    platform.ok(&["delete", "service", "a", "b"]);
    assert_eq!(platform.machine().container_processes(), []);
}

#[test]
fn a_tag_is_looked_at_once_per_revision() {
    let registry = Registry::start();
    let platform = Platform::start(&["--insecure-registry", &registry.address]);
    let layout = busybox_layout(platform.dir(), &["v1", "v2", "v3"]);
    let push = |version: &str| registry.push(&format!("{}:{version}", layout.display()), "team/site:stable");
    let manifest = site("web", &push("v1"));
    platform.apply(&manifest);
    // What each replica serves; what the command says of one that is just being replaced.
    let served = || {
        let all = platform.containers("web");
        let read = |id: &str| {
            let said = platform.run(&["exec", id, "--", "cat", "/www/index.html"]);
            if said.code == 0 { said.out.trim().to_owned() } else { said.err }
        };
        all.iter().map(|container| read(container.id.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(served(), ["v1"]);
    push("v2");
    platform.ok(&["scale", "web", "2", "--wait"]);
    assert_eq!(served(), ["v1", "v1"], "all replicas of a revision run the same");
    platform.ok(&["rollout", "restart", "web", "--wait"]);
    assert_eq!(served(), ["v2", "v2"], "a restart looks at the tag");
    push("v3");
    platform.ok(&["rollout", "undo", "web"]);
    wait_until("the earlier revision is back with its own image", Duration::from_secs(120), || {
        let all = platform.containers("web");
        all.len() == 2 && all.iter().all(|c| c.ready) && served() == ["v1", "v1"]
    });
    platform.ok(&["delete", "service", "web"]);
    platform.apply(&manifest);
    assert_eq!(served(), ["v3"], "a service made again looks at the tag");
}
