//! Refuses requests that a page of another site made its visitor's browser send.
//!
//! A page cannot leave out or choose `Sec-Fetch-Site`, `Origin` and `Host`. `Host` gives away a
//! page whose own name was made to point at this host (DNS rebinding). So only known names are
//! accepted where nobody expects requests from outside: on the unix socket, which is reached
//! through forwarded ports, and on a loopback listener.
//!
//! Pure. This check comes before all others and on every listener, because the browser's user may
//! have every right and still not have meant the request.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderValue, request};

use crate::wire::{Code, ErrorBody};

/// Sent by the console's own page. A page of another site would have to ask first (a CORS
/// preflight), and is refused.
const CONSOLE_HEADER: &str = "x-portok-console";

/// What kind of listener a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    /// The unix socket.
    Socket,
    /// A TCP listener on a loopback address.
    Loopback,
    /// Another TCP listener.
    Open,
}

/// Lets a request pass unless a page of another site made it. `hosts` are the names in
/// `admin.hosts`.
///
/// # Errors
/// `forbidden`, with what gave the request away.
pub(super) fn check(surface: Surface, head: &request::Parts, hosts: &[String]) -> Result<(), ErrorBody> {
    let all = |name: HeaderName| head.headers.get_all(name).into_iter();
    let site = HeaderName::from_static("sec-fetch-site");
    if !all(site).all(|site| site == "none" || site == "same-origin") {
        return Err(refusal("a page of another site made a browser send it (Sec-Fetch-Site)"));
    }
    let from_console = head.headers.get(CONSOLE_HEADER).is_some_and(|value| value == "1");
    if surface == Surface::Socket && head.headers.contains_key(ORIGIN) && !from_console {
        return Err(refusal("a browser sent it (Origin) over the unix socket")
            .with_hint(format!("the console's own page sends `{CONSOLE_HEADER}: 1`")));
    }
    // A target in absolute form names its host itself (RFC 9112, 3.2.2), and HTTP/2 in
    // `:authority`.
    let named = head.uri.authority().map(|authority| Host::of(authority.as_str()));
    let asked: Vec<_> = all(HOST).map(|value| text(value).and_then(Host::of)).chain(named).collect();
    for host in &asked {
        if all(ORIGIN).any(|origin| !is_of(origin, host.as_ref())) {
            return Err(refusal("a page of another site made a browser send it (Origin is not Host)"));
        }
        let is_known = |host: &Host<'_>| {
            host.is_address() || host.is("localhost") || hosts.iter().any(|name| host.is(name))
        };
        if surface != Surface::Open && !host.as_ref().is_some_and(is_known) {
            return Err(refusal("its Host is no name of this admin API")
                .with_hint("use an IP address or localhost, or add the name to admin.hosts"));
        }
    }
    Ok(())
}

fn refusal(what: &str) -> ErrorBody {
    ErrorBody::new(Code::Forbidden, "Forbidden", format!("the request is refused: {what}"))
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// Whether `origin` is a page of `host`. A port that is left out is the scheme's.
fn is_of(origin: &HeaderValue, host: Option<&Host<'_>>) -> bool {
    let Some((scheme, rest)) = text(origin).and_then(|origin| origin.split_once("://")) else { return false };
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (Some(origin), Some(host)) = (Host::of(rest), host) else { return false };
    origin.is(host.name) && origin.port.unwrap_or(usual) == host.port.unwrap_or(usual)
}

/// A host as `Host` names it.
#[derive(Debug, Clone, Copy)]
struct Host<'a> {
    /// An IPv6 address with its brackets.
    name: &'a str,
    port: Option<u16>,
}

