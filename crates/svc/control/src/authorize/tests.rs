//! Every principal x what can be asked, as a table: what is not listed as permitted is denied.

use super::*;
use crate::trust::Person;
use http::Method;

fn person(role: &str) -> Principal {
    let role = role.parse().expect("a role");
    Principal::Person(Person { id: "t1".into(), name: "alice".into(), role })
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
    let mut asked = Asked::of(&Method::from_bytes(method.as_bytes()).expect("a method"), path);
    // As the guard fills it in.
    if let ("containers", Some((namespace, node))) = (asked.kind.as_str(), asked.name.split_once('-')) {
        (asked.namespace, asked.node) = (namespace.to_owned(), node.to_owned());
    }
    asked
}

/// All that is permitted to somebody.
fn permitted(principal: &Principal) -> Vec<String> {
    let policies = Policies::load(None).expect("the policies are valid");
    let may = |(method, path): &&(&str, &str)| policies.permit(principal, &asked(method, path)).expect("asked");
    ASKED.iter().filter(may).map(|(method, path)| format!("{method} {path}")).collect()
}

fn all_but(except: &[&str]) -> Vec<String> {
    let all = ASKED.iter().map(|(method, path)| format!("{method} {path}"));
    all.filter(|asked| !except.contains(&asked.as_str())).collect()
}

#[test]
fn who_owns_the_machine_or_administers_may_do_all() {
    for principal in [Principal::Operator, Principal::Server("s1".into()), person("admin")] {
        assert_eq!(permitted(&principal), all_but(&[]), "{principal}");
    }
}

#[test]
fn nobody_may_join_and_see_that_the_server_lives() {
    assert_eq!(permitted(&Principal::Anonymous), ["GET /v1/health", "GET /v1/health/live", "POST /v1/join"]);
}

#[test]
fn a_node_reads_the_mesh_and_writes_itself_and_what_is_bound_to_it() {
    assert_eq!(
        permitted(&Principal::Node("n1".into())),
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
    assert_eq!(permitted(&person("viewer")), VIEWED);
}

#[test]
fn a_deployer_writes_in_one_namespace() {
    let viewer = permitted(&person("viewer"));
    let more: Vec<String> =
        permitted(&person("deployer:shop")).into_iter().filter(|asked| !viewer.contains(asked)).collect();
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
    assert!(viewer.iter().all(|asked| permitted(&person("deployer:shop")).contains(asked)));
}

#[test]
fn own_policies_add_and_take_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("more.cedar");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write(
        r#"forbid (principal is Person, action == Action::"delete", resource) when { resource.kind == "services" };
           permit (principal is Person, action == Action::"read", resource)
           when { principal.name == "alice" && resource.kind == "tokens" };"#,
    );
    let policies = Policies::load(Some(&path)).expect("valid");
    let may = |role, method, path| policies.permit(&person(role), &asked(method, path)).expect("asked");
    assert!(!may("admin", "DELETE", "/v1/namespaces/shop/services/web"));
    assert!(may("admin", "PUT", "/v1/namespaces/shop/services/web"));
    assert!(may("viewer", "GET", "/v1/tokens") && !may("viewer", "POST", "/v1/tokens"));
    for bad in [
        "permit (",
        "permit (principal is Nobody, action, resource);",
        "permit (principal, action, resource) when { resource.knd == \"x\" };",
    ] {
        write(bad);
        let error = Policies::load(Some(&path)).expect_err("it is wrong").to_string();
        assert!(error.contains("more.cedar"), "{error}");
    }
}
