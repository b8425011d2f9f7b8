//! The library as programs use it: a platform in this process, with real containers. Needs root.

use heptad::{
    MeshError, MicroservicePlatform, NetworkPolicy, OrchestrationError, Service, ServiceKey, ServiceRequest, Settings,
    StorageError, TrafficRule,
};
use heptad_exec::ShimCommand;
use heptad_model::{Bytes, HealthCheck, Port, Probe};
use std::time::Duration;

/// A platform in a temporary directory. Its shims run the program, because this test binary cannot.
async fn platform(dir: &tempfile::TempDir) -> MicroservicePlatform {
    let id = std::process::Command::new("id").arg("-u").output().expect("id runs");
    assert_eq!(id.stdout, b"0\n", "these tests make containers: run them as root");
    let program = env!("CARGO_BIN_EXE_heptad").into();
    let shim = Some(ShimCommand { program, args_prefix: vec![heptad_exec::shim::SUBCOMMAND.into()] });
    let settings =
        Settings { ephemeral: true, shim, node: Some("n1".to_owned()), ..Settings::new(dir.path().join("data")) };
    MicroservicePlatform::start(settings).await.expect("the platform starts")
}

fn shop(name: &str, version: &str) -> Service {
    let mut service = Service::new(name, "host");
    let words = ["heptad", "example-service", "stock", "--version", version];
    service.command = words.map(str::to_owned).to_vec();
    service.ports = vec![Port::tcp(8080)];
    service.resources.memory = Bytes(64 << 20);
    let probe = Probe::Http { path: "/healthz".to_owned(), port: None };
    service.health_check = Some(HealthCheck { interval_ms: 200, ..HealthCheck::new(probe) });
    service
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

/// Asks until the proxy has heard of the change.
async fn until<T: std::fmt::Debug>(what: &str, mut ask: impl AsyncFnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    for _ in 0..500 {
        let answer = ask().await;
        if is_so(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: still {:?}", ask().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_deployed_called_denied_split_and_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let platform = platform(&dir).await;
    for (name, version) in [("cart", "1"), ("web", "1"), ("stock", "1"), ("stock-next", "2")] {
        let deployed = platform.deploy_microservice(shop(name, version)).await.expect("it is deployed");
        assert!(deployed.len() == 1 && deployed[0].ready, "{deployed:?}");
    }
    let call = async |from: &str| platform.service_call(&key(from), &key("stock"), ServiceRequest::get("/")).await;
    let answer = until("a call", async || call("web").await, |r| r.is_ok()).await.expect("an answer");
    assert_eq!((answer.status, answer.served_by), (200, Some(key("stock"))));
    assert_eq!(platform.mesh().discover(&key("stock")).await.expect("they are listed").len(), 1);

    let policy = serde_json::json!({ "name": "p", "selector": { "services": ["stock"] }, "ingress": [{ "services": ["cart"] }] });
    let policy: NetworkPolicy = serde_json::from_value(policy).expect("it is a policy");
    platform.mesh().apply_policy(&policy).await.expect("it is applied");
    let denied = until("a denial", async || call("web").await, |r| r.is_err()).await;
    assert!(matches!(&denied, Err(MeshError::Denied { to, .. }) if *to == key("stock")), "{denied:?}");
    assert!(call("cart").await.is_ok());
    assert!(!platform.mesh().check(&key("web"), &key("stock")).await.expect("an answer").allowed);

    let rule = serde_json::json!({ "name": "r", "service": "stock", "backends": [{ "service": "stock-next" }] });
    let rule: TrafficRule = serde_json::from_value(rule).expect("it is a rule");
    platform.mesh().apply_rule(&rule).await.expect("it is applied");
    let served = async || call("cart").await.ok().and_then(|answer| answer.served_by);
    until("the rule", served, |by| *by == Some(key("stock-next"))).await;

    let nobody = platform.service_call(&key("cart"), &key("nobody"), ServiceRequest::get("/")).await;
    assert!(matches!(nobody, Err(MeshError::NoAnswer { .. })), "{nobody:?}");
    let orchestrator = platform.orchestrator();
    orchestrator.scale(&key("web"), 0).await.expect("it is scaled");
    let containers = async || orchestrator.containers(&key("web")).await.expect("they are listed");
    until("none", containers, |all| all.is_empty()).await;
    orchestrator.delete(&key("cart")).await.expect("it is deleted");
    let twice = orchestrator.delete(&key("cart")).await;
    assert!(matches!(twice, Err(OrchestrationError::Control { .. })), "{twice:?}");
    platform.stop().await;
    assert!(!dir.path().join("data").exists(), "an ephemeral platform takes its data with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_stored_read_and_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let platform = platform(&dir).await;
    let data: Vec<u8> = (0..1_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    platform.store_data("letters/first", data.clone()).await.expect("it is stored");
    platform.store_data("plain", b"default bucket".to_vec()).await.expect("it is stored");
    std::fs::remove_dir_all(platform.platform().storage_dir(2)).expect("a disk is lost");
    assert_eq!(platform.read_data("letters/first").await.expect("it is read"), data);
    assert_eq!(platform.read_data("plain").await.expect("it is read"), b"default bucket");
    let missed = platform.read_data("letters/second").await;
    assert!(matches!(missed, Err(StorageError::NotFound(_))), "{missed:?}");
    platform.stop().await;
}