impl<'a> Host<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let end =
            if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
        let (name, port) = text.split_at(end);
        let port = match port.strip_prefix(':') {
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if port.is_empty() => None,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { name: name.strip_suffix('.').unwrap_or(name), port })
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn is_address(&self) -> bool {
        let six = self.name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        self.name.parse::<Ipv4Addr>().is_ok() || six.is_some_and(|six| six.parse::<Ipv6Addr>().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn passes(surface: Surface, uri: &str, headers: Headers<'_>) -> bool {
        let mut request = http::Request::builder().method("POST").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        check(surface, &head, &["ops.example.com".to_owned()])
            .inspect_err(|refusal| assert_eq!(refusal.code, Code::Forbidden))
            .is_ok()
    }

    const ALL: [Surface; 3] = [Surface::Socket, Surface::Loopback, Surface::Open];

    #[test]
    fn pages_of_other_sites_are_refused_everywhere() {
        let refused: [Headers<'_>; 14] = [
            &[("host", "127.0.0.1:3000"), ("sec-fetch-site", "cross-site")],
            &[("host", "127.0.0.1:3000"), ("sec-fetch-site", "same-site")],
            &[("host", "127.0.0.1:3000"), ("sec-fetch-site", "")],
            &[("host", "127.0.0.1"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("host", "127.0.0.1:3000"), ("origin", "https://evil.example")],
            &[("host", "127.0.0.1:3000"), ("origin", "http://127.0.0.1:3001")],
            &[("host", "127.0.0.1:3000"), ("origin", "http://127.0.0.1")],
            &[("host", "127.0.0.1:3000"), ("origin", "http://127.0.0.1:3000/x")],
            &[("host", "127.0.0.1:3000"), ("origin", "null")],
            &[("host", "127.0.0.1:3000"), ("origin", "")],
            &[("host", "localhost"), ("origin", "file://localhost")],
            &[("host", "localhost"), ("origin", "https://localhost:80")],
            &[("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")],
        ];
        for surface in ALL {
            for headers in refused {
                let with_console = [headers, &[(CONSOLE_HEADER, "1")]].concat();
                assert!(!passes(surface, "/__reload", headers), "{surface:?} {headers:?}");
                assert!(!passes(surface, "/__reload", &with_console), "{surface:?} {headers:?}");
            }
        }
    }

    #[test]
    fn who_is_no_browser_and_a_page_of_this_very_host_pass() {
        for surface in ALL {
            for headers in [
                &[][..],
                &[("host", "127.0.0.1:3000")],
                &[("host", "[::1]:3000")],
                &[("host", "LocalHost")],
                &[("host", "localhost.:3000")],
                &[("host", "10.1.2.3")],
                &[("host", "OPS.example.com:8443")],
                &[("host", "127.0.0.1:3000"), ("sec-fetch-site", "none")],
                &[("host", "127.0.0.1:3000"), ("sec-fetch-site", "same-origin")],
            ] {
                assert!(passes(surface, "/__status", headers), "{surface:?} {headers:?}");
            }
            for (host, origin) in [
                ("localhost:3000", "http://localhost:3000"),
                ("localhost", "http://localhost:80"),
                ("localhost:443", "https://localhost"),
                ("[::1]:3000", "http://[::1]:3000"),
            ] {
                let headers = [("host", host), ("origin", origin)];
                assert_eq!(passes(surface, "/__reload", &headers), surface != Surface::Socket, "{headers:?}");
                let from_console = [headers[0], headers[1], (CONSOLE_HEADER, "1")];
                assert!(passes(surface, "/__reload", &from_console), "{surface:?} {headers:?}");
            }
        }
    }

    #[test]
    fn a_name_that_points_here_is_no_name_of_this_api() {
        for host in [
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example",
            "",
            ":3000",
            "::1",
            "[::1",
            "1.2.3",
            "a b",
        ] {
            for surface in [Surface::Socket, Surface::Loopback] {
                assert!(!passes(surface, "/__status", &[("host", host)]), "{surface:?} {host:?}");
            }
            assert!(passes(Surface::Open, "/__status", &[("host", host)]), "{host:?}");
        }
        assert!(!passes(Surface::Loopback, "http://evil.example/__status", &[("host", "localhost")]));
        assert!(passes(Surface::Loopback, "http://localhost:3000/__status", &[("host", "localhost:3000")]));
        assert!(!passes(Surface::Loopback, "/__status", &[("host", "localhost"), ("host", "evil.example")]));
    }
}
