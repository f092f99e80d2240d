//! Where an event stands, what happens next and what would change it, as sentences.
//!
//! Called by `explain`. An operator reads these at three in the morning: each names the next step or the command.

use crate::domain::{
    ledger::{AttemptRecord, Entry, MAX_ATTEMPTS_KEPT, State},
    outcome::{FailureKind, Provider},
    receipt::fix,
    when::{span, time},
};

use super::{About, Holder, LetterMark, LetterTold, OVERDUE, allowed};

/// What the sentences are made of.
pub(super) struct Facts<'a> {
    pub entry: &'a Entry,
    pub holder: Option<&'a Holder>,
    pub letter: Option<&'a LetterMark>,
    pub about: &'a About<'a>,
}

impl Facts<'_> {
    /// Tells where the event stands.
    pub fn verdict(&self) -> String {
        let entry = self.entry;
        let mut text = match entry.state {
            State::Waiting if self.held_by().is_some() => "in the hands of a worker".to_owned(),
            State::Waiting => "waiting".to_owned(),
            State::Done => format!("done, via {}", entry.via.map_or("unknown", |via| via.as_str())),
            State::Skipped => "skipped".to_owned(),
            State::Dead => "dead".to_owned(),
        };
        if entry.state == State::Done && entry.not_handed_on() {
            text += ": pushed, not handed on";
        }
        if let Some(reason) = &entry.reason {
            text += &format!(": {reason}");
        }
        if let Some(detail) = &entry.detail {
            text += &format!(" ({detail})");
        }
        text
    }

    /// Tells what happens next, or what would change the outcome.
    pub fn next(&self) -> Option<String> {
        let reason = self.entry.reason.as_deref().unwrap_or_default();
        match self.entry.state {
            State::Done => self.receipts(),
            State::Waiting => Some(self.waiting(reason)),
            State::Skipped => skipped(reason).map(str::to_owned),
            State::Dead => Some(self.dead(reason)),
        }
    }

    /// Tells what else should be known.
    pub fn notes(&self) -> Vec<String> {
        let entry = self.entry;
        let mut notes = Vec::new();
        match (&entry.evidence.copied, &entry.queue) {
            (Some(why), _) => {
                notes.push(format!("it travelled as a copy ({why}): it may have come later than others of its session"))
            }
            (None, Some(_)) => {
                notes.push("it waits as a copy: it may come later than others of its session".to_owned())
            }
            (None, None) => {}
        }
        if entry.any_accepted() && entry.targets.values().any(|target| !target.accepted && !target.closed) {
            notes.push("what was accepted is not sent again; only the rest is".to_owned());
        }
        if entry.attempts.len() >= MAX_ATTEMPTS_KEPT {
            notes.push(format!("of its attempts the first and the newest are kept, {MAX_ATTEMPTS_KEPT} in all"));
        }
        notes
    }

    fn held_by(&self) -> Option<&Holder> {
        self.holder.filter(|holder| holder.living)
    }

    fn waiting(&self, reason: &str) -> String {
        let (entry, now) = (self.entry, self.about.now);
        let life = match entry.expires_at {
            at if at > now => format!("its life ends {}", time(at)),
            at => format!("its life ended {}: its next turn ends it as expired", time(at)),
        };
        if let Some(holder) = self.held_by() {
            let held = now - holder.since;
            let late = if held > OVERDUE { "; that is too long: look at that worker's log" } else { "" };
            return format!(
                "worker `{}` has it since {} ({} ago){late}; {life}",
                holder.owner,
                time(holder.since),
                span(held)
            );
        }
        let text = if let Some(cause) = reason.strip_prefix("held:") {
            self.held(cause)
        } else {
            let queue = entry.queue.as_deref();
            let attempt = format!("attempt {} of {}", entry.attempt + 1, allowed(self.about.schedule));
            match (queue, entry.next_at) {
                (Some(queue), Some(at)) if at > now => {
                    format!("waits in {queue} until {} (in {}), then {attempt}", time(at), span(at - now))
                }
                (_, Some(at)) if now - at > OVERDUE => format!(
                    "OVERDUE: {attempt} was due {} ({} ago); `herald status` tells whether workers take events from {}",
                    time(at),
                    span(now - at),
                    self.about.events
                ),
                (_, Some(at)) => format!(
                    "{attempt} is due since {}, as soon as a worker takes it from {}",
                    time(at),
                    self.about.events
                ),
                (_, None) => self.untouched(),
            }
        };
        format!("{text}; {life}")
    }

    /// Claimed once, and never settled.
    fn untouched(&self) -> String {
        let events = self.about.events;
        match (self.letter, self.holder) {
            (Some(letter), _) if letter.ended.is_none() => format!(
                "no worker ever settled it, and the broker put it away as dead letter #{} ({}): {}",
                letter.number,
                letter.reason,
                replay(&letter.id)
            ),
            (_, Some(holder)) => format!(
                "worker `{}` had it and is gone; RabbitMQ gives it to another worker from {events}",
                holder.owner
            ),
            (_, None) => format!("no worker has it in hand: it waits for its turn in {events}"),
        }
    }

    fn held(&self, cause: &str) -> String {
        let provider = self.held_provider();
        let name = provider.map_or("its provider", name);
        let go = match cause {
            "unauthorised" => self.mend(provider),
            "operator" => match provider {
                Some(provider) => format!("an operator holds {name}; `herald release {provider}` lets it go on"),
                None => "an operator holds its provider; `herald release` lets it go on".to_owned(),
            },
            "throttled" => format!("{name} asked for a pause; it goes on by itself when that is over"),
            "breaker" => format!("{name} is down; it goes on by itself when {name} takes requests again"),
            "backlog" => format!("too many events wait for {name}; it goes on by itself"),
            other => format!("{name} takes no requests ({other})"),
        };
        let queue = self.entry.queue.as_deref().map_or(String::new(), |queue| format!(", in {queue}"));
        format!("held{queue}: {go}; no attempt is used meanwhile")
    }

    /// Tells what to mend: what the provider named, else whatever it may be.
    fn mend(&self, provider: Option<Provider>) -> String {
        let ours = self.entry.attempts.iter().rev().filter(|attempt| Some(attempt.provider) == provider);
        let mut refused = ours.filter_map(|a| a.failure.as_ref()).filter(|f| f.kind == FailureKind::Unauthorised);
        let named = refused.next().and_then(|failure| fix(&failure.code));
        match (provider, named) {
            (Some(provider), Some((code, mend))) => {
                format!("{} refuses the credentials ({code}); mend {mend}", name(provider))
            }
            (Some(Provider::Ably), None) => {
                "Ably refuses the credentials; set ABLY_API_KEY (`herald check` tells what the key may do) and restart \
                 `herald run`"
                    .to_owned()
            }
            (Some(Provider::Expo), None) => {
                "Expo refuses the credentials; set EXPO_ACCESS_TOKEN and restart `herald run`, or mend the project's push \
                 credentials (`eas credentials`); workers' logs name which"
                    .to_owned()
            }
            (None, _) => "the provider refuses the credentials; `herald check` tells which".to_owned(),
        }
    }

    /// Names the provider by the hold queue.
    fn held_provider(&self) -> Option<Provider> {
        let queue = self.entry.queue.as_deref()?;
        Provider::ALL.into_iter().find(|provider| queue.ends_with(&format!(".hold.{provider}")))
    }

    fn dead(&self, reason: &str) -> String {
        let Some(letter) = self.letter else {
            return format!(
                "its letter is not in {}: its retention (dead.retention) is over, or somebody took it away; the producer may \
                 send it again, a dead event suppresses no repeat",
                self.about.dead
            );
        };
        if let (Some(how), Some(at)) = (&letter.ended, letter.ended_at) {
            return match how.as_str() {
                "replayed" => format!(
                    "letter #{} was replayed {} ({} ago): the event waits for its turn in {}",
                    letter.number,
                    time(at),
                    span(self.about.now - at),
                    self.about.events
                ),
                _ => format!(
                    "letter #{} was {how} {}: nothing is left to replay; the producer may send it again, a dead event \
                     suppresses no repeat",
                    letter.number,
                    time(at)
                ),
            };
        }
        let (replay, number) = (replay(&self.entry.event_id), letter.number);
        let what = match reason {
            "malformed" => "its producer has to mend it; a replay would fail the same way".to_owned(),
            "expired" => format!("too late to matter; {replay} with --ignore-expiry delivers it all the same"),
            "unknown" => format!("it may have arrived; {replay} sends it again and may repeat it"),
            "crashed_worker" => format!("workers die of it: look at it and report it before {replay}"),
            "rejected" if self.unauthorised() => format!("mend the credentials, then {replay}"),
            "rejected" => format!("mend what the provider names, then {replay}"),
            _ => format!("once the cause is gone: {replay}"),
        };
        format!("{what} (letter #{number}: `herald dead show {number}`)")
    }

    fn unauthorised(&self) -> bool {
        let last = self.entry.attempts.last().and_then(|attempt| attempt.failure.as_ref());
        last.is_some_and(|failure| failure.kind == FailureKind::Unauthorised)
    }

    /// Pushes that Expo took tell later what Apple and Google made of them.
    fn receipts(&self) -> Option<String> {
        if self.entry.not_handed_on() {
            return Some(
                "Apple or Google did not take the push; it is not sent again, because it could ring twice".to_owned(),
            );
        }
        let unread = |attempt: &&AttemptRecord| {
            let target = self.entry.targets.get(&attempt.target);
            attempt.provider == Provider::Expo
                && attempt.provider_id.is_some()
                && target.is_some_and(|target| target.receipt.is_none())
        };
        let sent = self.entry.attempts.iter().filter(unread).map(|attempt| attempt.at).max()?;
        let after = i64::try_from(self.about.receipts_after.as_millis()).unwrap_or(i64::MAX);
        let due = sent.saturating_add(after);
        Some(match due > self.about.now {
            true => format!("its receipt is asked for from {} on", time(due)),
            false => format!("its receipt is asked for since {}, until a day after the send", time(due)),
        })
    }
}

