//! Everybody x what can be asked, as a table: what is not listed as permitted is denied.

use super::*;

const VIEWER: Who<'_> = Who::Person(&Role::Viewer);

fn deployer() -> Role {
    "deployer:shop".parse().expect("a role")
}

/// Every way to ask: method, path, and for containers namespace and node.
const ASKED: &[(&str, &str)] = &[
    ("GET", "/v1/health"),
    ("GET", "/v1/health/live"),
    ("GET", "/v1/servers"),
    ("GET", "/v1/backup"),
    ("GET", "/v1/version"),
    ("GET", "/v1/whoami"),
    ("GET", "/v1/cluster"),
    ("GET", "/v1/trust-bundle"),
    ("GET", "/v1/authorities"),
    ("POST", "/v1/authorities/rotate"),
    ("POST", "/v1/join"),
    ("POST", "/v1/certificates"),
    ("GET", "/v1/join-tokens"),
    ("POST", "/v1/join-tokens"),
    ("DELETE", "/v1/join-tokens/x"),
    ("GET", "/v1/tokens"),
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens/x"),
    ("GET", "/v1/nodes"),
    ("GET", "/v1/nodes/n1"),
    ("POST", "/v1/nodes"),
    ("PUT", "/v1/nodes/n1"),
    ("PUT", "/v1/nodes/n2"),
    ("PATCH", "/v1/nodes/n1"),
    ("PATCH", "/v1/nodes/n2"),
    ("DELETE", "/v1/nodes/n1"),
    ("POST", "/v1/nodes/n1/heartbeat"),
    ("POST", "/v1/nodes/n2/heartbeat"),
    ("POST", "/v1/nodes/n1/drain"),
    ("GET", "/v1/services"),
    ("GET", "/v1/namespaces/shop/services/web"),
    ("GET", "/v1/namespaces/shop/services/web/why"),
    ("POST", "/v1/namespaces/shop/services"),
    ("PUT", "/v1/namespaces/shop/services/web"),
    ("PATCH", "/v1/namespaces/shop/services/web"),
    ("DELETE", "/v1/namespaces/shop/services/web"),
    ("POST", "/v1/namespaces/shop/services/web/rollout/undo"),
    ("PUT", "/v1/namespaces/other/services/web"),
    ("DELETE", "/v1/namespaces/other/services/web"),
    ("PUT", "/v1/namespaces/shop/policies/p"),
    ("PUT", "/v1/namespaces/shop/rules/r"),
    ("PUT", "/v1/namespaces/other/policies/p"),
    ("GET", "/v1/policies"),
    ("GET", "/v1/rules"),
    ("GET", "/v1/events"),
    ("POST", "/v1/events"),
    ("GET", "/v1/containers"),
    ("GET", "/v1/containers/shop-n1"),
    ("GET", "/v1/containers/shop-n1/logs"),
    ("GET", "/v1/containers/shop-n1/why"),
    ("GET", "/v1/containers/shop-n1/settings"),
    ("GET", "/v1/containers/shop-n2/settings"),
    ("POST", "/v1/containers/shop-n1/image"),
    ("POST", "/v1/containers/shop-n2/image"),
    ("POST", "/v1/containers/shop-n1/exec"),
    ("POST", "/v1/containers/other-n1/exec"),
    ("PUT", "/v1/containers/shop-n1/status"),
    ("PUT", "/v1/containers/shop-n2/status"),
    ("DELETE", "/v1/containers/shop-n1"),
    ("DELETE", "/v1/containers/shop-n2"),
    ("GET", "/v1/configs"),
    ("PUT", "/v1/namespaces/shop/configs/c"),
    ("GET", "/v1/secrets"),
    ("GET", "/v1/namespaces/shop/secrets/s"),
    ("PUT", "/v1/namespaces/shop/secrets/s"),
    ("GET", "/v1/namespaces/other/secrets/s"),
    ("GET", "/v1/snapshot"),
    ("GET", "/v1/verify"),
    ("GET", "/v1/optimization"),
    ("POST", "/v1/optimization"),
    ("POST", "/v1/apply"),
    ("POST", "/v1/plan"),
    ("GET", "/v1/mesh"),
    ("POST", "/v1/mesh/call"),
    ("POST", "/v1/mesh/check"),
    ("GET", "/v1/storage"),
    ("GET", "/v1/storage/bucket"),
    ("GET", "/v1/storage/bucket/key"),
    ("PUT", "/v1/storage/bucket/key"),
    ("GET", "/v1/whatever-comes-later"),
    ("POST", "/v1/whatever-comes-later"),
    ("GET", "/metrics"),
];

fn asked(method: &str, path: &str) -> Asked {
    let mut asked = Asked::of(method, path);
    // As the guard fills it in.
    if let ("containers", Some((namespace, node))) = (asked.kind.as_str(), asked.name.split_once('-')) {
        (asked.namespace, asked.node) = (namespace.to_owned(), node.to_owned());
    }
    asked
}

/// All that is permitted to somebody.
fn permitted(who: Who<'_>) -> Vec<String> {
    let may = |(method, path): &&(&str, &str)| permits(who, &asked(method, path));
    ASKED.iter().filter(may).map(|(method, path)| format!("{method} {path}")).collect()
}

