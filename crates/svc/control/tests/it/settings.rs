//! Configs and secrets: sealed, redacted, versioned; containers that use them are replaced when they change.

use crate::common::{Agent, World, all_ready, node, service};
use heptad_api::ErrorCode;
use heptad_control::{Control, ServerParts};
use heptad_model::{Config, EnvironmentSource, FileSource, Namespace, Secret, settings::REDACTED};
use heptad_pki::Keyring;
use heptad_state::{KeyRange, MemoryStore, RangeRequest, Store};
use serde_json::json;
use std::sync::Arc;

const PASSWORD: &str = "correct horse battery staple";

fn home() -> Namespace {
    Namespace::default()
}

fn config(data: serde_json::Value) -> Config {
    serde_json::from_value(json!({ "config": "app", "data": data })).expect("a config")
}

fn secret(data: serde_json::Value) -> Secret {
    serde_json::from_value(json!({ "secret": "db", "data": data })).expect("a secret")
}

async fn world() -> (World, Arc<dyn Store>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keyring = Some(Arc::new(Keyring::generate().expect("a keyring")));
    let parts = ServerParts { keyring, ..ServerParts::default() };
    (World::with(store.clone(), |_| {}, parts).await, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_sealed_in_the_store_and_redacted_everywhere_else() {
    let (world, store) = world().await;
    let client = &world.client;
    let made = client.create(&secret(json!({ "user": "app", "password": PASSWORD }))).await.expect("created");
    assert_eq!(made.object.data.values().collect::<Vec<_>>(), [REDACTED, REDACTED]);
    let read = client.get::<Secret>(&home(), "db").await.expect("read");
    assert_eq!(read.object, made.object);
    let all = store.range(RangeRequest::new(KeyRange::prefix(""))).await.expect("all rows");
    assert!(all.kvs.iter().any(|kv| kv.key.starts_with(b"/vault/")));
    for kv in &all.kvs {
        assert!(!kv.value.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()), "{:?}", kv.key);
    }
    // What was read can be written back without changing anything; a single value can be changed.
    assert_eq!(client.replace(&read.object, None).await.expect("unchanged"), read);
    let patch = json!({ "data": { "password": "new" } });
    let patched = client.patch::<Secret>(&home(), "db", &patch, None).await.expect("patched");
    assert_eq!(patched.object.generation, read.object.generation + 1);
    let refused = client.create(&Secret { name: "other".into(), ..read.object.clone() }).await;
    assert_eq!(refused.expect_err("there is no value behind it").code(), Some(ErrorCode::Invalid));
    client.delete::<Secret>(&home(), "db", None).await.expect("deleted");
    let all = store.range(RangeRequest::new(KeyRange::prefix("/vault/"))).await.expect("all rows");
    assert_eq!(all.kvs, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_given_what_it_names_and_replaced_when_that_changes() {
    let (world, _) = world().await;
    let client = &world.client;
    let _agent = Agent::start(client, &node("n1", 4_000, 4_000)).await;
    client.create(&config(json!({ "log.level": "info", "shared": "config" }))).await.expect("created");
    client.create(&secret(json!({ "password": PASSWORD, "shared": "secret" }))).await.expect("created");
    let mut web = service("web", 1);
    web.environment_from = vec![
        EnvironmentSource { config: Some("app".into()), ..EnvironmentSource::default() },
        EnvironmentSource { secret: Some("db".into()), prefix: "DB_".into(), ..EnvironmentSource::default() },
    ];
    web.files = vec![
        FileSource {
            secret: Some("db".into()),
            key: Some("password".into()),
            path: "/run/pw".into(),
            ..FileSource::default()
        },
        FileSource { config: Some("app".into()), path: "/etc/app".into(), ..FileSource::default() },
    ];
    client.create(&web).await.expect("created");
    let first = world.containers_until(all_ready(1)).await.remove(0);
    let given = client.container_settings(&first.id).await.expect("settings");
    assert_eq!(given.environment["log_level"], "info");
    assert_eq!(
        (given.environment["DB_password"].as_str(), given.environment["DB_shared"].as_str()),
        (PASSWORD, "secret")
    );
    let files: Vec<(&str, u32, &str)> =
        given.files.iter().map(|f| (f.path.as_str(), f.mode, f.content.as_str())).collect();
    let expected =
        [("/run/pw", 0o400, PASSWORD), ("/etc/app/log.level", 0o444, "info"), ("/etc/app/shared", 0o444, "config")];
    assert_eq!(files, expected);

    let patch = json!({ "data": { "password": "new" } });
    client.patch::<Secret>(&home(), "db", &patch, None).await.expect("patched");
    let changed = |all: &[heptad_model::Container]| all_ready(1)(all) && all[0].id != first.id;
    let second = world.containers_until(changed).await.remove(0);
    assert_eq!(client.container_settings(&second.id).await.expect("settings").environment["DB_password"], "new");

    // A change that nobody uses rolls nobody.
    let other: Config = serde_json::from_value(json!({ "config": "other", "data": { "x": "y" } })).expect("a config");
    client.create(&other).await.expect("created");
    world.looked_again().await;
    assert_eq!(world.containers().await[0].id, second.id);

    client.delete::<Config>(&home(), "app", None).await.expect("deleted");
    let missing = client.container_settings(&second.id).await.expect_err("it is gone");
    assert!(missing.to_string().contains("config/default/app does not exist"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_keyring_secrets_are_refused_and_configs_are_not() {
    let world = World::new().await;
    let refused = world.client.create(&secret(json!({ "a": "b" }))).await.expect_err("no keyring");
    assert_eq!(refused.code(), Some(ErrorCode::Unavailable));
    world.client.create(&config(json!({ "a": "b" }))).await.expect("created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_keyring_cannot_open_what_this_one_sealed() {
    let (world, store) = world().await;
    world.client.create(&secret(json!({ "a": "b" }))).await.expect("created");
    let dir = tempfile::tempdir().expect("a directory");
    let parts =
        ServerParts { keyring: Some(Arc::new(Keyring::generate().expect("a keyring"))), ..ServerParts::default() };
    let options = crate::common::options(&dir);
    let other = Control::start(options, store, parts).await.expect("it starts");
    let client = heptad_client::Client::unix(other.socket().expect("a socket"));
    let refused = client.patch::<Secret>(&home(), "db", &json!({ "data": { "a": "c" } }), None).await;
    assert_eq!(refused.expect_err("it cannot be opened").code(), Some(ErrorCode::Internal));
    other.shutdown().await;
}
