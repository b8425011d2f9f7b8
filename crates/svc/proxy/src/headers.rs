//! What a gateway changes in the head of a request or response (RFC 9110, 7.6): fields of one hop and those that only
//! proxies may say go, `X-Forwarded-For` and `X-Request-Id` come, `Host` stays. Does not know where the message goes.

use crate::assertion;
use heptad_model::ServiceKey;
use heptad_route::Headers;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version,
    header::{CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};
use std::borrow::Cow;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The headers of a request, as traffic rules ask for them.
pub(crate) struct View<'a>(pub(crate) &'a HeaderMap);

impl Headers for View<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.0.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let first = values.next()?;
        Some(values.fold(first, |all, next| Cow::Owned(format!("{all}, {next}"))))
    }
}

/// What a request gets on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    /// The client's address, for `X-Forwarded-For`.
    pub(crate) peer: Option<&'a HeaderValue>,
    /// Whether what the client says of earlier hops is believed.
    pub(crate) trusts_client: bool,
    /// The service that is addressed: the `Host` if the client sent none.
    pub(crate) target: &'a ServiceKey,
    pub(crate) request_id: u64,
}

/// Prepares a request for the next hop. Says whether it asks for another protocol, such as WebSocket.
pub(crate) fn prepare_request<B>(request: &mut Request<B>, hop: &Hop<'_>) -> bool {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().scheme().is_some() || request.uri().authority().is_some() {
        origin_form(request);
    }
    let headers = request.headers_mut();
    let upgrade = wanted_upgrade(headers);
    strip(headers);
    assertion::strip(headers);
    headers.remove(EXPECT);
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(hop.target.dns_name())
    {
        headers.insert(HOST, host);
    }
    forwarded_for(headers, hop);
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::try_from(format!("{:016x}", hop.request_id))
    {
        headers.insert(REQUEST_ID, id);
    }
    let upgrades = upgrade.is_some();
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    upgrades
}

/// Prepares a response for the previous hop.
pub(crate) fn prepare_response<B>(response: &mut Response<B>) {
    *response.version_mut() = Version::HTTP_11;
    strip(response.headers_mut());
    assertion::strip(response.headers_mut());
}

/// `GET http://HOST/PATH` becomes `GET /PATH` with the URI's host, which takes precedence (RFC 9112, 3.2.2).
fn origin_form<B>(request: &mut Request<B>) {
    let host = request.uri().authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
}

/// The protocol that is asked for; HTTP/2 over cleartext is not passed on, since its frames could not be decided on.
fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let listed = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    (listed && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Removes the fields that are meant for one hop only.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_options(headers)
            .filter(|option| !option.eq_ignore_ascii_case("close") && !option.eq_ignore_ascii_case("keep-alive"))
            .filter_map(|option| option.parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    let fields =
        [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];
    for name in &fields {
        headers.remove(name);
    }
}

fn forwarded_for(headers: &mut HeaderMap, hop: &Hop<'_>) {
    let Some(peer) = hop.peer else { return };
    let view = View(headers);
    let earlier = view.get(FORWARDED_FOR.as_str()).filter(|_| hop.trusts_client);
    let all = earlier.and_then(|earlier| {
        let text = format!("{earlier}, {}", peer.to_str().ok()?);
        HeaderValue::try_from(text).ok()
    });
    headers.insert(FORWARDED_FOR, all.unwrap_or_else(|| peer.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(lines: &[(&str, &str)], uri: &str, trusts_client: bool) -> (Request<()>, bool) {
        let mut request = Request::builder().uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).expect("a request");
        let peer = HeaderValue::from_static("10.0.0.9");
        let target = ServiceKey::new("default", "web");
        let hop = Hop { peer: Some(&peer), trusts_client, target: &target, request_id: 7 };
        let upgrades = prepare_request(&mut request, &hop);
        (request, upgrades)
    }

    #[test]
    fn fields_of_one_hop_do_not_pass() {
        let lines = [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("x-kept", "1"),
            ("heptad-caller", "x"),
        ];
        let (request, upgrades) = prepared(&lines, "/a", true);
        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(["x-kept", "host", "x-forwarded-for", "x-request-id"].iter().all(|name| names.contains(name)));
        assert!(!upgrades);
    }

    #[test]
    fn a_websocket_passes_and_cleartext_http2_does_not() {
        let (request, upgrades) =
            prepared(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], "/", true);
        assert!(upgrades);
        assert_eq!(request.headers()[UPGRADE], "websocket");
        assert_eq!(request.headers()[CONNECTION], "upgrade");
        let (request, upgrades) = prepared(&[("connection", "upgrade"), ("upgrade", "h2c")], "/", true);
        assert!(!upgrades && !request.headers().contains_key(UPGRADE));
    }

    #[test]
    fn the_absolute_form_gives_the_host() {
        let (request, _) = prepared(&[("host", "other")], "http://shop.example.com:81/a?b", true);
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()[HOST], "shop.example.com:81");
    }

    #[test]
    fn earlier_hops_are_believed_only_inside_the_mesh() {
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")];
        let (request, _) = prepared(&lines, "/", true);
        assert_eq!(request.headers()[FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 10.0.0.9");
        let (request, _) = prepared(&lines, "/", false);
        assert_eq!(request.headers()[FORWARDED_FOR], "10.0.0.9");
    }
}
