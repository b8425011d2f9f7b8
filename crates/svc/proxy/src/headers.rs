//! What a gateway changes in the head of a request or response (RFC 9110, 7.6): removes fields of one hop and those
//! that only proxies may send, adds `Forwarded` and its like and `X-Request-Id`, keeps `Host`. Refuses ambiguous heads.
//! Does not know where the message goes.

use crate::assertion;
use heptad_model::ServiceKey;
use heptad_route::Headers;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version,
    header::{
        self, CONNECTION, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
    uri::{Authority, PathAndQuery},
};
use std::borrow::Cow;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Every field with such a name describes earlier hops.
const FORWARDED_PREFIX: &str = "x-forwarded-";
/// The same from other gateways, and fields that some servers trust for the path or the client over the request itself.
const FORWARDED_LIKE: [HeaderName; 9] = [
    FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-original-forwarded-for"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];
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

/// What a request gains on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    /// The client's address, for `X-Forwarded-For`.
    pub(crate) peer: Option<&'a HeaderValue>,
    /// Whether the client's account of earlier hops is believed.
    pub(crate) trusts_client: bool,
    /// The addressed service: the `Host` if the client sent none.
    pub(crate) target: &'a ServiceKey,
    pub(crate) request_id: u64,
}

/// The host of `HOST` or `HOST:PORT`.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // Colons inside the brackets of an IPv6 address do not begin a port.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

/// Refuses a request that others on its way might take for another one: its host must be unambiguous.
pub(crate) fn clear<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut lines = request.headers().get_all(HOST).iter();
    let host = lines.next();
    if lines.next().is_some() {
        return Err("it has more than one Host");
    }
    let authority = |text: &str| text.parse::<Authority>().ok().filter(|parsed| !parsed.as_str().contains('@'));
    let host = match host.map(HeaderValue::to_str) {
        None | Some(Ok("")) => None,
        Some(Ok(text)) => Some(authority(text).ok_or("its Host is none")?),
        Some(Err(_)) => return Err("its Host is none"),
    };
    let Some(target) = request.uri().authority() else { return Ok(()) };
    if target.as_str().contains('@') {
        return Err("its target names a user");
    }
    let port = |authority: &Authority| authority.port_u16().unwrap_or(80);
    let is_same = |host: &Authority| host.host().eq_ignore_ascii_case(target.host()) && port(host) == port(target);
    if host.as_ref().is_some_and(|host| !is_same(host)) {
        return Err("its target and its Host name different hosts");
    }
    Ok(())
}

/// Prepares a request for the next hop. Returns whether it asks for another protocol, such as WebSocket.
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
    forwarded(headers, hop);
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