/// Explains a letter whose event the ledger does not know.
pub(super) fn stray(letter: &LetterMark, about: &About<'_>) -> LetterTold {
    let (verdict, next) = match (&letter.ended, letter.ended_at) {
        (Some(how), Some(at)) => (
            format!("dead letter #{}, {how} {}", letter.number, time(at)),
            "the ledger keeps nothing more of it".to_owned(),
        ),
        _ => (
            format!("dead letter #{}: {}", letter.number, letter.reason),
            format!(
                "no worker ever wrote down what became of it; the broker or somebody else put it into {}. Look at it with `herald \
                 dead show {}`, then {}",
                about.dead,
                letter.number,
                replay(&letter.id)
            ),
        ),
    };
    LetterTold { letter: letter.clone(), verdict, next }
}

fn replay(id: &str) -> String {
    format!("`herald dead replay {}`", id_flag(id))
}

/// Writes `--id` as a shell takes it: producers may put anything into an id.
fn id_flag(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@/+,".contains(c);
    let quoted = if id.chars().all(plain) { id.to_owned() } else { format!("'{}'", id.replace('\'', r"'\''")) };
    if id.starts_with('-') { format!("--id={quoted}") } else { format!("--id {quoted}") }
}

fn name(provider: Provider) -> &'static str {
    match provider {
        Provider::Ably => "Ably",
        Provider::Expo => "Expo",
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
