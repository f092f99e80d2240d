//! What an Expo push token looks like.
//!
//! Called by the worker before it sends. The rule is that of the official SDK, so that both accept the same tokens.

/// Tells whether `token` looks like an Expo push token, by the rule of the official SDK's `isExpoPushToken`.
pub fn is_push_token(token: &str) -> bool {
    let bracketed = token.starts_with("ExponentPushToken[") || token.starts_with("ExpoPushToken[");
    (bracketed && token.ends_with(']')) || is_uuid_like(token)
}

/// The old form: groups of letters and digits (not only hexadecimal ones) as in a UUID.
fn is_uuid_like(token: &str) -> bool {
    let groups: Vec<&str> = token.split('-').collect();
    let alphanumeric = |group: &&str| group.bytes().all(|byte| byte.is_ascii_alphanumeric());
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_as_the_official_sdk_tells_them() {
        for (token, expected) in [
            ("ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]", true),
            ("ExponentPushToken[]", true),
            ("ExpoPushToken[a]", true),
            ("ExponentPushToken[a]x]", true),
            ("ExponentPushToken[\n]", true),
            ("exponentPushToken[a]", false),
            ("ExponentPushToken[a] ", false),
            (" ExponentPushToken[a]", false),
            ("ExponentPushToken[a", false),
            ("ExponentPushToken", false),
            ("f5741a13-bcda-434b-a316-5dc0e6ffa94f", true),
            ("F5741A13-BCDA-434B-A316-5DC0E6FFA94F", true),
            ("zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", true),
            ("f5741a13-bcda-434b-a316-5dc0e6ffa94f\n", false),
            ("f5741a13-bcda-434b-a316-5dc0e6ffa94", false),
            ("f5741a13-bcda-434b-a316-5dc0e6ffa94f-", false),
            ("f5741a13-bcda-434b-a316-5dc0e6ffä4f", false),
            ("dKZ:APA91bH-native-fcm", false),
            ("", false),
        ] {
            assert_eq!(is_push_token(token), expected, "{token:?}");
        }
    }
}
