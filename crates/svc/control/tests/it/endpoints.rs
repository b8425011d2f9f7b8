//! Every operation of the endpoint table is served.

use crate::common::World;
use heptad_api::{ErrorCode, ProblemDetails, endpoints};
use std::process::Command;

/// Status and body of a request by curl over the Unix socket.
pub(crate) fn curl(world: &World, arguments: &[&str]) -> (u16, String) {
    let socket = world.control.socket().expect("it has a socket").to_str().expect("plain").to_owned();
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "5", "-w", "\n%{http_code}", "--unix-socket", &socket])
        .args(arguments)
        .output()
        .expect("this test needs curl: apt-get install curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
    let status = status.parse().unwrap_or_else(|_| panic!("curl: {}", String::from_utf8_lossy(&output.stderr)));
    (status, body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_of_the_table_is_unknown() {
    let world = World::new().await;
    for endpoint in endpoints::all() {
        let path = endpoint.path.replace("{namespace}", "default").replace(['{', '}'], "");
        let url = format!("http://localhost{path}");
        let mut arguments = vec!["-X", endpoint.method, &url];
        if endpoint.method == "HEAD" {
            arguments = vec!["-I", &url];
        }
        if endpoint.request.is_some() {
            arguments.extend(["-d", "{}"]);
        }
        let (status, body) = curl(&world, &arguments);
        assert_ne!(status, 405, "{} {}", endpoint.method, endpoint.path);
        if status >= 400 && endpoint.method != "HEAD" {
            let problem: ProblemDetails = serde_json::from_str(&body).expect("a problem");
            assert_eq!(problem.status, status);
            assert!(!problem.detail.contains("no such path"), "{} {}", endpoint.method, endpoint.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_a_problem_with_its_code() {
    let world = World::new().await;
    let big = world.dir.path().join("big");
    std::fs::write(&big, vec![b' '; heptad_api::BODY_BYTES_MAX + 1]).expect("written");
    let big = format!("@{}", big.display());
    let services = "http://localhost/v1/namespaces/default/services";
    let cases: Vec<(Vec<&str>, ErrorCode)> = vec![
        (vec!["http://localhost/nowhere"], ErrorCode::NotFound),
        (vec!["http://localhost/v1/services/x/y"], ErrorCode::NotFound),
        (vec!["http://localhost/v1/namespaces/default/services/absent"], ErrorCode::NotFound),
        (vec!["-X", "DELETE", "http://localhost/v1/version"], ErrorCode::MethodNotAllowed),
        (vec!["-d", "{", services], ErrorCode::BadRequest),
        (vec!["-d", "{\"name\":\"web\",\"image\":\"nginx\",\"replica\":1}", services], ErrorCode::Invalid),
        (vec!["-d", "{\"name\":\"Web\",\"image\":\"\"}", services], ErrorCode::Invalid),
        (vec!["--data-binary", &big, "-H", "Expect:", services], ErrorCode::TooLarge),
        (vec!["http://localhost/v1/services?limit=0"], ErrorCode::BadRequest),
        (vec!["http://localhost/v1/services?limit=5001"], ErrorCode::BadRequest),
        (vec!["http://localhost/v1/services?limits=1"], ErrorCode::BadRequest),
        (vec!["http://localhost/v1/services?continue=x"], ErrorCode::BadRequest),
        (vec!["-X", "DELETE", "-H", "If-Match: x", "http://localhost/v1/nodes/n"], ErrorCode::BadRequest),
        (vec!["http://localhost/v1/storage/bucket/key"], ErrorCode::Unavailable),
    ];
    for (arguments, code) in cases {
        let (status, body) = curl(&world, &arguments);
        let problem: ProblemDetails =
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("{arguments:?}: {body} {e}"));
        assert_eq!((problem.code, status), (code, code.status()), "{arguments:?}: {}", problem.detail);
    }
}
