//! `dead list`, `dead show`, `dead export`: reading the index. Nothing here touches the queue.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    cli::{
        connect,
        output::{self, clean},
        stop::Stop,
    },
    config::Config,
    domain::{bounded, ledger::Letter},
    store::{LetterFilter, LetterGroup},
};

/// Letters listed when nobody says how many.
const LISTED: u32 = 50;

pub(super) async fn list(config: &Config, filter: &LetterFilter, json: bool, now: Timestamp) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    if json {
        return super::pages(&store, filter, |letter| output::json(&summary(&letter))).await;
    }
    let shown = LetterFilter { limit: Some(filter.limit.unwrap_or(LISTED)), ..filter.clone() };
    let mut letters = Vec::new();
    super::pages(&store, &shown, |letter| {
        letters.push(letter);
        Ok(())
    })
    .await?;
    if letters.is_empty() {
        return output::line("no dead letters match");
    }
    output::line(&table(&letters, now.as_millisecond()))?;
    let groups = store.letter_groups(filter).await?;
    output::line(&format!("\n{}", counts(&groups, letters.len())))
}

pub(super) async fn groups(config: &Config, filter: &LetterFilter, json: bool, now: Timestamp) -> Result<(), Stop> {
    let groups = connect::store(config).await?.letter_groups(filter).await?;
    if json {
        return groups.iter().try_for_each(output::json);
    }
    if groups.is_empty() {
        return output::line("no dead letters match");
    }
    output::line(&group_table(&groups, now.as_millisecond()))
}

fn group_table(groups: &[LetterGroup], now: i64) -> String {
    let heading = ["letters", "reason", "event", "newest", "oldest"].map(str::to_owned).to_vec();
    let row = |group: &LetterGroup| {
        vec![
            group.letters.to_string(),
            clean(&group.reason),
            clean(group.event.as_deref().unwrap_or("unreadable")),
            format!("{} ago", output::span(now - group.newest)),
            format!("{} ago", output::span(now - group.oldest)),
        ]
    };
    output::table(&std::iter::once(heading).chain(groups.iter().map(row)).collect::<Vec<_>>())
}

fn table(letters: &[Letter], now: i64) -> String {
    let heading = ["#", "id", "event", "session", "reason", "attempts", "failed", "error"].map(str::to_owned).to_vec();
    let row = |letter: &Letter| {
        vec![
            letter.number.to_string(),
            clean(&letter.id),
            clean(letter.event.as_deref().unwrap_or("?")),
            clean(letter.session_id.as_deref().unwrap_or("?")),
            clean(&letter.reason),
            letter.attempt.to_string(),
            format!("{} ago", output::span(now - letter.failed_at)),
            bounded(&clean(&letter.error), 60),
        ]
    };
    output::table(&std::iter::once(heading).chain(letters.iter().map(row)).collect::<Vec<_>>())
}

fn counts(groups: &[LetterGroup], shown: usize) -> String {
    let total: i64 = groups.iter().map(|group| group.letters).sum();
    let lines = groups.iter().map(|group| {
        let event = clean(group.event.as_deref().unwrap_or("unreadable"));
        format!("{} {event}: {}", group.letters, clean(&group.reason))
    });
    let newest = if i64::try_from(shown).is_ok_and(|shown| shown < total) {
        format!(", the newest {shown} shown (--limit)")
    } else {
        String::new()
    };
    format!("{total} in all{newest}\n  {}", lines.collect::<Vec<_>>().join("\n  "))
}

/// Returns a letter without headers and body.
fn summary(letter: &Letter) -> serde_json::Value {
    let mut summary = json!(letter);
    if let Some(fields) = summary.as_object_mut() {
        fields.remove("headers");
        fields.remove("body");
    }
    summary
}

