//! Reading the catalogue's text, naming every mistake with its key and line.
//!
//! Called by [`Catalogue::parse`]. Goes on after a mistake: an operator wants all of them at once.

use std::{collections::HashMap, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::domain::{did_you_mean, event, parse_duration};

use super::{Catalogue, Mistake, RouteRule, Text, line_at};

/// Name of the table with the fallback.
const DEFAULT: &str = "default";
const KEYS: [&str; 7] = ["title", "body", "route", "life", "push_data", "channel_id", "priority"];
/// What Expo accepts: <https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format>.
const PRIORITIES: [&str; 3] = ["default", "normal", "high"];
/// What a lock screen shows of a notification, generously.
const MAX_TITLE: usize = 100;
const MAX_BODY: usize = 300;

pub(super) fn parse(text: &str) -> Result<Catalogue, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, mistakes: Vec::new(), broken: Vec::new() };
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.mistake(at, "syntax", error.message().to_owned());
        reader.broken.push(line_at(text, at));
    }
    let mut events = HashMap::new();
    for (name, value) in document.get_ref() {
        if let Some(text) = reader.table(name, value) {
            events.insert(name.get_ref().to_string(), text);
        }
    }
    let has_default = document.get_ref().contains_key(DEFAULT);
    if !has_default && errors.is_empty() {
        reader.mistake(0, "default", "missing; it holds the texts of every event name without a table".to_owned());
    }
    let Reader { mut mistakes, .. } = reader;
    match events.remove(DEFAULT) {
        Some(default) if mistakes.is_empty() => Ok(Catalogue { events, default }),
        _ => {
            mistakes.sort_by_key(|mistake| mistake.line);
            Err(mistakes)
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    mistakes: Vec<Mistake>,
    /// Lines that are not TOML: what recovery made of them is not judged.
    broken: Vec<usize>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    /// Reads one table; `None` when it is not whole, which has been reported then.
    fn table(&mut self, name: &Spanned<std::borrow::Cow<'_, str>>, value: &Value<'_>) -> Option<Text> {
        let shown = shown(name.get_ref());
        let at = name.span().start;
        let length = name.get_ref().chars().count();
        if length == 0 || length > event::MAX_CODE_POINTS || name.get_ref().chars().any(char::is_control) {
            self.mistake(at, &shown, "an event name has 1 to 128 characters, none of them a control character".into());
        }
        let Some(table) = value.get_ref().as_table() else {
            self.mistake(at, &shown, format!("must be a table, written [{shown}], with title and body"));
            return None;
        };
        let mut nested = false;
        for (key, value) in table.iter().filter(|(key, _)| !KEYS.contains(&key.get_ref().as_ref())) {
            let path = format!("{shown}.{}", key.get_ref());
            if value.get_ref().is_table() {
                nested = true;
                let problem =
                    format!("an event name with a dot stands in quotes: [\"{}.{}\"]", name.get_ref(), key.get_ref());
                self.mistake(key.span().start, &path, problem);
            } else {
                let hint = did_you_mean(key.get_ref(), KEYS);
                self.mistake(key.span().start, &path, format!("unknown key{hint}; there are {}", KEYS.join(", ")));
            }
        }
        let title = self.key(table, &shown, "title", |value| sentence(value, MAX_TITLE));
        let body = self.key(table, &shown, "body", |value| sentence(value, MAX_BODY));
        for key in ["title", "body"] {
            if !table.contains_key(key) && !nested && self.broken.is_empty() {
                self.mistake(at, &format!("{shown}.{key}"), "missing".to_owned());
            }
        }
        let route = self.key(table, &shown, "route", route);
        let life = self.key(table, &shown, "life", life);
        let push_data = self.key(table, &shown, "push_data", fields);
        let channel_id = self.key(table, &shown, "channel_id", |value| sentence(value, MAX_TITLE));
        let priority = self.key(table, &shown, "priority", priority);
        Some(Text {
            title: title?,
            body: body?,
            route: route.unwrap_or_default(),
            life,
            push_data,
            channel_id,
            priority,
        })
    }

    fn key<T>(
        &mut self,
        table: &DeTable<'_>,
        shown: &str,
        key: &str,
        rule: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = table.get(key)?;
        rule(value.get_ref())
            .map_err(|problem| self.mistake(value.span().start, &format!("{shown}.{key}"), problem))
            .ok()
    }

    fn mistake(&mut self, at: usize, key: &str, problem: String) {
        let line = line_at(self.text, at);
        if !self.broken.contains(&line) || key == "syntax" {
            self.mistakes.push(Mistake { line, key: key.to_owned(), problem });
        }
    }
}

/// Returns the event name as it stands in a TOML header: quoted when it has a dot.
fn shown(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { name.to_owned() } else { format!("{name:?}") }
}

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("must be a text in quotes, not {}", kind(value)))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn sentence(value: &DeValue<'_>, most: usize) -> Result<String, String> {
    let text = text(value)?;
    let length = text.chars().count();
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if length > most {
        return Err(format!("must have at most {most} characters, not {length}"));
    }
    if text.chars().any(char::is_control) {
        return Err("must be one line without control characters".to_owned());
    }
    Ok(text.to_owned())
}

