//! Requests over loopback TCP: each needs the token of the token file, and must not come from a web page.

use crate::{
    error::{Error, Result},
    token::Token,
};
use heptad_api::ErrorCode;
use http::{HeaderMap, Uri, header};

/// Whether a request of this machine may act for the operator.
pub(super) fn permitted(uri: &Uri, headers: &HeaderMap, token: Option<&Token>) -> Result<()> {
    let forbidden = |detail: &str| Err(Error::refused(ErrorCode::Forbidden, detail));
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next().map(|host| host.to_str()), hosts.next()) {
        (Some(Ok(host)), None) if is_local(host) => host,
        _ => return forbidden("the Host header must be localhost, 127.0.0.1 or [::1]"),
    };
    if uri.authority().is_some_and(|authority| !is_local(authority.as_str())) {
        return forbidden("the request names another host");
    }
    let same = |origin: &http::HeaderValue| origin.as_bytes() == format!("http://{host}").as_bytes();
    if !headers.get_all(header::ORIGIN).iter().all(same) {
        return forbidden("the request comes from another web page");
    }
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = given.next().and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match (bearer, token, given.next()) {
        (Some(bearer), Some(token), None) if token.is(bearer) => Ok(()),
        _ => {
            let detail = "send `Authorization: Bearer TOKEN` with the token of the server's token file";
            Err(Error::refused(ErrorCode::Unauthorized, detail))
        }
    }
}

/// Whether a host, with or without a port, is this machine's own name.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    good_port && (name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_local() {
        for good in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:9"] {
            assert!(is_local(good), "{good}");
        }
        for bad in
            ["", "example.com", "localhost.evil.com", "127.0.0.1.evil.com:80", "localhost:x", "::1", "localhost:80:80"]
        {
            assert!(!is_local(bad), "{bad}");
        }
    }
}
