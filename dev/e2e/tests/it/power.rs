//! One machine with one platform loses its power, even in the middle of work: after the next start everything runs
//! once, and what was acknowledged is there.

use crate::stock;
use heptad_e2e::{Fault, Host, Lan, Random, Running, time_until};
use std::time::Duration;

const CUTS: usize = 4;
const LIMIT: Duration = Duration::from_secs(120);
const REPLICAS: usize = 3;

struct Machine {
    host: Host,
    server: Option<Running>,
}

impl Machine {
    fn heptad(&self, args: &[&str]) -> heptad_e2e::Said {
        let socket = self.host.data_dir().join("api.sock").display().to_string();
        self.host.heptad(&[&["--socket", &socket], args].concat())
    }

    fn start(&mut self) {
        let dir = self.host.data_dir().display().to_string();
        self.server = Some(self.host.spawn_heptad("server", &["server", "--data-dir", &dir]));
        time_until(LIMIT, "the API answers", || self.heptad(&["get", "nodes"]).code == 0);
    }

    fn lose_power(&mut self) {
        self.host.power_cut();
        self.server = None;
        self.host.boot();
    }

    fn ok(&self, args: &[&str]) -> String {
        let said = self.heptad(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.err, said.out);
        said.out
    }

    fn processes(&self) -> usize {
        let all = self.host.container_processes().into_iter();
        all.filter(|process| process.command.contains("example-service")).count()
    }
}

#[test]
fn a_machine_that_loses_its_power_runs_everything_once_again() {
    let mut random = Random::announced("power cuts");
    let lan = Lan::start();
    let mut machine = Machine { host: lan.host("m1"), server: None };
    machine.start();
    let file = lan.dir().join("web.yaml").display().to_string();
    let text = |value: usize| {
        stock("web", &format!("replicas: {REPLICAS}\nstop_grace_ms: 1000\nenvironment: {{ V: v{value} }}\n"))
    };
    let mut stored = Vec::new();
    for cut in 0..CUTS {
        std::fs::write(&file, text(cut)).expect("a file is written");
        machine.ok(&["apply", "-f", &file]);
        let object = format!("photos/o{cut}");
        machine.ok(&["storage", "put", &object, &file]);
        stored.push((object, text(cut)));
        std::thread::sleep(Duration::from_millis(random.within(0..1_500)));
        machine.lose_power();
        let mut fault = Fault::begin("the only machine loses its power and starts again");
        machine.start();
        fault.noticed();
        machine.ok(&["apply", "--wait", "--timeout", "60", "-f", &file]);
        time_until(LIMIT, "each runs once", || machine.processes() == REPLICAS);
        fault.recovered();
        let lost = stored.iter().filter(|(object, text)| machine.heptad(&["storage", "get", object]).out != *text);
        assert_eq!(lost.map(|(object, _)| object.clone()).collect::<Vec<_>>(), Vec::<String>::new());
        fault.report();
    }
    let said = machine.ok(&["verify"]);
    assert!(!said.contains("BROKEN"), "{said}");
    assert_eq!(machine.processes(), REPLICAS);
}
