//! Changes while requests come: containers are replaced one by one, and no request is lost.

use crate::stock;
use heptad_e2e::{Load, Platform, Target, busybox_layout, free_port};
use std::time::Duration;

const REST: Duration = Duration::from_millis(4);

fn web(image: &str) -> String {
    format!(
        "service: web\nimage: {image}\nreplicas: 3\nports: [8080]\nresources: {{ cpu: 300m, memory: 64Mi }}\n\
         health_check: {{ http: {{ path: / }}, interval_ms: 200 }}\nstop_grace_ms: 500\nexpose: {{ host: web.localhost }}\n"
    )
}

#[test]
fn a_new_image_replaces_containers_one_by_one_and_loses_no_request() {
    let platform = Platform::start(&[]);
    let layout = busybox_layout(platform.dir(), &["v1", "v2"]);
    platform.apply(&web(&format!("oci:{}:v1", layout.display())));
    let before: Vec<_> = platform.containers("web").into_iter().map(|c| c.id).collect();
    let load = Load::start(&Target::new(platform.ingress, "web.localhost"), 2, REST);
    load.go_on(100);
    let file = platform.write("next.yaml", &web(&format!("oci:{}:v2", layout.display())));
    let plan = platform.run(&["plan", "-f", &file]);
    assert!(plan.code == 3 && plan.out.contains("replaced one by one"), "{plan:?}");
    platform.ok(&["apply", "-f", &file]);
    // Never fewer ready than wanted, never more alive than one beyond.
    platform.await_containers("web", "all containers are of the new image", |all| {
        assert!(all.iter().filter(|c| c.ready).count() >= 3, "{all:#?}");
        assert!(all.iter().filter(|c| c.is_alive()).count() <= 4, "{all:#?}");
        all.len() == 3 && all.iter().all(|c| c.ready && !before.contains(&c.id))
    });
    load.go_on(100);
    let tally = load.end();
    tally.assert_none_lost("three containers get a new image");
    assert!(tally.answers.contains_key("v1") && tally.answers.contains_key("v2"), "{:?}", tally.answers);
    assert_eq!(Target::new(platform.ingress, "web.localhost").ask().expect("an answer"), (200, "v2\n".to_owned()));
}

#[test]
fn a_new_environment_loses_no_request_although_programs_end_at_once() {
    let platform = Platform::start(&[]);
    let with = |value: &str| {
        stock("web", &format!("replicas: 2\nexpose: {{ host: web.localhost }}\nenvironment: {{ WHICH: {value} }}\n"))
    };
    // Enough for many requests.
    let with = |value: &str| with(value).replace("cpu: 50m", "cpu: 300m");
    platform.apply(&with("first"));
    let load = Load::start(&Target::new(platform.ingress, "web.localhost"), 2, REST);
    for value in ["second", "third"] {
        platform.apply(&with(value));
    }
    load.end().assert_none_lost("two containers get a new environment, twice");
    let seen: Vec<String> = platform
        .containers("web")
        .iter()
        .map(|c| platform.ok(&["exec", c.id.as_str(), "--", "/bin/sh", "-c", "echo $WHICH"]))
        .collect();
    assert_eq!(seen, ["third\n", "third\n"]);
}

/// Takes 300 ms for each answer, and ends at once when it is told to.
const SLOW_AND_HASTY: &str = r#"
use IO::Socket::INET;
$SIG{TERM} = sub { exit 0 };
$SIG{CHLD} = "IGNORE";
my $listening = IO::Socket::INET->new(LocalPort => 8080, Listen => 128, ReuseAddr => 1) or die;
while (1) {
    my $client = $listening->accept or next;
    next if fork;
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    select(undef, undef, undef, 0.3);
    print $client "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    exit;
}
"#;

#[test]
fn a_program_that_ends_at_once_loses_no_slow_request() {
    let platform = Platform::start(&[]);
    let with = |replicas: u32, value: &str| {
        let script = serde_json::Value::from(SLOW_AND_HASTY);
        format!(
            "service: web\nimage: host\ncommand: [perl, -e, {script}]\nports: [8080]\nreplicas: {replicas}\n\
             resources: {{ cpu: 200m, memory: 64Mi }}\nhealth_check: {{ tcp: {{ port: 8080 }}, interval_ms: 200 }}\n\
             expose: {{ host: web.localhost }}\nenvironment: {{ WHICH: {value} }}\n"
        )
    };
    platform.apply(&with(2, "first"));
    let load = Load::start(&Target::new(platform.ingress, "web.localhost"), 8, REST);
    platform.apply(&with(2, "second"));
    platform.apply(&with(3, "second"));
    platform.apply(&with(1, "second"));
    platform.ok(&["rollout", "restart", "web", "--wait"]);
    load.end().assert_none_lost("containers are exchanged and scaled while requests take 300 ms");
}

#[test]
fn nobody_answers_for_no_replica_and_a_host_port_comes_back() {
    let platform = Platform::start(&[]);
    let port = free_port();
    let with =
        |more: &str| stock("web", more).replace("[8080]", &format!("[{{ container_port: 8080, host_port: {port} }}]"));
    platform.apply(&with("expose: { host: web.localhost }\n"));
    let ingress = Target::new(platform.ingress, "web.localhost");
    let host_port = Target::new(([127, 0, 0, 1], port).into(), "any");
    assert_eq!(host_port.ask().map(|(status, _)| status).ok(), Some(200));
    platform.ok(&["scale", "web", "0", "--wait"]);
    assert_eq!(ingress.ask().map(|(status, _)| status).ok(), Some(503));
    assert!(host_port.ask().is_err(), "nobody listens on the host port");
    platform.ok(&["scale", "web", "1", "--wait"]);
    assert_eq!(host_port.ask().map(|(status, _)| status).ok(), Some(200));
    // One host port, one node: the successor waits for it, and there is no deadlock.
    platform.apply(&with("environment: { A: b }\n"));
    assert_eq!(host_port.ask().map(|(status, _)| status).ok(), Some(200));
}

#[test]
#[expect(clippy::print_stderr, reason = "what was measured is a result of the test")]
fn calls_between_containers_survive_the_replacement_of_the_called_one() {
    let platform = Platform::start(&[]);
    let with = |value: u32| {
        stock("stock", &format!("replicas: 2\nenvironment: {{ V: 'v{value}' }}\n")).replace("cpu: 50m", "cpu: 300m")
    };
    let caller = stock("web", "expose: { host: web.localhost }\n").replace("cpu: 50m", "cpu: 300m");
    platform.apply(&[caller, with(0)].join("---\n"));
    let path = "/call?to=stock&times=25".to_owned();
    let target = Target { path, ..Target::new(platform.ingress, "web.localhost") };
    let caller = std::thread::spawn(move || -> Vec<String> {
        // Each request makes 25 calls from inside a container, by the service's name.
        (0..60).map(|_| target.ask().map_or_else(|error| error.to_string(), |(_, body)| body)).collect()
    });
    let mut value = 0;
    while !caller.is_finished() && value < 20 {
        value += 1;
        platform.apply(&with(value));
    }
    let (mut good, mut bad) = (0, Vec::new());
    for body in caller.join().expect("no panic") {
        let counted: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        good += counted["statuses"]["200"].as_u64().unwrap_or(0);
        if counted["statuses"]["200"] != 25 {
            bad.push(body);
        }
    }
    eprintln!(
        "calls between containers: {} of 1500 failed while the called ones were replaced {value} times",
        1500 - good
    );
    assert_eq!((good, bad), (1500, vec![]));
    assert!(value >= 1);
}
