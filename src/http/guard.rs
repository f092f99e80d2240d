//! Who may ask for what.
//!
//! On a loopback address the `Host` header must name a loopback: a web page whose name was re-pointed to 127.0.0.1 (DNS
//! rebinding) gets nothing. On any other address everything but the three open paths needs `http.token`.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};

/// Paths that probes and Prometheus ask for; they tell nothing about anybody.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What the guard needs to know.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) loopback: bool,
    pub(super) token: Option<SecretString>,
}

/// Lets a request through, or answers it.
pub(super) async fn guard(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    match judge(&rules, request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => (status, axum::Json(serde_json::json!({ "error": why }))).into_response(),
    }
}

fn judge(rules: &Rules, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    if rules.loopback {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if !host.is_some_and(names_loopback) {
            return Err((StatusCode::FORBIDDEN, "the Host header must name a loopback address"));
        }
        return Ok(());
    }
    if OPEN.contains(&path) {
        return Ok(());
    }
    let Some(token) = &rules.token else {
        return Err((StatusCode::FORBIDDEN, "set http.token to open this address beyond loopback"));
    };
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match sent.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(sent) if same(sent.as_bytes(), token.expose_secret().as_bytes()) => Ok(()),
        _ => Err((StatusCode::UNAUTHORIZED, "send the token as `Authorization: Bearer <http.token>`")),
    }
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

    fn status(rules: &Rules, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        judge(rules, path, &pairs.collect()).err().map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn on_loopback_the_host_must_be_one() {
        let rules = Rules { loopback: true, token: None };
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert_eq!(status(&rules, "/metrics", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]", "10.0.0.1"] {
            assert_eq!(status(&rules, "/metrics", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(&rules, "/metrics", &[]), 403);
    }

    #[test]
    fn elsewhere_all_but_three_paths_need_the_token() {
        let closed = Rules { loopback: false, token: None };
        let guarded = Rules { loopback: false, token: Some("s3cret".into()) };
        for path in OPEN {
            assert_eq!((status(&closed, path, &[]), status(&guarded, path, &[])), (200, 200));
        }
        assert_eq!(status(&closed, "/", &[("authorization", "Bearer s3cret")]), 403);
        for (header, expected) in [("Bearer s3cret", 200), ("Bearer s3creT", 401), ("Bearer ", 401), ("s3cret", 401)] {
            assert_eq!(status(&guarded, "/", &[("authorization", header)]), expected, "{header}");
        }
        for path in ["/", "/metrics/", "/healthz/x", "//metrics"] {
            assert_eq!(status(&guarded, path, &[]), 401, "{path}");
        }
    }
}
