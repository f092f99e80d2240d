//! Bounding and redacting texts that come from outside before they become part of a failure, a log line or a header.
//!
//! Called wherever a provider's, broker's or database's words are kept. Must never let a push token or a secret through.

/// Longest text kept from outside, in bytes.
pub const MAX_DETAIL: usize = 300;

/// Returns `text` cut to 300 bytes at a character boundary, with control characters replaced by spaces and
/// push tokens, credentials in URLs and bearer or basic credentials taken out.
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_DETAIL));
    let mut rest = text;
    while let Some((at, len, replacement)) = next_secret(rest) {
        clean.push_str(&rest[..at]);
        clean.push_str(replacement);
        rest = &rest[at + len..];
    }
    clean.push_str(rest);
    bounded(&clean.replace(|c: char| c.is_control(), " "), MAX_DETAIL)
}

/// Returns `text` cut to at most `max` bytes at a character boundary, with `…` where something was cut.
pub fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Finds the first secret in `text`: where it starts, how long it is, and what stands in its place.
fn next_secret(text: &str) -> Option<(usize, usize, &'static str)> {
    let token = ["ExponentPushToken[", "ExpoPushToken["].into_iter().filter_map(|open| {
        let at = text.find(open)?;
        let len = text[at..].find(']').map_or(text.len() - at, |end| end + 1);
        Some((at, len, "[push token]"))
    });
    let credentials = ["Bearer ", "Basic ", "bearer ", "basic "].into_iter().filter_map(|scheme| {
        let at = text.find(scheme)? + scheme.len();
        let len = text[at..].find(|c: char| c.is_whitespace() || c == '"').unwrap_or(text.len() - at);
        (len > 0).then_some((at, len, "[redacted]"))
    });
    // The first URL with credentials, which need not be the first URL.
    let userinfo = text.match_indices("://").find_map(|(scheme, _)| {
        let at = scheme + 3;
        let authority = text[at..].find(['/', ' ', '"', '?']).unwrap_or(text.len() - at);
        let len = text[at..at + authority].rfind('@')?;
        (&text[at..at + len] != "[redacted]").then_some((at, len, "[redacted]"))
    });
    token.chain(credentials).chain(userinfo).min_by_key(|(at, ..)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out() {
        for (text, expected) in [
            ("plain", "plain"),
            ("\"ExponentPushToken[abc]\" is not", "\"[push token]\" is not"),
            ("ExpoPushToken[a] and ExpoPushToken[b]", "[push token] and [push token]"),
            ("ExponentPushToken[cut off", "[push token]"),
            ("amqp://guest:secret@host/%2f failed", "amqp://[redacted]@host/%2f failed"),
            ("https://host/a@b", "https://host/a@b"),
            ("see https://host/ for amqp://u:secret@host/", "see https://host/ for amqp://[redacted]@host/"),
            ("header Bearer abc.def rest", "header Bearer [redacted] rest"),
            ("line\nbreak\0", "line break "),
        ] {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let cut = bounded(&"ü".repeat(400), MAX_DETAIL);
        assert!(cut.len() <= MAX_DETAIL && cut.ends_with('…'));
        assert_eq!(bounded("short", 300), "short");
    }
}
