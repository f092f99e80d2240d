//! Who may ask for what.
//!
//! On a loopback address the `Host` header must name a loopback: a web page whose name was re-pointed to 127.0.0.1 (DNS
//! rebinding) gets nothing. On any other address everything but the open paths and the page's own files needs `http.token`.
//! Changing anything needs the token wherever one is set, and a request that no other site's page can make: JSON, with a header
//! of our own, from the same origin. There are no cookies and no CORS headers, so a browser lends nobody's rights to anybody.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};

use super::{answer::Refusal, page};

/// Paths that probes and Prometheus ask for; they tell nothing about anybody.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Whoever changes something sends it, with any value: no form of another site's page can.
const REQUEST: HeaderName = HeaderName::from_static("x-herald-request");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the guard needs to know.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) loopback: bool,
    pub(super) token: Option<SecretString>,
}

/// Lets a request through, or answers it. Every answer says what a browser may do with it.
pub(super) async fn guard(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    let mut answer = match judge(&rules, request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

fn judge(rules: &Rules, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let forbidden = |error: &str, remedy: &str| Err(Refusal::new(StatusCode::FORBIDDEN, error, remedy));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if rules.loopback && !text(headers, header::HOST).is_some_and(names_loopback) {
        return forbidden("the Host header must name a loopback address", "use http://127.0.0.1 or http://localhost");
    }
    if (path.starts_with("/api") || !reads) && !same_origin(headers) {
        return forbidden("another site's page may not ask", "use herald's own page, or the command line");
    }
    if !reads {
        by_intent(headers)?;
    }
    let open = reads && (OPEN.contains(&path) || page::has(path));
    if open || (rules.loopback && (reads || rules.token.is_none())) {
        return Ok(());
    }
    let Some(token) = &rules.token else {
        return forbidden(
            "http.listen is not a loopback address, and there is no http.token",
            "set http.token to open this address beyond loopback",
        );
    };
    let sent = text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    match sent {
        Some(sent) if same(sent.as_bytes(), token.expose_secret().as_bytes()) => Ok(()),
        _ => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "the admin token is needed",
            "send the token as `Authorization: Bearer <http.token>`",
        )),
    }
}

/// Tells whether the request comes from our own page, or from no page at all. Browsers say so themselves; where they do not, over
/// plain HTTP, they still name the origin.
fn same_origin(headers: &HeaderMap) -> bool {
    match (text(headers, FETCH_SITE), text(headers, header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some() && authority == text(headers, header::HOST)
        }
        (None, None) => !headers.contains_key(FETCH_SITE) && !headers.contains_key(header::ORIGIN),
    }
}

/// Refuses a change that some page's form or link could have caused.
fn by_intent(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = text(headers, header::CONTENT_TYPE).map(|kind| kind.split(';').next().unwrap_or_default().trim());
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        let error = "a change is asked for in JSON";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error, "send Content-Type: application/json"));
    }
    if !headers.contains_key(REQUEST) {
        let error = "a change needs a header that only whoever means it can send";
        return Err(Refusal::new(StatusCode::FORBIDDEN, error, "send X-Herald-Request with any value"));
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn names_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Compares without telling by its duration where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(rules: &Rules, method: Method, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        judge(rules, &method, path, &pairs.collect()).err().map_or(200, |refusal| refusal.status())
    }

    fn get(rules: &Rules, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        status(rules, Method::GET, path, headers)
    }

    #[test]
    fn on_loopback_the_host_must_be_one() {
        let rules = Rules { loopback: true, token: None };
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert_eq!(get(&rules, "/metrics", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]", "10.0.0.1"] {
            assert_eq!(get(&rules, "/metrics", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(get(&rules, "/metrics", &[]), 403);
    }

    #[test]
    fn elsewhere_all_but_probes_and_the_pages_files_need_the_token() {
        let closed = Rules { loopback: false, token: None };
        let guarded = Rules { loopback: false, token: Some("s3cret".into()) };
        for path in OPEN.into_iter().chain(["/", "/page/main.js"]) {
            assert_eq!((get(&closed, path, &[]), get(&guarded, path, &[])), (200, 200), "{path}");
        }
        assert_eq!(get(&closed, "/api/status", &[("authorization", "Bearer s3cret")]), 403);
        for (header, expected) in [("Bearer s3cret", 200), ("Bearer s3creT", 401), ("Bearer ", 401), ("s3cret", 401)] {
            assert_eq!(get(&guarded, "/api/status", &[("authorization", header)]), expected, "{header}");
        }
        for path in ["/api/status", "/metrics/", "/healthz/x", "//metrics", "/page/", "/page/../api/status"] {
            assert_eq!(get(&guarded, path, &[]), 401, "{path}");
        }
        assert_eq!(status(&guarded, Method::POST, "/", &[]), 415, "only reading is open");
    }

    #[test]
    fn a_change_is_nothing_that_another_sites_page_can_ask_for() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:8080");
        const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        const OURS: (&str, &str) = ("x-herald-request", "page");
        let post = |token: Option<&str>, headers: &[(&'static str, &str)]| {
            let rules = Rules { loopback: true, token: token.map(Into::into) };
            status(&rules, Method::POST, "/api/steer", headers)
        };
        assert_eq!(post(None, &[HOST, JSON, OURS]), 200);
        assert_eq!(post(None, &[HOST, JSON]), 403);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"] {
            assert_eq!(post(None, &[HOST, OURS, ("content-type", kind)]), 415, "{kind}");
        }
        assert_eq!(post(None, &[HOST, OURS]), 415);
        for (name, value, expected) in [
            ("sec-fetch-site", "same-origin", 200),
            ("sec-fetch-site", "none", 200),
            ("sec-fetch-site", "same-site", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("origin", "http://127.0.0.1:8080", 200),
            ("origin", "http://127.0.0.1:8081", 403),
            ("origin", "http://evil.example", 403),
            ("origin", "null", 403),
        ] {
            assert_eq!(post(None, &[HOST, JSON, OURS, (name, value)]), expected, "{name}: {value}");
        }
        // The token counts on loopback, too, once there is one.
        assert_eq!(post(Some("s3cret"), &[HOST, JSON, OURS]), 401);
        assert_eq!(post(Some("s3cret"), &[HOST, JSON, OURS, ("authorization", "Bearer s3cret")]), 200);
        let rules = Rules { loopback: true, token: Some("s3cret".into()) };
        assert_eq!(get(&rules, "/api/status", &[HOST]), 200, "reading is free on loopback");
        assert_eq!(get(&rules, "/api/status", &[HOST, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(get(&rules, "/", &[HOST, ("sec-fetch-site", "cross-site")]), 200, "a link to the page is one");
    }
}
