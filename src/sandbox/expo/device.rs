//! What a push token stands for: its project, and what becomes of a push to it.
//!
//! Decided by what the control API said about the token, else by the words inside its brackets. Pure.

use serde_json::{Value, json};

use crate::sandbox::settings::Device;

pub(super) const DEFAULT_PROJECT: &str = "@sandbox/app";

/// What becomes of a push to one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Reaches the phone.
    Ok,
    /// Reaches the phone, but there is never a receipt.
    NoReceipt,
    /// Refused at once.
    TicketError(&'static Words),
    /// Refused later.
    ReceiptError(&'static Words),
}

/// An error's code (`None`: without details) and text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub code: Option<&'static str>,
    pub text: &'static str,
}

impl Words {
    /// Returns the error as a ticket or receipt; `token` stands in the text and the details where Expo puts it.
    pub fn value(&self, token: &str) -> Value {
        let mut value = json!({"status": "error", "message": self.text.replace("{token}", token)});
        if let Some(code) = self.code {
            value["details"] = json!({"error": code});
            match code {
                "DeviceNotRegistered" => value["details"]["expoPushToken"] = token.into(),
                "InvalidCredentials" => value["details"]["fault"] = "developer".into(),
                _ => {}
            }
        }
        value
    }
}

static UNREGISTERED: Words =
    Words { code: Some("DeviceNotRegistered"), text: "\"{token}\" is not a registered push notification recipient" };
static CREDENTIALS: Words = Words {
    code: Some("InvalidCredentials"),
    text: "Unable to retrieve the FCM server key for the recipient's app. Make sure you have provided a server key as \
           directed by the Expo FCM documentation.",
};
pub(super) static TOO_BIG: Words =
    Words { code: Some("MessageTooBig"), text: "The total notification payload was too large (maximum 4096 bytes)." };

/// Outcomes by the word that asks for them; a word that contains another stands before it.
static OUTCOMES: [(&str, Outcome); 13] = [
    (
        "receipt-unregistered",
        Outcome::ReceiptError(&Words {
            code: Some("DeviceNotRegistered"),
            text: "The recipient device is not registered with FCM.",
        }),
    ),
    ("receipt-invalid-credentials", Outcome::ReceiptError(&CREDENTIALS)),
    ("no-receipt", Outcome::NoReceipt),
    ("unregistered", Outcome::TicketError(&UNREGISTERED)),
    ("invalid-credentials", Outcome::TicketError(&CREDENTIALS)),
    (
        "unknown-error",
        Outcome::TicketError(&Words { code: Some("SomethingNobodyKnows"), text: "Something nobody knows happened." }),
    ),
    ("no-details", Outcome::TicketError(&Words { code: None, text: "Something went wrong." })),
    (
        "rate",
        Outcome::ReceiptError(&Words {
            code: Some("MessageRateExceeded"),
            text: "Messages are being sent too frequently to the device.",
        }),
    ),
    ("too-big", Outcome::ReceiptError(&TOO_BIG)),
    (
        "provider-error",
        Outcome::ReceiptError(&Words {
            code: Some("ProviderError"),
            text: "The Apple Push Notification service unexpectedly dropped the connection. Retry sending the \
                   notification later.",
        }),
    ),
    (
        "mismatch",
        Outcome::ReceiptError(&Words {
            code: Some("MismatchSenderId"),
            text: "The FCM server key and the sender id of the app do not match.",
        }),
    ),
    ("developer-error", Outcome::ReceiptError(&Words { code: Some("DeveloperError"), text: "The push is wrong." })),
    ("expo-error", Outcome::ReceiptError(&Words { code: Some("ExpoError"), text: "The push service had a problem." })),
];

/// Returns whether `token` is one by the rule of Expo's own SDK.
fn is_token(token: &str) -> bool {
    let bracketed = token.starts_with("ExponentPushToken[") || token.starts_with("ExpoPushToken[");
    let groups: Vec<&str> = token.split('-').collect();
    let uuid = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    bracketed && token.ends_with(']') || uuid
}

