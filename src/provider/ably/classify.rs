//! What Ably's refusals mean: by HTTP status first, by code second (Ably renumbered its 429 codes over time).
//!
//! Called with every answer that is not a success and with every item of a batch that failed. Pure. The codes are those of
//! <https://ably.com/docs/platform/errors/codes>.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    domain::outcome::{Failure, FailureKind},
    provider::http::{Reply, excerpt, retry_after},
};

/// Whom a refusal concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The provider as a whole: the gate hears of it.
    Provider,
    /// This very item.
    Item,
}

/// A failure and whom it concerns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) failure: Failure,
    pub(super) scope: Scope,
}

/// Used-up quotas of the account return with the next day or contract, not in a second.
const QUOTA: Duration = Duration::from_secs(300);

/// Ably's error object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ErrorInfo {
    pub(super) code: Option<u32>,
    pub(super) status_code: Option<u16>,
    pub(super) message: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorInfo,
}

/// Returns what an answer without success means: its body's error, else the headers, else the status alone.
pub(super) fn fault(reply: &Reply) -> Fault {
    let header = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok());
    let info = serde_json::from_slice::<ErrorBody>(&reply.body).map(|body| body.error).unwrap_or_default();
    let code = info.code.or_else(|| header("x-ably-errorcode")?.parse().ok());
    let text = info.message.or_else(|| header("x-ably-errormessage").map(str::to_owned));
    let mut fault = described(reply.status, code, text.unwrap_or_else(|| excerpt(&reply.body)));
    fault.failure.status = Some(reply.status);
    if fault.failure.kind == FailureKind::Throttled {
        fault.failure.retry_after = retry_after(&reply.headers).or(fault.failure.retry_after);
    }
    fault
}

/// Returns what the error of one item of a batch means.
pub(super) fn item_fault(info: ErrorInfo) -> Fault {
    // Ably's codes begin with the status they belong to.
    let by_code = info.code.map(|code| (code / 100) as u16);
    let status = info.status_code.or(by_code).unwrap_or(500);
    described(status, info.code, info.message.unwrap_or_default())
}

/// Tells whether the answer is the partial failure of a batch in the shape of Ably's protocol before version 3.
pub(super) fn is_legacy_partial(reply: &Reply) -> bool {
    reply.status == 400 && fault(reply).failure.code == "40020"
}

fn described(status: u16, code: Option<u32>, text: String) -> Fault {
    let (kind, scope) = classify(status, code);
    let hint = match status {
        300..400 | 404 | 405 if kind == FailureKind::Unauthorised => " (is ably.url right?)",
        _ => "",
    };
    let name = code.map_or_else(|| format!("http_{status}"), |code| code.to_string());
    let quota = matches!(code, Some(40112 | 40114 | 40115)).then_some(QUOTA);
    let failure = Failure::new(kind, name, format!("{text}{hint}")).with_retry_after(quota);
    Fault { failure, scope }
}

