//! What Expo's refusals mean: of one notification, and of a whole request.
//!
//! Called with every ticket, receipt and answer that is not a success. Pure. Expo's set of errors is open.

use crate::{
    domain::outcome::{Failure, FailureKind},
    provider::http::{Reply, excerpt, retry_after},
};

use super::wire::{self, Verdict};

/// Returns what a ticket or receipt with an error means, its texts without `token`.
pub(super) fn item_failure(verdict: &Verdict, token: Option<&str>) -> Failure {
    let kind = item_kind(verdict.error(), verdict.fcm_error());
    let code = match (verdict.error(), verdict.fcm_error()) {
        (Some("ProviderError"), Some(fcm)) if kind == FailureKind::Unauthorised => fcm,
        (Some(error), _) => error,
        (None, _) => "unnamed",
    };
    Failure::new(kind, scrub(code, token), scrub(verdict.message.as_deref().unwrap_or_default(), token))
}

/// Returns the kind of a ticket's or receipt's error.
fn item_kind(error: Option<&str>, fcm: Option<&str>) -> FailureKind {
    match error {
        Some("DeviceNotRegistered") => FailureKind::Unregistered,
        // The project's own credentials at Apple or Google; the token is not at fault.
        Some("InvalidCredentials" | "MismatchSenderId") => FailureKind::Unauthorised,
        Some("ProviderError") if fcm == Some("MismatchSenderId") => FailureKind::Unauthorised,
        // Too much for this device; says nothing about others.
        Some("MessageRateExceeded") => FailureKind::Throttled,
        Some("ProviderError" | "ExpoError") => FailureKind::Transient,
        // MessageTooBig, DeveloperError, and what nobody knows yet: never for ever.
        Some(_) | None => FailureKind::Rejected,
    }
}

/// Takes `tokens` out of a text; Expo quotes tokens, and not all have the form that is recognised everywhere.
pub(super) fn scrub<'a>(text: &str, tokens: impl IntoIterator<Item = &'a str>) -> String {
    let tokens = tokens.into_iter().filter(|token| !token.is_empty());
    tokens.fold(text.to_owned(), |text, token| text.replace(token, "[push token]"))
}

/// What an answer that is not a success means for the request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refused {
    /// The request as a whole failed, and no message is at fault.
    Whole(Failure),
    /// The messages belong to several projects.
    Mix(wire::RequestError, Failure),
    /// One message (or the number of them) is at fault; alone it fails like this.
    Items(wire::RequestError, Failure),
}

/// Returns what `reply`, which is not a success, means, its texts without `tokens`.
pub(super) fn refused<'a>(reply: &Reply, tokens: impl IntoIterator<Item = &'a str> + Clone) -> Refused {
    let status = reply.status;
    let error = wire::request_error(&reply.body);
    let code = error.as_ref().and_then(|error| error.code.clone());
    let kind = request_kind(status, code.as_deref(), error.is_some());
    let hint = match status {
        300..400 | 404 | 405 => " (is expo.url right?)",
        _ => "",
    };
    let text =
        error.as_ref().map_or_else(|| String::from_utf8_lossy(&reply.body), |error| error.message.as_str().into());
    let text = scrub(&text, tokens.clone());
    let text = if error.is_some() { text } else { excerpt(text.as_bytes()) };
    let name = code.as_deref().map_or_else(|| format!("http_{status}"), |code| scrub(code, tokens));
    let wait = (kind == FailureKind::Throttled).then(|| retry_after(&reply.headers)).flatten();
    let failure = Failure::new(kind, name, format!("{text}{hint}")).with_status(status).with_retry_after(wait);
    match (kind, code.as_deref(), error) {
        (FailureKind::Rejected, Some("PUSH_TOO_MANY_EXPERIENCE_IDS"), Some(error)) => Refused::Mix(error, failure),
        (FailureKind::Rejected, _, error) => Refused::Items(error.unwrap_or_default(), failure),
        _ => Refused::Whole(failure),
    }
}