fn route(value: &DeValue<'_>) -> Result<RouteRule, String> {
    let text = text(value)?;
    let rule = RouteRule::ALL.into_iter().find(|rule| rule.as_str() == text);
    rule.ok_or_else(|| {
        let names = RouteRule::ALL.map(RouteRule::as_str).join("\", \"");
        format!("must be one of \"{names}\", not {text:?}")
    })
}

fn life(value: &DeValue<'_>) -> Result<Duration, String> {
    let text = text(value)?;
    let life = parse_duration(text).map_err(|problem| format!("{problem}, not {text:?}"))?;
    if life.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(life) }
}

fn fields(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let problem = || "must be a list of field names such as [\"stage\"]".to_owned();
    let mut fields: Vec<String> = Vec::new();
    for item in value.as_array().ok_or_else(problem)? {
        let field = item.get_ref().as_str().filter(|field| !field.is_empty()).ok_or_else(problem)?;
        if fields.iter().any(|seen| seen == field) {
            return Err(format!("names {field:?} twice"));
        }
        fields.push(field.to_owned());
    }
    Ok(fields)
}

fn priority(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    if PRIORITIES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("must be one of \"{}\", not {text:?}", PRIORITIES.join("\", \"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "[default]\ntitle = \"T\"\nbody = \"B\"\n";

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str, &str)]) {
        let mistakes = parse(text).map(|_| ()).err().unwrap_or_default();
        let found: Vec<_> = mistakes.iter().map(|m| (m.line, m.key.as_str(), m.problem.as_str())).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((line, key, problem), (expected_line, expected_key, part)) in found.iter().zip(expected) {
            assert_eq!((line, key), (expected_line, expected_key), "{problem}");
            assert!(problem.contains(part), "{problem:?} does not say {part:?}");
        }
    }

    #[test]
    fn each_mistake_is_named_with_key_and_line() {
        let long = "x".repeat(101);
        for (lines, key, problem) in [
            ("[a]\ntitle = \"\"\nbody = \"B\"", "a.title", "must not be empty"),
            ("[a]\ntitle = \" \"\nbody = \"B\"", "a.title", "must not be empty"),
            ("[a]\ntitle = 7\nbody = \"B\"", "a.title", "must be a text in quotes, not a number"),
            (&format!("[a]\ntitle = \"{long}\"\nbody = \"B\""), "a.title", "at most 100 characters, not 101"),
            ("[a]\ntitle = \"T\\nU\"\nbody = \"B\"", "a.title", "must be one line"),
            ("\n[a]\nbody = \"B\"", "a.title", "missing"),
            ("\n[a]\ntitle = \"T\"", "a.body", "missing"),
        ] {
            check(&format!("{FINE}{lines}\n"), &[(5, key, problem)]);
        }
        for (line, key, problem) in [
            (
                "route = \"absent\"",
                "route",
                "must be one of \"presence\", \"always\", \"realtime\", \"push\", not \"absent\"",
            ),
            ("route = true", "route", "must be a text in quotes, not true or false"),
            ("life = \"soon\"", "life", "must be a duration"),
            ("life = \"0s\"", "life", "longer than nothing"),
            ("life = 24", "life", "not a number"),
            ("push_data = \"stage\"", "push_data", "must be a list of field names"),
            ("push_data = [\"stage\", 3]", "push_data", "must be a list of field names"),
            ("push_data = [\"stage\", \"stage\"]", "push_data", "names \"stage\" twice"),
            ("channel_id = \"\"", "channel_id", "must not be empty"),
            ("priority = \"urgent\"", "priority", "must be one of"),
            ("rout = \"push\"", "rout", "unknown key (did you mean `route`?)"),
        ] {
            let text = format!("{FINE}[\"a.b\"]\ntitle = \"T\"\nbody = \"B\"\n{line}\n");
            check(&text, &[(7, &format!("\"a.b\".{key}"), problem)]);
        }
    }

    #[test]
    fn all_mistakes_are_told_in_one_go() {
        let text = "[\"a.b\"]\ntitle = 1\nbody = \"\"\nroute = \"x\"\ncolour = \"red\"\nhello = 3\n[c]\n";
        check(
            &format!("stray = 1\n{text}"),
            &[
                (1, "stray", "must be a table"),
                (1, "default", "missing"),
                (3, "\"a.b\".title", "not a number"),
                (4, "\"a.b\".body", "empty"),
                (5, "\"a.b\".route", "must be one of"),
                (6, "\"a.b\".colour", "unknown key"),
                (7, "\"a.b\".hello", "unknown key"),
                (8, "c.title", "missing"),
                (8, "c.body", "missing"),
            ],
        );
    }

    #[test]
    fn what_is_not_toml_is_told_beside_the_rest() {
        let text = format!("{FINE}[a]\ntitle = \"open\nbody = \"B\"\nroute = \"x\"\n");
        check(&text, &[(5, "syntax", ""), (7, "a.route", "must be one of")]);
        check(
            &format!("{FINE}[default]\ntitle = \"T\"\nbody = \"B\"\n"),
            &[4, 5, 6].map(|line| (line, "syntax", "duplicate key")),
        );
    }

    #[test]
    fn a_dotted_name_without_quotes_is_explained() {
        let text = format!("{FINE}[partner.advanced]\ntitle = \"T\"\nbody = \"B\"\n");
        check(&text, &[(4, "partner.advanced", "stands in quotes: [\"partner.advanced\"]")]);
    }

    #[test]
    fn every_key_is_read() {
        let rest = "route = \"always\"\nlife = \"2h\"\npush_data = []\nchannel_id = \"quiet\"\npriority = \"high\"";
        let catalogue = parse(&format!("{FINE}[\"a.b\"]\ntitle = \"A\"\nbody = \"B\"\n{rest}\n")).unwrap();
        let expected = Text {
            title: "A".into(),
            body: "B".into(),
            route: RouteRule::Always,
            life: Some(Duration::from_secs(7200)),
            push_data: Some(Vec::new()),
            channel_id: Some("quiet".into()),
            priority: Some("high".into()),
        };
        assert_eq!(catalogue.text("a.b"), &expected);
        assert_eq!(catalogue.text("never.heard"), &catalogue.default);
    }

    #[test]
    fn the_shipped_catalogue_has_the_eleven_events() {
        let catalogue = parse(include_str!("../../../config/messages.toml")).unwrap();
        let mut names: Vec<_> = catalogue.events.keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected = [
            "agreement.confirmed",
            "agreement.proposed",
            "partner.advanced",
            "partner.empathy_shared",
            "partner.needs_shared",
            "partner.ranking_submitted",
            "partner.signed_compact",
            "partner.stage_completed",
            "session.paused",
            "session.resolved",
            "session.resumed",
        ];
        assert_eq!(names, expected);
        let texts = |text: &Text| (text.title.clone(), text.body.clone());
        let distinct: std::collections::HashSet<_> = catalogue.events.values().map(texts).collect();
        assert_eq!(distinct.len(), 11, "each event has a text of its own");
        assert_eq!(texts(&catalogue.default), ("BeHeard".into(), "You have an update".into()));
        let compact = ("Partner is ready".to_owned(), "They signed the Curiosity Compact. Your turn!".to_owned());
        assert_eq!(texts(catalogue.text("partner.signed_compact")), compact);
        let paused = catalogue.text("session.paused").push_data.as_ref().expect("restricted");
        assert!(!paused.contains(&"reason".to_owned()));
    }
}
