//! What is published: everything about event `n` follows from `n`, and the stand-in tells a recipient's presence from its name.
//!
//! Used by the publisher, the stand-in and the database's users. Texts are as long as a backend's: ids of 25 characters, payloads as
//! the domain's events carry them.

/// Sessions of a run; the recipient of each is one user.
pub const SESSIONS: u64 = 5_000;

/// An event's name and payload, in the order of the catalogue.
const KINDS: [(&str, &str); 11] = [
    ("partner.signed_compact", r#"{"signedAt":"2026-05-01T10:20:30.456Z","signedBy":"act0000000000000000000001"}"#),
    ("partner.stage_completed", r#"{"stage":2,"completedAt":"2026-05-01T10:20:30.456Z"}"#),
    ("partner.advanced", r#"{"toStage":3}"#),
    ("partner.empathy_shared", r#"{"stage":2}"#),
    ("partner.needs_shared", r#"{"stage":3}"#),
    ("partner.ranking_submitted", r#"{"stage":4}"#),
    ("agreement.proposed", r#"{"agreementId":"agr0000000000000000000042"}"#),
    ("agreement.confirmed", r#"{"agreementId":"agr0000000000000000000042"}"#),
    ("session.paused", r#"{"pausedAt":"2026-05-01T10:20:30.456Z","reason":"I need some time before we go on"}"#),
    ("session.resumed", r#"{"resumedAt":"2026-05-01T10:20:30.456Z"}"#),
    ("session.resolved", r#"{"resolvedAt":"2026-05-01T10:20:30.456Z"}"#),
];

/// Returns the id of event `n` of the case `tag`.
pub fn id(tag: u32, n: u64) -> String {
    format!("e{tag:08x}{n:016}")
}

/// Returns the number of an event of the case `tag`.
pub fn number(tag: u32, id: &str) -> Option<u64> {
    let (case, n) = id.strip_prefix('e')?.split_at_checked(8)?;
    (u32::from_str_radix(case, 16) == Ok(tag)).then(|| n.parse().ok()).flatten()
}

/// Returns the session of event `n`: spread as if by chance, so that some sessions have several events in hand.
pub fn session(n: u64) -> u64 {
    mix(n) % SESSIONS
}

pub fn session_id(session: u64) -> String {
    format!("ses{session:022}")
}

pub fn user(session: u64) -> String {
    format!("usr{session:022}")
}

/// Returns who acted on a session, and so looks at it.
pub fn actor(session: u64) -> String {
    format!("act{session:022}")
}

pub fn token(session: u64) -> String {
    format!("ExponentPushToken[{session:022}]")
}

/// Tells whether the recipient of a session's events is present: half of them are.
pub fn online(session: u64) -> bool {
    session.is_multiple_of(2)
}

/// Returns the session whose presence channel this is.
pub fn session_of(presence_channel: &str) -> Option<u64> {
    let id = presence_channel.strip_prefix("beheard:session:ses")?.strip_suffix(":presence")?;
    id.parse().ok()
}

/// Returns the routing key and the body of event `n`.
pub fn message(tag: u32, n: u64) -> (&'static str, String) {
    let (name, data) = KINDS[(n % KINDS.len() as u64) as usize];
    let session = session(n);
    let body = format!(
        r#"{{"id":"{}","sessionId":"{}","event":"{name}","partnerId":"{}","excludeUserId":"{}","data":{data}}}"#,
        id(tag, n),
        session_id(session),
        user(session),
        actor(session),
    );
    (name, body)
}

/// The finalizer of splitmix64: spreads the bits of a counter.
pub fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