/// Returns the kind of a refusal and whom it concerns.
pub(super) fn classify(status: u16, code: Option<u32>) -> (FailureKind, Scope) {
    use FailureKind::{Rejected, Throttled, Transient, Unauthorised, Unknown};
    match (status, code) {
        // Volume, channel count and request volume of the account are used up.
        (400..500, Some(40112 | 40114 | 40115)) => (Throttled, Scope::Provider),
        // The key is good but may not do this on this channel.
        (400..500, Some(40160)) => (Unauthorised, Scope::Item),
        // Keys, tokens, disabled accounts and apps; 40005 is an unreadable key, 40017 a protocol version Ably dropped.
        (400..500, Some(40005 | 40017 | 40100..=40199 | 40300)) | (401 | 403 | 407, _) => {
            (Unauthorised, Scope::Provider)
        }
        // A wrong address, or an unknown app or key (an unknown channel is an empty one, never this).
        (300..400 | 404 | 405, _) => (Unauthorised, Scope::Provider),
        (429, Some(42913 | 42914)) => (Throttled, Scope::Item),
        (429, _) | (400..500, Some(90021)) => (Throttled, Scope::Provider),
        (408 | 425, _) => (Transient, Scope::Provider),
        (400..500, Some(_)) | (400 | 413 | 414 | 422, None) => (Rejected, Scope::Item),
        // Something between us and Ably refuses; no event is to be blamed for that.
        (400..500, None) => (Transient, Scope::Provider),
        // "A timed-out publish may still have been processed."
        (504, _) | (500.., Some(50003 | 50405 | 50410)) => (Unknown, Scope::Provider),
        _ => (Transient, Scope::Provider),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn every_refusal_of_the_reference_has_its_class() {
        use FailureKind::*;
        let rows: &[(u16, &[u32], FailureKind, Scope)] = &[
            (
                400,
                &[40000, 40001, 40003, 40006, 40010, 40012, 40013, 40030, 40031, 40032, 40034],
                Rejected,
                Scope::Item,
            ),
            (400, &[40020, 40099], Rejected, Scope::Item),
            (413, &[40009], Rejected, Scope::Item),
            (400, &[40005, 40017], Unauthorised, Scope::Provider),
            (
                401,
                &[40100, 40101, 40102, 40103, 40110, 40113, 40120, 40130, 40131, 40132],
                Unauthorised,
                Scope::Provider,
            ),
            (401, &[40140, 40142, 40149, 40161, 40162, 40170, 40171, 40172], Unauthorised, Scope::Provider),
            (403, &[40300, 40110, 40120], Unauthorised, Scope::Provider),
            (401, &[40112], Throttled, Scope::Provider),
            (403, &[40114, 40115], Throttled, Scope::Provider),
            (401, &[40160], Unauthorised, Scope::Item),
            (404, &[40400], Unauthorised, Scope::Provider),
            (422, &[42200, 42210, 42211, 42212, 42213], Rejected, Scope::Item),
            (429, &[42913, 42914], Throttled, Scope::Item),
            (
                429,
                &[42910, 42911, 42912, 42917, 42918, 42920, 42921, 42922, 42924, 42925, 42926],
                Throttled,
                Scope::Provider,
            ),
            (429, &[90021], Throttled, Scope::Provider),
            (400, &[90021], Throttled, Scope::Provider),
            (500, &[50000, 50001, 50002, 50004, 50005, 50010, 50320, 50330], Transient, Scope::Provider),
            (502, &[50205, 50210], Transient, Scope::Provider),
            (503, &[50305, 50306, 50310, 50004], Transient, Scope::Provider),
            (500, &[50003], Unknown, Scope::Provider),
            (503, &[50003], Unknown, Scope::Provider),
            (504, &[50405, 50410], Unknown, Scope::Provider),
        ];
        for (status, codes, kind, scope) in rows {
            for code in *codes {
                assert_eq!(classify(*status, Some(*code)), (*kind, *scope), "{status}/{code}");
            }
        }
    }

    #[test]
    fn a_status_alone_has_a_class_too() {
        use FailureKind::*;
        for (status, kind, scope) in [
            (301, Unauthorised, Scope::Provider),
            (400, Rejected, Scope::Item),
            (401, Unauthorised, Scope::Provider),
            (403, Unauthorised, Scope::Provider),
            (404, Unauthorised, Scope::Provider),
            (405, Unauthorised, Scope::Provider),
            (407, Unauthorised, Scope::Provider),
            (408, Transient, Scope::Provider),
            (413, Rejected, Scope::Item),
            (414, Rejected, Scope::Item),
            (418, Transient, Scope::Provider),
            (429, Throttled, Scope::Provider),
            (500, Transient, Scope::Provider),
            (502, Transient, Scope::Provider),
            (503, Transient, Scope::Provider),
            (504, Unknown, Scope::Provider),
            (520, Transient, Scope::Provider),
        ] {
            assert_eq!(classify(status, None), (kind, scope), "{status}");
        }
    }

    fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Reply {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Reply { status, headers: HeaderMap::from_iter(headers), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn the_body_tells_before_the_headers_and_these_before_the_status() {
        let headers = [("x-ably-errorcode", "42922"), ("x-ably-errormessage", "from the edge"), ("retry-after", "7")];
        let body = r#"{"error":{"code":42918,"statusCode":429,"message":"API rate","href":null,"detail":{}}}"#;
        for (reply, code, detail) in [
            (reply(429, &headers, body), "42918", "API rate"),
            (reply(429, &headers, ""), "42922", "from the edge"),
            (reply(429, &[], "<html>\nslow"), "http_429", "<html> slow"),
            (reply(429, &[], r#"{"error":"text"}"#), "http_429", r#"{"error":"text"}"#),
        ] {
            let Fault { failure, .. } = fault(&reply);
            assert_eq!((failure.code.as_str(), failure.detail.as_str(), failure.status), (code, detail, Some(429)));
        }
        assert_eq!(fault(&reply(429, &headers, body)).failure.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(fault(&reply(503, &headers, "")).failure.retry_after, None);
        assert_eq!(fault(&reply(401, &[("x-ably-errorcode", "40112")], "")).failure.retry_after, Some(QUOTA));
        assert!(fault(&reply(404, &[], "")).failure.detail.contains("ably.url"));
    }

    #[test]
    fn an_item_is_judged_by_its_own_status_or_else_by_its_code() {
        let info = |code, status_code| ErrorInfo { code, status_code, message: None };
        for (info, kind) in [
            (info(Some(40160), Some(401)), FailureKind::Unauthorised),
            (info(Some(40160), None), FailureKind::Unauthorised),
            (info(Some(42913), None), FailureKind::Throttled),
            (info(Some(40009), None), FailureKind::Rejected),
            (info(Some(50003), None), FailureKind::Unknown),
            (info(None, Some(400)), FailureKind::Rejected),
            (info(None, None), FailureKind::Transient),
        ] {
            assert_eq!(item_fault(info.clone()).failure.kind, kind, "{info:?}");
        }
    }
}