/// Returns what becomes of a push to `token`.
pub(super) fn outcome(token: &str, device: Option<&Device>) -> Outcome {
    if !is_token(token) {
        return Outcome::TicketError(&UNREGISTERED);
    }
    let words = device.and_then(|device| device.outcome.as_deref()).unwrap_or(token);
    if words == "ok" {
        return Outcome::Ok;
    }
    let asked = |word: &str| {
        // Whole words only: `[rate-1]`, `[project-b-rate-1]`, but not `[corporate-1]`.
        words.match_indices(word).any(|(at, _)| {
            let before = words[..at].chars().next_back();
            let after = words[at + word.len()..].chars().next();
            before.is_none_or(|c| matches!(c, '[' | '-')) && after.is_none_or(|c| matches!(c, ']' | '-'))
        })
    };
    OUTCOMES.iter().find(|(word, _)| asked(word)).map_or(Outcome::Ok, |(_, outcome)| *outcome)
}

/// Returns the project `token` belongs to, `@owner/slug`.
pub(super) fn project(token: &str, device: Option<&Device>) -> String {
    if let Some(project) = device.and_then(|device| device.project.clone()) {
        return project;
    }
    let inside = token.split_once('[').map_or(token, |(_, inside)| inside);
    let slug = inside.strip_prefix("project-").and_then(|rest| rest.split(['-', ']']).next());
    slug.filter(|slug| !slug.is_empty()).map_or_else(|| DEFAULT_PROJECT.to_owned(), |slug| format!("@sandbox/{slug}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_say_what_becomes_of_a_push() {
        let code = |token: &str| match outcome(token, None) {
            Outcome::Ok => "ok".to_owned(),
            Outcome::NoReceipt => "none".to_owned(),
            Outcome::TicketError(words) => format!("ticket {}", words.code.unwrap_or("-")),
            Outcome::ReceiptError(words) => format!("receipt {}", words.code.unwrap_or("-")),
        };
        let table = [
            ("ExponentPushToken[abc]", "ok"),
            ("ExponentPushToken[corporate-1]", "ok"),
            ("ExponentPushToken[unregistered-1]", "ticket DeviceNotRegistered"),
            ("ExpoPushToken[project-b-unregistered-1]", "ticket DeviceNotRegistered"),
            ("ExponentPushToken[receipt-unregistered-1]", "receipt DeviceNotRegistered"),
            ("ExponentPushToken[rate-1]", "receipt MessageRateExceeded"),
            ("ExponentPushToken[expo-error-1]", "receipt ExpoError"),
            ("ExponentPushToken[no-details-1]", "ticket -"),
            ("ExponentPushToken[no-receipt-1]", "none"),
            ("fcm-token", "ticket DeviceNotRegistered"),
            ("zzzzzzzz-ZZZZ-zzzz-zzzz-zzzzzzzzzzzz", "ok"),
        ];
        for (token, expected) in table {
            assert_eq!(code(token), expected, "{token}");
        }
        let told = Device { outcome: Some("unregistered".to_owned()), ..Device::default() };
        assert!(matches!(outcome("ExponentPushToken[abc]", Some(&told)), Outcome::TicketError(_)));
        let well = Device { outcome: Some("ok".to_owned()), ..Device::default() };
        assert_eq!(outcome("ExponentPushToken[rate-1]", Some(&well)), Outcome::Ok);
    }

    #[test]
    fn tokens_belong_to_a_project() {
        assert_eq!(project("ExponentPushToken[abc]", None), "@sandbox/app");
        assert_eq!(project("ExponentPushToken[project-b-1]", None), "@sandbox/b");
        let device = Device { project: Some("@me/mine".to_owned()), ..Device::default() };
        assert_eq!(project("ExponentPushToken[project-b-1]", Some(&device)), "@me/mine");
    }
}