/// The requested protocol; HTTP/2 over cleartext is not passed on, because its frames could not be decided on.
fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let listed = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    (listed && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Fields that reach the last recipient whatever `Connection` says: a client must not be able to remove what the
/// endpoint decides by.
const END_TO_END: [HeaderName; 42] = [
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::FORWARDED,
    header::FROM,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::ORIGIN,
    header::RANGE,
    header::REFERER,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::USER_AGENT,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
];
/// The same for all names with this prefix.
const END_TO_END_PREFIXES: [&str; 8] =
    [FORWARDED_PREFIX, "access-control-", "content-", "sec-", "trace", "x-api-", "x-auth-", "x-request"];

fn is_end_to_end(name: &HeaderName) -> bool {
    END_TO_END.contains(name) || END_TO_END_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Removes the fields that are meant for one hop only.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_options(headers)
            .filter(|option| !option.eq_ignore_ascii_case("close") && !option.eq_ignore_ascii_case("keep-alive"))
            .filter_map(|option| option.parse().ok())
            .filter(|name| !is_end_to_end(name))
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

/// Records which client came here, by which hosts. An outside client's account of earlier hops is not believed.
fn forwarded(headers: &mut HeaderMap, hop: &Hop<'_>) {
    if !hop.trusts_client {
        let is_said = |name: &&HeaderName| {
            // CGI servers confuse the two.
            let name = name.as_str().replace('_', "-");
            name.starts_with(FORWARDED_PREFIX) || FORWARDED_LIKE.iter().any(|like| like.as_str() == name)
        };
        let said: Vec<HeaderName> = headers.keys().filter(is_said).cloned().collect();
        for name in said {
            headers.remove(name);
        }
    }
    let Some(peer) = hop.peer else { return };
    let host = headers.get(HOST).cloned();
    let element = forwarded_element(peer, host.as_ref());
    append(headers, FORWARDED_FOR, peer);
    // Callers in the mesh that name no client have none.
    if !hop.trusts_client || headers.contains_key(FORWARDED) {
        element.iter().for_each(|element| append(headers, FORWARDED, element));
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = host.filter(|_| !headers.contains_key(FORWARDED_HOST)) {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// One hop in the notation of RFC 7239.
fn forwarded_element(peer: &HeaderValue, host: Option<&HeaderValue>) -> Option<HeaderValue> {
    let peer = peer.to_str().ok()?;
    let node = if peer.contains(':') { format!("\"[{peer}]\"") } else { peer.to_owned() };
    let host = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
    let host = host.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    HeaderValue::try_from(format!("for={node}{host};proto=http")).ok()
}

/// Appends to a list that may span several lines.
fn append(headers: &mut HeaderMap, name: HeaderName, last: &HeaderValue) {
    let earlier = View(headers).get(name.as_str()).map(Cow::into_owned);
    let all = earlier.and_then(|earlier| HeaderValue::try_from(format!("{earlier}, {}", last.to_str().ok()?)).ok());
    headers.insert(name, all.unwrap_or_else(|| last.clone()));
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
        let kept = ["x-kept", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];
        assert_eq!(names.len(), kept.len(), "{names:?}");
        assert!(kept.iter().all(|name| names.contains(name)), "{names:?}");
        assert!(!upgrades);
    }

    #[test]
    fn what_is_for_the_endpoint_is_not_taken_away_by_connection() {
        let named =
            ["authorization", "cookie", "content-type", "x-forwarded-for", "x-request-id", "x-api-key", "range"];
        let connection = format!("host, {}", named.join(", "));
        let mut lines = vec![("connection", connection.as_str()), ("host", "shop")];
        lines.extend(named.iter().map(|name| (*name, "1")));
        let (request, _) = prepared(&lines, "/", true);
        assert_eq!(request.headers()[HOST], "shop");
        for name in named {
            assert!(request.headers().contains_key(name), "{name} is gone");
        }
    }

    #[test]
    fn a_head_has_one_host() {
        let is_clear = |uri: &str, lines: &[&'static [u8]]| {
            let mut request = Request::builder().uri(uri).body(()).expect("a request");
            for line in lines {
                request.headers_mut().append(HOST, HeaderValue::from_bytes(line).expect("a value"));
            }
            clear(&request).is_ok()
        };
        for (uri, lines) in [
            ("/", &[&b"a"[..]][..]),
            ("/", &[]),
            ("/", &[b""]),
            ("/", &[b"[::1]:80"]),
            ("/", &[b"a.example.com:8080"]),
            ("http://a/", &[b"a"]),
            ("http://A:80/", &[b"a"]),
            ("http://a/", &[]),
        ] {
            assert!(is_clear(uri, lines), "{uri} {lines:?}");
        }
        for (uri, lines) in [
            ("/", &[&b"a"[..], b"b"][..]),
            ("/", &[b"a", b"a"]),
            ("/", &[b"", b"a"]),
            ("/", &[b"a b"]),
            ("/", &[b"a/b"]),
            ("/", &[b"user@a"]),
            ("/", &[b"a\xff"]),
            ("http://a/", &[b"b"]),
            ("http://a/", &[b"a:81"]),
            ("http://user@a/", &[]),
        ] {
            assert!(!is_clear(uri, lines), "{uri} {lines:?}");
        }
    }

    #[test]
    fn a_port_is_no_part_of_a_host() {
        for (given, host) in [("a", "a"), ("a:80", "a"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]"), ("a.", "a.")] {
            assert_eq!(host_of(given), host);
        }
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
        let (request, _) = prepared(&[("host", "shop.example.com:81")], "http://shop.example.com:81/a?b", true);
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
        let lines = [("forwarded", "for=1.1.1.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "shop")];
        let (request, _) = prepared(&lines, "/", true);
        assert_eq!(request.headers()[FORWARDED], "for=1.1.1.1, for=10.0.0.9;host=\"web.default.internal\";proto=http");
        assert_eq!(request.headers()[FORWARDED_PROTO], "https");
        assert_eq!(request.headers()[FORWARDED_HOST], "shop");
    }
}