/// Returns the kind of a refused request: by its status first. `ours` tells that the body is an error of Expo's.
fn request_kind(status: u16, code: Option<&str>, ours: bool) -> FailureKind {
    match (status, code) {
        (429, _) | (400..500, Some("TOO_MANY_REQUESTS")) => FailureKind::Throttled,
        (401 | 403 | 407, _) | (400..500, Some("UNAUTHORIZED" | "invalid_token")) => FailureKind::Unauthorised,
        // Nobody serves pushes at this address.
        (300..400 | 404 | 405, _) => FailureKind::Unauthorised,
        (408 | 425, _) => FailureKind::Transient,
        (400..500, _) if ours || matches!(status, 400 | 413 | 422) => FailureKind::Rejected,
        // Something between us and Expo refuses; no event is to be blamed for that.
        (400..500, _) => FailureKind::Transient,
        // Expo was seen to deliver what it had answered 5xx to, and drops no repeats.
        _ => FailureKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_error_of_a_ticket_or_receipt_has_its_class() {
        use FailureKind::*;
        for (details, kind, code) in [
            (json!({ "error": "DeviceNotRegistered" }), Unregistered, "DeviceNotRegistered"),
            (json!({ "error": "InvalidCredentials", "fault": "developer" }), Unauthorised, "InvalidCredentials"),
            (json!({ "error": "MismatchSenderId" }), Unauthorised, "MismatchSenderId"),
            (
                json!({ "error": "ProviderError", "fcm": { "error": "MismatchSenderId" } }),
                Unauthorised,
                "MismatchSenderId",
            ),
            (json!({ "error": "ProviderError", "fcm": { "error": "other" } }), Transient, "ProviderError"),
            (json!({ "error": "ProviderError", "errorCodeEnum": 1 }), Transient, "ProviderError"),
            (json!({ "error": "ExpoError" }), Transient, "ExpoError"),
            (json!({ "error": "MessageRateExceeded" }), Throttled, "MessageRateExceeded"),
            (json!({ "error": "MessageTooBig" }), Rejected, "MessageTooBig"),
            (json!({ "error": "DeveloperError" }), Rejected, "DeveloperError"),
            (json!({ "error": "BrandNew" }), Rejected, "BrandNew"),
            (json!({}), Rejected, "unnamed"),
            (json!(null), Rejected, "unnamed"),
        ] {
            let verdict = json!({ "status": "error", "message": "m", "details": details });
            let failure = item_failure(&serde_json::from_value(verdict).unwrap(), None);
            assert_eq!((failure.kind, failure.code.as_str()), (kind, code), "{details}");
        }
    }

    #[test]
    fn a_token_of_the_old_form_is_taken_out_too() {
        let token = "f5741a13-bcda-434b-a316-5dc0e6ffa94f";
        let verdict = json!({ "status": "error", "message": format!("\"{token}\" is not registered") });
        let failure = item_failure(&serde_json::from_value(verdict).unwrap(), Some(token));
        assert_eq!(failure.detail, "\"[push token]\" is not registered");
        assert_eq!(scrub("text", [""]), "text");
    }

    #[test]
    fn every_refusal_of_a_request_has_its_class() {
        use FailureKind::*;
        let error = |code: &str| json!({ "errors": [{ "code": code, "message": "m" }] }).to_string();
        let oauth = r#"{"error":"invalid_token","error_description":"no"}"#.to_owned();
        let html = "<html>504 Gateway Time-out</html>".to_owned();
        for (status, body, kind) in [
            (429, error("TOO_MANY_REQUESTS"), Throttled),
            (429, html.clone(), Throttled),
            (400, error("TOO_MANY_REQUESTS"), Throttled),
            (400, error("PUSH_TOO_MANY_EXPERIENCE_IDS"), Rejected),
            (400, error("PUSH_TOO_MANY_NOTIFICATIONS"), Rejected),
            (400, error("VALIDATION_ERROR"), Rejected),
            (400, error("API_ERROR"), Rejected),
            (400, html.clone(), Rejected),
            (413, html.clone(), Rejected),
            (409, error("NEW"), Rejected),
            (418, html.clone(), Transient),
            (408, String::new(), Transient),
            (401, oauth, Unauthorised),
            (403, error("UNAUTHORIZED"), Unauthorised),
            (403, html.clone(), Unauthorised),
            (400, error("UNAUTHORIZED"), Unauthorised),
            (302, String::new(), Unauthorised),
            (404, html.clone(), Unauthorised),
            (500, error("INTERNAL_SERVER_ERROR"), Unknown),
            (502, html.clone(), Unknown),
            (504, html, Unknown),
        ] {
            let reply = Reply { status, headers: HeaderMap::new(), body: Bytes::from(body.clone()) };
            let (Refused::Whole(failure) | Refused::Mix(_, failure) | Refused::Items(_, failure)) = refused(&reply, []);
            assert_eq!((failure.kind, failure.status), (kind, Some(status)), "{status} {body}");
        }
    }
}