#[test]
fn who_owns_the_machine_or_administers_may_do_all() {
    let all: Vec<String> = ASKED.iter().map(|(method, path)| format!("{method} {path}")).collect();
    for who in [Who::Operator, Who::Server, Who::Person(&Role::Admin)] {
        assert_eq!(permitted(who), all, "{who:?}");
    }
}

#[test]
fn nobody_may_join_and_see_that_the_server_lives() {
    assert_eq!(permitted(Who::Anonymous), ["GET /v1/health", "GET /v1/health/live", "POST /v1/join"]);
}

#[test]
fn a_node_reads_the_mesh_and_writes_itself_and_what_is_bound_to_it() {
    assert_eq!(
        permitted(Who::Node("n1")),
        [
            "GET /v1/health",
            "GET /v1/health/live",
            "GET /v1/version",
            "GET /v1/whoami",
            "GET /v1/cluster",
            "GET /v1/trust-bundle",
            "POST /v1/certificates",
            "GET /v1/nodes",
            "GET /v1/nodes/n1",
            "PUT /v1/nodes/n1",
            "PATCH /v1/nodes/n1",
            "POST /v1/nodes/n1/heartbeat",
            "GET /v1/services",
            "GET /v1/namespaces/shop/services/web",
            "GET /v1/policies",
            "GET /v1/rules",
            "POST /v1/events",
            "GET /v1/containers",
            "GET /v1/containers/shop-n1",
            "GET /v1/containers/shop-n1/settings",
            "POST /v1/containers/shop-n1/image",
            "PUT /v1/containers/shop-n1/status",
            "DELETE /v1/containers/shop-n1",
            "GET /v1/mesh",
        ]
    );
}

const VIEWED: [&str; 28] = [
    "GET /v1/health",
    "GET /v1/health/live",
    "GET /v1/servers",
    "GET /v1/version",
    "GET /v1/whoami",
    "GET /v1/cluster",
    "GET /v1/trust-bundle",
    "GET /v1/authorities",
    "GET /v1/nodes",
    "GET /v1/nodes/n1",
    "GET /v1/services",
    "GET /v1/namespaces/shop/services/web",
    "GET /v1/namespaces/shop/services/web/why",
    "GET /v1/policies",
    "GET /v1/rules",
    "GET /v1/events",
    "GET /v1/containers",
    "GET /v1/containers/shop-n1",
    "GET /v1/containers/shop-n1/logs",
    "GET /v1/containers/shop-n1/why",
    "GET /v1/configs",
    "GET /v1/snapshot",
    "GET /v1/verify",
    "GET /v1/optimization",
    "POST /v1/plan",
    "GET /v1/mesh",
    "POST /v1/mesh/check",
    "GET /v1/storage",
];

#[test]
fn a_viewer_reads_what_is_no_secret() {
    assert_eq!(permitted(VIEWER), VIEWED);
}

#[test]
fn a_deployer_writes_in_one_namespace() {
    let viewer = permitted(VIEWER);
    let all = permitted(Who::Person(&deployer()));
    let more: Vec<_> = all.iter().filter(|asked| !viewer.contains(asked)).collect();
    assert_eq!(
        more,
        [
            "POST /v1/namespaces/shop/services",
            "PUT /v1/namespaces/shop/services/web",
            "PATCH /v1/namespaces/shop/services/web",
            "DELETE /v1/namespaces/shop/services/web",
            "POST /v1/namespaces/shop/services/web/rollout/undo",
            "PUT /v1/namespaces/shop/policies/p",
            "PUT /v1/namespaces/shop/rules/r",
            "POST /v1/containers/shop-n1/exec",
            "PUT /v1/namespaces/shop/configs/c",
            "GET /v1/namespaces/shop/secrets/s",
            "PUT /v1/namespaces/shop/secrets/s",
            "POST /v1/apply",
        ]
    );
    assert!(viewer.iter().all(|asked| all.contains(asked)));
}

#[test]
fn of_each_kind_people_read_and_write_what_the_table_says() {
    let (viewer, admin) = (Role::Viewer, Role::Admin);
    let deployer = |namespace: &str| Role::Deployer { namespace: namespace.into() };
    for kind in Kind::ALL {
        let path = kind.object_path(&"shop".into(), "x");
        let may = |role: &Role, method, path: &str| permits(Who::Person(role), &asked(method, path));
        assert_eq!(may(&viewer, "GET", &path), kind.readers() == Readers::All, "{kind}");
        assert!(!may(&viewer, "PUT", &path) && may(&admin, "PUT", &path) && may(&admin, "DELETE", &path), "{kind}");
        let by_deployers = kind.writers() == Writers::Deployers;
        assert!(!by_deployers || kind.is_namespaced(), "{kind}: nobody deploys into no namespace");
        for method in ["PUT", "PATCH", "DELETE"] {
            assert_eq!(may(&deployer("shop"), method, &path), by_deployers, "{kind}");
            assert!(!may(&deployer("other"), method, &path), "{kind}");
        }
    }
}
