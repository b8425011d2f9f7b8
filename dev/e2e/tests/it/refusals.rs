//! Impossible starts and forbidden callers: refused plainly, and nothing changes.

use crate::stock;
use heptad_e2e::{Platform, Program, require_root};
use std::{os::unix::fs::PermissionsExt, process::Command};

/// The status with which curl's request is answered.
fn status(platform: &Platform, headers: &[&str], url_path: &str) -> String {
    let url = format!("http://{}{url_path}", platform.api);
    let headers: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
    let fixed = ["-s", "-o", "/dev/null", "-w", "%{http_code}", &url];
    heptad_e2e::run_tool("curl", &[&fixed[..], &headers[..]].concat())
}

#[test]
fn only_holders_of_the_token_and_the_user_itself_reach_the_api() {
    let platform = Platform::start(&[]);
    let token_file = platform.data_dir().join("token");
    for (path, mode) in [(platform.socket(), 0o600), (token_file.clone(), 0o600), (platform.data_dir(), 0o700)] {
        let found = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
    let token = std::fs::read_to_string(&token_file).expect("the token is read");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let services = "/v1/services";
    assert_eq!(status(&platform, &[&bearer], services), "200");
    assert_eq!(status(&platform, &[], services), "401");
    assert_eq!(status(&platform, &["Authorization: Bearer guessed"], services), "401");
    assert_eq!(status(&platform, &[&bearer, "Host: evil.example"], services), "403");
    assert_eq!(status(&platform, &[&bearer, "Origin: http://evil.example"], services), "403");
    let by_token =
        ["--server", &platform.api.to_string(), "--token-file", &token_file.display().to_string(), "get", "nodes"];
    assert_eq!(Program::find().run(&by_token).code, 0);
}

#[test]
fn a_second_platform_in_the_same_directory_is_refused_and_harms_nothing() {
    let platform = Platform::start(&[]);
    platform.apply(&stock("web", ""));
    let processes = platform.machine().container_processes();
    let said = Program::find().run(&["server", "--data-dir", &platform.data_dir().display().to_string()]);
    assert!(said.code == 1 && said.err.contains("another platform uses"), "{said:?}");
    assert_eq!(platform.machine().container_processes(), processes);
    platform.ok(&["mesh", "call", "-", "web"]);
}

#[test]
fn containers_without_root_are_refused_with_the_way_out() {
    require_root();
    let dir = tempfile::Builder::new().prefix("heptad-e2e-user-").tempdir_in("/var/tmp").expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).expect("others may write");
    let program = dir.path().join("heptad");
    std::fs::copy(Program::find().path, &program).expect("the program is copied");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
        .arg(program)
        .args(["server", "--driver", "oci", "--data-dir"])
        .arg(dir.path().join("data"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("setpriv runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--driver process"), "{said}");
}
