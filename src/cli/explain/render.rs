//! A ledger row as an account that an operator can read aloud. Pure: the current time is an argument.

use crate::{
    cli::output::{clean, span, time},
    domain::{
        ledger::{ABLY_TARGET, AttemptRecord, Entry, State},
        outcome::{FailureKind, HoldCause},
    },
};

/// Returns the account of `entry` as of `now`, in milliseconds since the epoch.
pub(super) fn render(entry: &Entry, now: i64) -> String {
    let mut lines = vec![heading(entry), received(entry, now)];
    lines.extend(known(entry));
    if !entry.evidence.rule.is_empty() {
        let route = entry.route.as_deref().map_or(String::new(), |route| format!("{route}, because "));
        lines.push(labelled("route", &format!("{route}{}", clean(&entry.evidence.rule))));
    }
    lines.extend(entry.attempts.iter().map(|attempt| labelled("attempt", &tried(entry, attempt))));
    lines.extend(receipts(entry));
    lines.push(labelled("now", &state(entry)));
    lines.extend(what_next(entry, now).map(|next| labelled("next", &next)));
    lines.join("\n")
}

fn labelled(label: &str, text: &str) -> String {
    format!("  {label:<9} {text}")
}

fn heading(entry: &Entry) -> String {
    let event = entry.event.as_deref().unwrap_or("unreadable message");
    let mut heading = format!("{} {}", clean(event), clean(&entry.event_id));
    if let Some(session) = &entry.session_id {
        heading += &format!(" in session {}", clean(session));
    }
    match (&entry.partner_id, &entry.session_id) {
        (Some(partner), _) => heading += &format!(" for {}", clean(partner)),
        (None, Some(_)) => heading += ", for nobody in particular",
        (None, None) => {}
    }
    heading
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

fn known(entry: &Entry) -> Vec<String> {
    let evidence = &entry.evidence;
    let mut lines = Vec::new();
    if let Some(presence) = &evidence.presence {
        let mut text = presence.clone();
        if let Some(members) = evidence.members.filter(|members| *members > 0) {
            text += &format!(", {members} {}", if members == 1 { "connection" } else { "connections" });
        }
        if let Some(at) = evidence.presence_at {
            text += &format!(", as of {}", time(at));
        }
        if let Some(failure) = &evidence.presence_failure {
            text += &format!("; the look-up failed: {}", clean(&failure.to_string()));
        }
        lines.push(labelled("presence", &text));
    }
    let mut tokens: Vec<String> = evidence.tokens.iter().map(|token| format!("…{}", clean(token))).collect();
    if evidence.invalid_tokens > 0 {
        tokens.push(format!("{} passed over because they are not Expo push tokens", evidence.invalid_tokens));
    }
    if !tokens.is_empty() {
        lines.push(labelled("tokens", &tokens.join(", ")));
    }
    lines
}

fn tried(entry: &Entry, attempt: &AttemptRecord) -> String {
    let target =
        match (attempt.target.as_str(), entry.targets.get(&attempt.target).and_then(|record| record.token.as_ref())) {
            (ABLY_TARGET, _) => "the session channel".to_owned(),
            (_, Some(token)) => format!("push token …{}", clean(token)),
            (target, None) => clean(target),
        };
    let head = format!("{} #{} {} to {target}", time(attempt.at), attempt.attempt + 1, attempt.provider);
    let mut text = match &attempt.failure {
        None => format!("{head}: {}", attempt.outcome),
        Some(failure) => format!("{head}: {}", clean(&failure.to_string())),
    };
    if let Some(cause) = attempt.held {
        text += &format!(" because of {}", held(cause));
    }
    text += &format!(", after {} ms", attempt.duration_ms);
    if let Some(id) = &attempt.provider_id {
        text += &format!(", {}'s id {}", attempt.provider, clean(id));
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

fn receipts(entry: &Entry) -> Vec<String> {
    let told = entry.targets.values().filter_map(|record| {
        let token = record.token.as_deref().unwrap_or("?");
        let receipt = record.receipt.as_ref()?;
        Some(labelled("receipt", &format!("push token …{}: {}", clean(token), clean(receipt))))
    });
    told.collect()
}

fn state(entry: &Entry) -> String {
    let mut text = match entry.state {
        State::Waiting => "waiting".to_owned(),
        State::Done => format!("done, via {}", entry.via.map_or("unknown", |via| via.as_str())),
        State::Skipped => "skipped".to_owned(),
        State::Dead => "dead".to_owned(),
    };
    if entry.state == State::Done && entry.not_handed_on() {
        text += ": pushed, not handed on";
    }
    if let Some(reason) = &entry.reason {
        text += &format!(": {}", clean(reason));
    }
    if let Some(detail) = &entry.detail {
        text += &format!(" ({})", clean(detail));
    }
    format!("{text}, since {}", time(entry.updated_at))
}

/// Says what happens next, or what would change the outcome.
fn what_next(entry: &Entry, now: i64) -> Option<String> {
    let reason = entry.reason.as_deref().unwrap_or_default();
    match entry.state {
        State::Done => None,
        State::Waiting => Some(waiting(entry, now)),
        State::Skipped => skipped(reason).map(str::to_owned),
        State::Dead => Some(dead(entry, reason)),
    }
}

fn skipped(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "no_token" => "the user has no push token: the app has to register one",
        "no_user" => "users.query returns no row for this user: is the id right, was the account deleted?",
        "invalid_token" => "what is stored is not an Expo push token: the app has to register with Expo's client",
        "no_recipient" => "the event has no partnerId, and its route is push",
        "excluded" => "the recipient is the user it excludes",
        "opted_out" => "the user does not want pushes",
        "expired" => "it came after its life had ended: is the producer late, or a clock wrong?",
        _ => return None,
    })
}

fn dead(entry: &Entry, reason: &str) -> String {
    let id = clean(&entry.event_id);
    let replay = format!("`herald dead replay --id {id}`");
    match reason {
        "malformed" => "its producer has to mend it; a replay would fail the same way".to_owned(),
        "expired" => format!("too late to matter; {replay} with --ignore-expiry delivers it all the same"),
        "unknown" => format!("it may have arrived; {replay} sends it again and may repeat it"),
        "crashed_worker" => format!("workers die of it: look at it (`herald dead show {id}`) and report it"),
        "rejected" if unauthorised(entry) => format!("mend the credentials, then {replay}"),
        "rejected" => format!("mend what the provider names, then {replay}"),
        _ => format!("once the cause is gone: {replay}"),
    }
}

fn unauthorised(entry: &Entry) -> bool {
    let last = entry.attempts.last().and_then(|attempt| attempt.failure.as_ref());
    last.is_some_and(|failure| failure.kind == FailureKind::Unauthorised)
}

fn waiting(entry: &Entry, now: i64) -> String {
    let mut text = match entry.next_at {
        Some(at) if at > now => format!("tried again in {} at {}", span(at - now), time(at)),
        Some(at) => format!("due since {}", time(at)),
        None => "in hand, or waiting for its turn".to_owned(),
    };
    if let Some(queue) = &entry.queue {
        text += &format!(", in queue {}", clean(queue));
    }
    format!("{text}; its life ends {}", time(entry.expires_at))
}

#[cfg(test)]
mod tests;
