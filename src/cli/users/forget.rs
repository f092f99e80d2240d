//! `users forget`: first what would be deleted, then, with `--yes`, the user's dead letters and everything in the store.
//!
//! The letters leave the queue before the store forgets them, or a worker would find them there again. The record of it names
//! the user by a hash.

use futures::FutureExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{
        Broker, Delivery, Message,
        amqp::Role,
        sweep::{Pace, Verdict, sweep_and},
    },
    cli::{connect, interrupt, operator, output, stop::Stop},
    config::Config,
    domain::{
        action::{Deed, user_mark},
        event::decode,
    },
    letters::{LettersError, alone, this_process},
    store::{Forgotten, Kept, Left, Store},
};

pub(super) async fn run(config: &Config, user: &str, yes: bool) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    output::line(&preview(&store.kept(user).await?, yes))?;
    if !yes {
        return Err(Stop::failed("nothing was done; add --yes to forget this user"));
    }
    let action = operator::begin(&store, Deed::Forget, json!({ "user": user_mark(user) })).await?;
    let forgotten = forget(config, &store, user).await;
    action.end(forgotten.as_ref().map(|(dropped, gone)| (gone.events + dropped, "forgotten"))).await;
    let (dropped, Forgotten { events, tickets, letters }) = forgotten?;
    output::line(&format!(
        "forgotten: {events} rows of the ledger, {tickets} tickets, {dropped} dead letters in the queue, {letters} in its index"
    ))
}

async fn forget(config: &Config, store: &Store, user: &str) -> Result<(u64, Forgotten), Stop> {
    let broker = connect::broker(config, Role::Command).await?;
    let queue = connect::topology(config).dead();
    let stop = interrupt::on_signal("stopping; nothing else is forgotten, the same command goes on");
    let walked = alone(store, &queue, &this_process("herald users forget"), &stop, async |mut leftovers, stop| {
        let decide = |delivery: &Delivery| {
            let gone = leftovers.ends(&delivery.message) || addressed_to(&delivery.message, user);
            (if gone { Verdict::Drop } else { Verdict::Keep }, ())
        };
        let settle = |_| async { Ok::<(), LettersError>(()) }.boxed();
        let pace = Pace { per_second: None, stop: CancellationToken::clone(&stop) };
        let swept = sweep_and(&broker, &queue, &pace, decide, settle).await?;
        Ok((swept.dropped, if stop.is_cancelled() { Left::AsBefore } else { Left::Nothing }))
    })
    .await;
    broker.close().await;
    let dropped = walked?;
    if stop.is_cancelled() {
        return Err(Stop::failed(format!("interrupted after {dropped} dead letters; the same command goes on")));
    }
    Ok((dropped, store.forget(user).await?))
}

fn addressed_to(message: &Message, user: &str) -> bool {
    decode(&message.body, &message.meta()).is_ok_and(|event| event.partner_id.as_deref() == Some(user))
}

fn preview(kept: &Kept, yes: bool) -> String {
    let Kept { events, waiting, tickets, letters } = kept;
    let mut text = format!(
        "{} forget: {events} rows of the ledger, {tickets} tickets, {letters} dead letters",
        if yes { "will" } else { "would" }
    );
    if *waiting > 0 {
        text += &format!(
            "\n{waiting} of the events still wait in a queue: they are delivered as new ones; forget the user again when they \
             have ended"
        );
    }
    text + "\nThe push tokens are the app's. Letters to others that name the user in their data end with dead.retention."
}

#[cfg(test)]
mod tests {
    use lapin::{
        BasicProperties,
        types::{AMQPValue, FieldTable},
    };

    use super::*;

    #[test]
    fn only_letters_to_the_user_are_theirs() {
        for (body, expected) in [
            (r#"{"id":"1","sessionId":"s","event":"e","partnerId":"ada"}"#, true),
            (r#"{"id":"1","sessionId":"s","event":"e","partnerId":"adam"}"#, false),
            (r#"{"id":"1","sessionId":"s","event":"e","excludeUserId":"ada","partnerId":"bob"}"#, false),
            (r#"{"id":"1","sessionId":"s","event":"e"}"#, false),
            ("ada", false),
        ] {
            let message = Message { body: body.into(), properties: BasicProperties::default() };
            assert_eq!(addressed_to(&message, "ada"), expected, "{body}");
        }
        // A CloudEvent in binary mode names the recipient beside the body.
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", "1"),
            ("source", "/"),
            ("type", "e"),
            ("subject", "s"),
            ("partnerid", "ada"),
        ] {
            headers.insert(format!("cloudEvents_{name}").into(), AMQPValue::LongString(value.into()));
        }
        let properties = BasicProperties::default().with_content_type("application/json".into()).with_headers(headers);
        let message = Message { body: "{}".into(), properties };
        assert!(addressed_to(&message, "ada") && !addressed_to(&message, "bob"));
    }

    #[test]
    fn the_preview_says_what_still_waits() {
        let kept = Kept { events: 3, waiting: 1, tickets: 2, letters: 1 };
        let told = preview(&kept, false);
        assert!(
            told.starts_with(
                "would forget: 3 rows of the ledger, 2 tickets, 1 dead letters\n1 of the events still wait"
            )
        );
        assert!(!preview(&Kept::default(), true).contains("wait in a queue"));
    }
}
