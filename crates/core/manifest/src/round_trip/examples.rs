//! Examples of each kind: the first is full. A kind without examples does not compile; one with a field that no example has
//! fails the round trip.

use heptad_api::Resource;
use heptad_model::{
    Config, Container, DeclaredNamespace, Event, NetworkPolicy, Node, Quota, Secret, Service, TrafficRule,
};
use serde_json::{Value, json};

pub(super) trait Examples: Resource {
    /// Objects that have all of its fields, together if not each.
    fn examples() -> Vec<Value>;
}

fn resources() -> Value {
    json!({ "cpu_millis": "250m", "memory": "64Mi", "storage": "1Gi", "network": "10M", "gpu": "1",
            "extended": { "example.com/fpga": "500m" } })
}

fn template() -> Value {
    json!({
        "image": "docker.io/library/nginx:1", "command": ["a", "b"], "args": ["c"], "resources": resources(),
        "ports": [{ "container_port": 80, "host_port": 8080, "protocol": "UDP" }, 81],
        "environment": { "A": "b" }, "environment_from": [{ "config": "c", "prefix": "P_" }],
        "files": [{ "secret": "s", "key": "k", "path": "/etc/x", "mode": "0440" }],
        "health_check": { "http": { "path": "/", "port": 81 }, "interval_ms": 100, "timeout_ms": 50, "retries": 2,
                          "start_period_ms": 7 },
        "user": "1000:1000", "working_dir": "/srv", "group_add": ["video"], "hostname": "a.b",
        "extra_hosts": { "db.example": "10.0.0.9" }, "read_only": true,
        "tmpfs": [{ "path": "/tmp", "size": "1Mi", "mode": "0700" }, "/run"], "shm_size": "1Gi",
        "ulimits": { "nofile": 1024, "core": { "soft": 0, "hard": -1 } }, "pids_limit": 9, "oom_score_adj": 3,
        "cap_add": ["IPC_LOCK"], "cap_drop": ["ALL"],
        "sysctls": { "net.core.somaxconn": "1024" }, "init": true, "stop_grace_ms": 5, "stop_signal": "SIGINT", "restarts_asked": 1
    })
}

/// The fields of `more` in place of those of `object`.
fn with(mut object: Value, more: Value) -> Value {
    let fields = object.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    object
}

impl Examples for Service {
    fn examples() -> Vec<Value> {
        let near = json!([{ "services": ["x"], "labels": { "a": "b" }, "namespace": "n", "topology_key": "zone", "required": false }]);
        let full = with(
            template(),
            json!({
                "id": "i", "name": "web", "namespace": "shop", "replicas": 2, "labels": { "a": "b" }, "placement": "spread",
                "node_selector": { "disk": "ssd" },
                "tolerations": [{ "key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule" }],
                "affinity": near, "anti_affinity": near,
                "topology_spread": [{ "topology_key": "zone", "max_skew": 2, "required": false }], "priority": 5,
                "gang": true, "expose": { "host": "a.example", "port": 81 }, "mode": "service",
                "strategy": { "rolling": { "max_unavailable": "25%", "max_surge": 2 } }, "min_ready": 1,
                "progress_deadline_ms": 5000, "auto_rollback": false, "revisions_max": 3, "never_twice": true,
                "split": { "revision": 1, "percent": 5 }, "created_revision": 1, "address": "10.96.0.1", "generation": 3
            }),
        );
        let small = json!({ "name": "small", "image": "nginx", "ports": [80] });
        let job = json!({
            "environment_from": [{ "secret": "s" }], "files": [{ "config": "c", "path": "/x" }],
            "health_check": { "command": ["true"] },
            "mode": { "job": { "completions": 2, "retries": 1, "deadline_ms": 5, "keep_ms": 6 } },
            "schedule": { "cron": "0 3 * * *", "concurrency": "allow", "late_ms_max": 5, "suspended": true }
        });
        let canary = json!({ "health_check": { "tcp": { "port": 80 } },
                             "strategy": { "canary": { "steps": [{ "weight": 10, "pause_ms": 5 }] } } });
        let switch = json!({ "strategy": { "blue_green": { "keep_ms": 5 } } });
        let more = [job, canary, switch].map(|more| with(small.clone(), more));
        [full, small].into_iter().chain(more).collect()
    }
}

