//! An explanation as text: when the event came, what was known, what was decided and why, what was tried, where it stands, and
//! what happens next.
//!
//! Pure, and only print: every sentence that decides something comes from `domain::explain`.

use crate::{
    cli::output::{clean, span, time},
    domain::{
        explain::{Explanation, LetterTold},
        ledger::{ABLY_TARGET, AttemptRecord, Entry},
        outcome::{HoldCause, Provider},
    },
};

/// Returns the account of an event as of `now`, in milliseconds since the epoch.
pub(super) fn render(told: &Explanation, now: i64) -> String {
    let entry = &told.entry;
    let mut lines = vec![heading(entry), received(entry, now)];
    lines.extend(known(told));
    if !entry.evidence.rule.is_empty() {
        let route = entry.route.as_deref().map_or(String::new(), |route| format!("{route}, because "));
        lines.push(labelled("route", &format!("{route}{}", entry.evidence.rule)));
    }
    lines.extend(told.why_not.iter().map(|why| match why.provider {
        Provider::Ably => labelled("not ably", &why.because),
        Provider::Expo => labelled("no push", &why.because),
    }));
    lines.extend(entry.attempts.iter().map(|attempt| labelled("attempt", &tried(told, attempt))));
    lines.push(labelled("now", &format!("{}, since {}", told.verdict, time(entry.updated_at))));
    lines.extend(told.next.iter().map(|next| labelled("next", next)));
    lines.extend(told.notes.iter().map(|note| labelled("note", note)));
    lines.join("\n")
}

/// Returns the account of a dead letter without a row.
pub(super) fn render_letter(told: &LetterTold) -> String {
    let letter = &told.letter;
    let event = letter.event.as_deref().unwrap_or("unreadable message");
    let lines = [
        head(event, &letter.id, letter.session_id.as_deref(), letter.partner_id.as_deref()),
        labelled("failed", &format!("{}: {}", time(letter.failed_at), letter.error)),
        labelled("now", &told.verdict),
        labelled("next", &told.next),
    ];
    lines.join("\n")
}

fn labelled(label: &str, text: &str) -> String {
    format!("  {label:<9} {}", clean(text))
}

fn heading(entry: &Entry) -> String {
    let event = entry.event.as_deref().unwrap_or("unreadable message");
    head(event, &entry.event_id, entry.session_id.as_deref(), entry.partner_id.as_deref())
}

fn head(event: &str, id: &str, session: Option<&str>, partner: Option<&str>) -> String {
    let mut heading = format!("{event} {id}");
    if let Some(session) = session {
        heading += &format!(" in session {session}");
    }
    match (partner, session) {
        (Some(partner), _) => heading += &format!(" for {partner}"),
        (None, Some(_)) => heading += ", for nobody in particular",
        (None, None) => {}
    }
    clean(&heading)
}

fn received(entry: &Entry, now: i64) -> String {
    let mut text = format!("{} ({} ago)", time(entry.first_seen), span(now - entry.first_seen));
    if entry.repeats > 0 {
        text += &format!(", came again {} times", entry.repeats);
    }
    if entry.id_reused > 0 {
        text += &format!(", {} of them with OTHER content: its producer reuses ids", entry.id_reused);
    }
    if entry.replay > 0 {
        text += &format!(", replayed {} times from the dead letters", entry.replay);
    }
    if entry.crashes > 0 {
        text += &format!(", {} workers died while they handled it", entry.crashes);
    }
    labelled("received", &text)
}

fn known(told: &Explanation) -> Vec<String> {
    let evidence = &told.entry.evidence;
    let mut lines = Vec::new();
    if let Some(presence) = &evidence.presence {
        let mut text = presence.clone();
        if let Some(members) = evidence.members.filter(|members| *members > 0) {
            text += &format!(", {members} {}", if members == 1 { "connection" } else { "connections" });
        }
        if let Some(at) = evidence.presence_at {
            text += &format!(", as of {}", time(at));
        }
        if let Some(age) = told.presence_age_ms {
            text += &format!(", {} old when it was used", span(age));
        }
        if let Some(age) = told.presence_age_last_ms {
            text += &format!(", {} at the last attempt", span(age));
        }
        if let Some(failure) = &evidence.presence_failure {
            text += &format!("; the look-up failed: {failure}");
        }
        lines.push(labelled("presence", &text));
    }
    let mut tokens: Vec<String> = evidence.tokens.iter().map(|token| format!("…{token}")).collect();
    if evidence.invalid_tokens > 0 {
        tokens.push(format!("{} passed over because they are not Expo push tokens", evidence.invalid_tokens));
    }
    if !tokens.is_empty() {
        lines.push(labelled("tokens", &tokens.join(", ")));
    }
    lines
}

fn tried(told: &Explanation, attempt: &AttemptRecord) -> String {
    let target = told.target(attempt);
    let to = match (attempt.target.as_str(), target.and_then(|target| target.token.as_deref())) {
        (ABLY_TARGET, _) => "the session channel".to_owned(),
        (_, Some(token)) => format!("push token …{token}"),
        (target, None) => target.to_owned(),
    };
    let head = format!("{} #{} {} to {to}", time(attempt.at), attempt.attempt + 1, attempt.provider);
    let mut text = match &attempt.failure {
        None => format!("{head}: {}", attempt.outcome),
        Some(failure) => format!("{head}: {failure}"),
    };
    if let Some(cause) = attempt.held {
        text += &format!(" because of {}", held(cause));
    }
    if let Some(status) = attempt.failure.as_ref().and_then(|failure| failure.status) {
        text += &format!(", status {status}");
    }
    text += &format!(", after {} ms", attempt.duration_ms);
    if let Some(id) = &attempt.provider_id {
        text += &format!(", {}'s id {id}", attempt.provider);
    }
    // The receipt is that of the accepted send.
    if attempt.outcome == "accepted"
        && let Some(receipt) = target.and_then(|target| target.receipt.as_ref())
    {
        text += &format!(", receipt: {receipt}");
    }
    text
}

fn held(cause: HoldCause) -> &'static str {
    match cause {
        HoldCause::Throttled => "a longer pause the provider asked for",
        HoldCause::Unauthorised => "refused credentials",
        HoldCause::Breaker => "too many failures in a row",
        HoldCause::Operator => "an operator's hold",
        HoldCause::Backlog => "too many events waiting for this provider",
    }
}

#[cfg(test)]
mod tests;
