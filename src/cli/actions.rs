//! `herald actions`: what operators did, from the record in the store.

use crate::{config::Config, domain::action::Action};

use super::{
    connect,
    output::{self, clean},
    stop::Stop,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// At most so many, newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Prints one JSON object for each action
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, args: &Args) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    let (mut actions, mut below) = (Vec::new(), None);
    while actions.len() < args.limit as usize {
        let left = args.limit - u32::try_from(actions.len()).unwrap_or(args.limit);
        let page = store.actions(left, below).await?;
        let Some(last) = page.last() else { break };
        below = Some(last.number);
        actions.extend(page);
    }
    if args.json {
        return actions.iter().try_for_each(output::json);
    }
    if actions.is_empty() {
        return output::line("no operator has done anything yet");
    }
    output::line(&table(&actions))
}

fn table(actions: &[Action]) -> String {
    let heading = ["#", "when", "who", "what", "how many", "outcome", "with"].map(str::to_owned).to_vec();
    let row = |action: &Action| {
        let mut with = match &action.parameters {
            serde_json::Value::Object(fields) => {
                fields.iter().map(|(key, value)| format!("{key} {}", word(value))).collect()
            }
            other => vec![word(other)],
        };
        with.extend(action.why.iter().map(|why| format!("because {why}")));
        vec![
            action.number.to_string(),
            output::time(action.at),
            clean(&action.who),
            clean(&action.what),
            action.affected.map_or_else(|| "-".to_owned(), |affected| affected.to_string()),
            clean(&action.outcome),
            clean(&with.join(", ")),
        ]
    };
    output::table(&std::iter::once(heading).chain(actions.iter().map(row)).collect::<Vec<_>>())
}

fn word(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_action_is_one_line() {
        let action = |number, affected, why: Option<&str>, parameters| Action {
            number,
            at: 1_795_380_067_123,
            who: "ada@laptop".into(),
            what: "replay".into(),
            why: why.map(str::to_owned),
            parameters,
            affected,
            outcome: "re\u{7}played".into(),
        };
        let told = table(&[
            action(2, Some(7), Some("mended"), json!({ "limit": 10, "reason": "exhausted" })),
            action(1, None, None, json!({})),
        ]);
        let expected = "\
# when                 who        what   how many outcome  with
2 2026-11-22 20:41:07Z ada@laptop replay 7        re played limit 10, reason exhausted, because mended
1 2026-11-22 20:41:07Z ada@laptop replay -        re played";
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&told), words(expected));
    }
}
