//! Who calls Ably and what they may do: Basic keys and Bearer tokens with capabilities.
//!
//! Asked once per request, then once per channel. Must never repeat a secret in an error.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Refusal, check_channel};
use crate::sandbox::{
    call::Call,
    settings::{Credential, Standing},
};

/// What the caller may do.
#[derive(Debug)]
pub(super) struct Rights {
    credential: Arc<Credential>,
    /// The identity from `X-Ably-ClientId`, which no message may contradict.
    pub client_id: Option<String>,
}

impl Rights {
    /// Checks the channel's name and that the caller may do `operation` on it.
    pub fn check(&self, operation: &str, channel: &str) -> Result<(), Refusal> {
        check_channel(channel)?;
        let allowed = self.credential.capability.iter().any(|(pattern, operations)| {
            covers(pattern, channel) && operations.iter().any(|allowed| allowed == "*" || allowed == operation)
        });
        if allowed {
            return Ok(());
        }
        let message =
            format!("action not permitted: {operation} on channel {channel:?} is not in the key's capability");
        Err(Refusal(401, 40160, message))
    }
}

fn covers(pattern: &str, channel: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(namespace) if namespace.ends_with(':') => channel.starts_with(namespace),
        _ => pattern == channel,
    }
}

/// Returns what the caller of `call` may do, or why it may do nothing.
pub(super) fn authenticate(known: &HashMap<String, Arc<Credential>>, call: &Call) -> Result<Rights, Refusal> {
    let (scheme, value) = call.header("authorization").split_once(' ').unwrap_or_default();
    let decoded = || STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (credential, token) = if scheme.eq_ignore_ascii_case("basic") {
        let key = decoded().filter(|key| key.contains(':'));
        let key = key.ok_or_else(|| Refusal::new(400, 40005, "unreadable key"))?;
        (known.get(&key), false)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        // Base64 is optional for tokens.
        (known.get(value.trim()).or_else(|| known.get(&decoded()?)), true)
    } else {
        return Err(Refusal::new(401, 40101, "no authentication information provided"));
    };
    let credential = match (credential, token) {
        (Some(credential), _) => credential.clone(),
        (None, true) => return Err(Refusal::new(401, 40140, "token unrecognized")),
        (None, false) => return Err(Refusal::new(401, 40101, "invalid credentials")),
    };
    match (credential.standing, token) {
        (Standing::Good, _) => {}
        (Standing::Revoked, true) => return Err(Refusal::new(401, 40141, "token revoked")),
        (Standing::Revoked, false) => return Err(Refusal::new(401, 40131, "key revoked")),
        (Standing::Expired, true) => return Err(Refusal::new(401, 40142, "token expired")),
        (Standing::Expired, false) => return Err(Refusal::new(401, 40132, "key expired")),
        (Standing::Disabled, _) => return Err(Refusal::new(403, 40300, "application disabled")),
    }
    let client_id = match call.header("x-ably-clientid") {
        "" => None,
        encoded => {
            let bytes = STANDARD.decode(encoded).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            Some(text.ok_or_else(|| Refusal::new(400, 40012, "unreadable X-Ably-ClientId"))?)
        }
    };
    Ok(Rights { credential, client_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_channels() {
        let table = [
            ("*", "a:b", true),
            ("a:*", "a:b", true),
            ("a:*", "a:b:c", true),
            ("a:*", "ab", false),
            ("a-*", "a-b", false),
            ("a:b", "a:b", true),
            ("a:b", "a:c", false),
        ];
        for (pattern, channel, expected) in table {
            assert_eq!(covers(pattern, channel), expected, "{pattern} {channel}");
        }
    }
}
