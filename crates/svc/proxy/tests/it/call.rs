//! Calls from within the process go the same way as calls from outside.

use crate::support::*;
use heptad_proxy::{Body, CallError};
use heptad_route::Caller;
use http::Request;
use http_body_util::BodyExt;

#[tokio::test]
async fn calls_are_decided_forwarded_and_counted() {
    let world = World::new().service("web", &[mirror().await]).service("web-v2", &[echo().await]);
    let world = world.allow("web", &["client"]).split("web", "/v2", &[("web-v2", 1)]);
    let proxy = world.start(Default::default()).await;
    let caller = Caller::Service(key("client"));

    let request = Request::get("/a").body(Body::empty()).expect("a request");
    let answer = proxy.call(&caller, &key("web"), None, request).await.expect("it is allowed");
    assert_eq!((answer.taken.service, answer.taken.rule, answer.taken.endpoint.port), (key("web"), None, 80));
    let text = answer.response.into_body().collect().await.expect("a body").to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("host: web.default.internal\n"));

    let request = Request::post("/v2").body(Body::from("hello")).expect("a request");
    let answer = proxy.call(&caller, &key("web"), Some(80), request).await.expect("it is allowed");
    assert_eq!((answer.taken.service, answer.taken.rule.as_deref()), (key("web-v2"), Some("web-split")));
    assert_eq!(answer.response.into_body().collect().await.expect("a body").to_bytes(), "hello");

    let call = async |caller: Caller, target: &str, port: Option<u16>| {
        let request = Request::get("/").body(Body::empty()).expect("a request");
        proxy.call(&caller, &key(target), port, request).await
    };
    assert!(matches!(call(Caller::Service(key("web-v2")), "web", None).await, Err(CallError::Denied(_))));
    assert!(matches!(call(Caller::External, "web", None).await, Err(CallError::Denied(_))));
    assert!(matches!(call(Caller::Operator, "none", None).await, Err(CallError::UnknownService { .. })));
    assert!(matches!(call(Caller::Operator, "client", None).await, Err(CallError::NoEndpoint { .. })));
    assert!(matches!(call(Caller::Operator, "web", Some(9)).await, Err(CallError::NoEndpoint { .. })));
    assert!(call(Caller::Operator, "web", None).await.is_ok());

    let counts = proxy.counts();
    let of = |backend: &str| {
        let found = counts.iter().find(|c| c.caller.as_ref() == Some(&caller) && c.backend == Some(key(backend)));
        found.expect("it was counted").responses
    };
    assert_eq!((of("web"), of("web-v2")), ([0, 1, 0, 0, 0], [0, 1, 0, 0, 0]));
    assert_eq!(counts.iter().map(|c| c.denied).sum::<u64>(), 2);
    assert_eq!(counts.iter().map(|c| c.unavailable).sum::<u64>(), 3);
}