pub(super) async fn show(
    config: &Config,
    letter: Option<String>,
    mut filter: LetterFilter,
    json: bool,
) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    let print = |letter: Letter| if json { output::json(&letter) } else { output::line(&account(&letter)) };
    let number = letter.as_ref().and_then(|text| text.trim_start_matches('#').parse::<i64>().ok());
    if let Some(number) = number
        && let Some(found) = store.letter(number).await?
    {
        return print(found);
    }
    if let (Some(number), Some((how, at))) = (
        number,
        match number {
            Some(number) => store.ended_letter(number).await?,
            None => None,
        },
    ) {
        return Err(Stop::failed(format!("letter #{number} is no longer there: {how} on {}", output::time(at))));
    }
    filter.id = letter.or(filter.id);
    let mut found = 0;
    super::pages(&store, &filter, |letter| {
        found += 1;
        print(letter)
    })
    .await?;
    if found == 0 {
        return Err(Stop::failed("no dead letter matches; `herald dead list` shows what there is"));
    }
    Ok(())
}

fn account(letter: &Letter) -> String {
    let or = |text: &Option<String>| clean(text.as_deref().unwrap_or("-"));
    let headers = serde_json::to_string_pretty(&letter.headers).unwrap_or_default();
    let (body, kind) = match BASE64_STANDARD.decode(&letter.body).map(String::from_utf8) {
        Ok(Ok(text)) => (text, ""),
        _ => (letter.body.clone(), ", in base64"),
    };
    // Line ends are all of a body's control characters that may reach the terminal.
    let body: String = body.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    format!(
        "#{} {}\n  event     {} in session {} for {}\n  reason    {}: {}\n  failed    {} after {} attempts, replayed {} times; \
         missing: {}\n  headers   {}\n  body      {} bytes{kind}, {}\n{body}\n",
        letter.number,
        clean(&letter.id),
        or(&letter.event),
        or(&letter.session_id),
        or(&letter.partner_id),
        clean(&letter.reason),
        clean(&letter.error),
        output::time(letter.failed_at),
        letter.attempt,
        letter.replay,
        or(&letter.route),
        headers.replace('\n', "\n            "),
        letter.body_bytes,
        or(&letter.content_type),
    )
}

pub(super) async fn export(config: &Config, filter: &LetterFilter) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    super::pages(&store, filter, |letter| output::json(&letter)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            number: 12,
            id: "e1".into(),
            identity: Some("i".into()),
            session_id: Some("s1".into()),
            partner_id: None,
            event: Some("partner.advanced".into()),
            reason: "rejected".into(),
            error: "rejected (40009): too\u{7} large".into(),
            route: Some("ably".into()),
            attempt: 1,
            replay: 0,
            failed_at: 1_777_629_600_000,
            first_seen: None,
            headers: json!({ "herald-id": "e1" }),
            content_type: Some("application/json".into()),
            body: BASE64_STANDARD.encode("{\"n\":\n1}"),
            body_bytes: 8,
        }
    }

    #[test]
    fn a_list_counts_what_it_does_not_show() {
        let expected = "\
 #  id  event             session  reason    attempts  failed   error
12  e1  partner.advanced  s1       rejected         1  42s ago  rejected (40009): too  large";
        let told = table(&[letter()], 1_777_629_642_000);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&told), words(expected));
        let group = |event: &str, letters| LetterGroup {
            reason: "rejected".into(),
            event: Some(event.into()),
            letters,
            oldest: 0,
            newest: 40_000,
        };
        let told = words(&group_table(&[group("a", 2)], 42_000));
        assert_eq!(told, words("letters reason event newest oldest 2 rejected a 2.0s ago 42s ago"));
        assert_eq!(
            counts(&[group("a", 2), group("b", 1)], 2),
            "3 in all, the newest 2 shown (--limit)\n  2 a: rejected\n  1 b: rejected"
        );
        assert!(counts(&[group("a", 2)], 2).starts_with("2 in all\n"));
    }

    #[test]
    fn a_letter_is_shown_whole_and_without_control_characters() {
        let told = account(&letter());
        for part in [
            "#12 e1",
            "for -",
            "rejected: rejected (40009): too  large",
            "\"herald-id\": \"e1\"",
            "{\"n\":\n1}",
            "8 bytes, application/json",
        ] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
        let binary = Letter { body: BASE64_STANDARD.encode([0xff]), ..letter() };
        assert!(account(&binary).contains("in base64") && account(&binary).contains("/w=="));
        assert!(summary(&letter()).get("body").is_none());
    }
}