impl Examples for NetworkPolicy {
    fn examples() -> Vec<Value> {
        let peer =
            json!([{ "namespace": "n", "services": ["x"], "labels": { "a": "b" }, "external": false, "ports": [80] }]);
        let policy = json!({ "id": "i", "name": "p", "namespace": "shop", "ingress": peer, "egress": peer,
                             "selector": { "namespace": "n", "services": ["x"], "labels": { "a": "b" } } });
        vec![policy]
    }
}

impl Examples for TrafficRule {
    fn examples() -> Vec<Value> {
        let condition = json!({ "field": "header:x", "operator": "Equals", "value": "v" });
        let rule = json!({ "id": "i", "name": "r", "namespace": "shop", "service": "web", "priority": 3,
                           "conditions": [condition], "backends": [{ "service": "x", "weight": 2 }] });
        vec![rule]
    }
}

fn settings() -> Value {
    json!({ "id": "i", "name": "c", "namespace": "shop", "data": { "k": "v", "l": "" }, "generation": 3 })
}

impl Examples for Config {
    fn examples() -> Vec<Value> {
        vec![settings()]
    }
}

impl Examples for Secret {
    fn examples() -> Vec<Value> {
        vec![settings()]
    }
}

impl Examples for Quota {
    fn examples() -> Vec<Value> {
        let quota = json!({ "id": "i", "name": "q", "namespace": "shop", "cpu": "250m", "memory": "64Mi", "storage": "1Gi",
                            "network": "10M", "containers": 3, "services": 4, "priority_max": -5 });
        vec![quota]
    }
}

impl Examples for DeclaredNamespace {
    fn examples() -> Vec<Value> {
        vec![json!({ "id": "i", "name": "shop", "description": "d", "labels": { "team": "a" } })]
    }
}

impl Examples for Node {
    fn examples() -> Vec<Value> {
        let amounts = json!({ "cpu_millis": "4", "memory": "8Gi", "storage": "9Gi", "network": "1000M" });
        let machine = json!({ "capacity": amounts, "devices": { "gpu": 2 }, "disks": { "d": 5 } });
        let node = json!({
            "id": "i", "name": "n1", "capacity": amounts, "devices": { "gpu": 2 }, "allocated": amounts,
            "allocated_devices": { "gpu": "1500m" }, "containers": ["c-1"], "status": "Ready", "labels": { "a": "b" },
            "driver": "process", "unenforced": ["memory"], "address": "10.0.0.1:7444", "key_sha256": "ab",
            "unschedulable": true, "taints": [{ "key": "k", "value": "v", "effect": "NoExecute" }],
            "disks": [{ "name": "d", "capacity_bytes": 5 }], "draining": true, "removing": true, "fenced": true,
            "admitted": machine, "offered": machine, "set_by_person": true, "conditions": [{ "kind": "DiskPressure", "message": "m", "since_ms": 5 }]
        });
        vec![node]
    }
}

impl Examples for Container {
    fn examples() -> Vec<Value> {
        let reserved = json!({ "node": "n1", "until_ms": 5 });
        let of = |template: Value| {
            json!({
                "id": "web-1", "service": "shop/web", "service_id": "s", "generation": 2, "template": template,
                "revision": 3, "run": 4, "pinned": "n1", "settings": { "config/c": "i.1" }, "node": "n1",
                "devices": { "gpu": [0, 1] }, "reservation": reserved, "move_to": reserved, "desired": "Stopped",
                "status": "Failed", "ready": true, "reason": "r", "message": "m", "addresses": { "80": "10.0.0.1:80" },
                "restarts": 5, "exit_code": -6, "created_at_ms": 7, "started_at_ms": 8, "heard_at_ms": 9,
                "start_failure": { "fault": "DiskFull", "tries": 3 }
            })
        };
        let probes = [json!({ "command": ["true"] }), json!({ "tcp": { "port": 80 } })];
        let secret = json!([{ "secret": "s" }]);
        let file = json!([{ "config": "c", "path": "/x" }]);
        let more = probes.map(|probe| {
            let of_other_kind =
                json!({ "health_check": probe, "environment_from": secret, "files": file, "retries": 9 });
            of(with(template(), of_other_kind))
        });
        [of(template())].into_iter().chain(more).collect()
    }
}

impl Examples for Event {
    fn examples() -> Vec<Value> {
        let event =
            json!({ "id": "i", "at_ms": 5, "kind": "Warning", "reason": "r", "subject": "node/n1", "message": "m" });
        vec![event]
    }
}
