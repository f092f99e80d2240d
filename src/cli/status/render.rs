//! One screen: what is wrong first, then the queues, who works, and the books. Pure, and only print.

use std::collections::BTreeMap;

use crate::{
    cli::{
        output::{self, clean},
        steer,
    },
    domain::{ledger::Books, symptoms::Symptom},
};

use super::{Row, Seen};

/// Returns the screen.
pub(super) fn screen(seen: &Seen) -> String {
    let mut parts = Vec::new();
    let steered: Vec<String> = seen.steering.iter().flat_map(steer::banner).collect();
    if !steered.is_empty() {
        parts.push(steered.join("\n"));
    }
    parts.push(match seen.symptoms.as_slice() {
        [] => format!("{}  nothing is wrong", output::time(seen.at)),
        symptoms => {
            let told = |found: &Symptom| format!("WRONG  {}\n       {}", clean(&found.says), clean(&found.todo));
            let lines = symptoms.iter().map(told);
            lines.collect::<Vec<_>>().join("\n")
        }
    });
    parts.extend(seen.queues.as_deref().map(render));
    let mut lines = Vec::new();
    if let Some(workers) = &seen.workers {
        let named = workers
            .iter()
            .map(|worker| format!("{} (since {})", clean(&worker.instance), output::time(worker.started_at)));
        let named = named.collect::<Vec<_>>().join(", ");
        lines.push(format!("workers: {}", if named.is_empty() { "none" } else { &named }));
    }
    if let (Some(all), Some(fresh)) = (seen.dead_letters, seen.fresh_dead_letters) {
        lines.push(format!("dead letters: {all}, {fresh} of them new (--dead-within)"));
    }
    if let Some(overdue) = seen.overdue {
        lines.push(format!("overdue: {overdue}"));
    }
    lines.extend(seen.books.as_ref().map(render_books));
    if !lines.is_empty() {
        parts.push(lines.join("\n"));
    }
    parts.join("\n\n")
}

fn render(rows: &[Row]) -> String {
    let heading = ["queue", "ready", "unacked", "consumers", "in/s", "out/s", "oldest"].map(str::to_owned).to_vec();
    let cells = rows.iter().map(|row| {
        let oldest = match (row.oldest_seconds, row.ready) {
            (_, Some(0)) => "-".to_owned(),
            (Some(seconds), _) => output::span(seconds * 1000),
            (None, _) => "unknown".to_owned(),
        };
        let rate = |rate: Option<f64>| rate.map_or_else(|| "unknown".to_owned(), |rate| format!("{rate:.1}"));
        vec![
            row.queue.clone(),
            known(row.ready),
            known(row.unacked),
            known(row.consumers),
            rate(row.in_per_second),
            rate(row.out_per_second),
            oldest,
        ]
    });
    let mut text = output::table(&std::iter::once(heading).chain(cells).collect::<Vec<_>>());
    for row in rows {
        if let Some(policy) = &row.policy {
            text += &format!("\n{}: policy `{policy}` may change what herald declared", row.queue);
        }
    }
    text
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

fn render_books(books: &Books) -> String {
    let by = |name: &str, counts: &BTreeMap<String, i64>| {
        let total: i64 = counts.values().sum();
        let parts: Vec<_> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        if parts.is_empty() { format!("{name} {total}") } else { format!("{name} {total} ({})", parts.join(", ")) }
    };
    let parts = [
        format!("waiting {}", books.waiting),
        by("done", &books.done),
        by("skipped", &books.skipped),
        by("dead", &books.dead),
    ];
    let verdict = if books.closed() { "closed" } else { "NOT closed" };
    format!(
        "ledger: received {} = {}; {verdict}\nbeside: repeats {}, ids reused with other content {}",
        books.received,
        parts.join(" + "),
        books.repeats,
        books.id_reused
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{Depth, management::QueueStats},
        cli::status::row,
        store::WorkerMark,
    };

    #[test]
    fn what_is_not_known_is_never_a_number() {
        let depth = Depth { ready: 12, consumers: 1, unacked: None };
        let rows = [
            row("h.events".into(), Some(depth), QueueStats::default(), None),
            row("h.hold.ably".into(), Some(Depth::default()), QueueStats::default(), None),
            row("h.retry.5s".into(), None, QueueStats::default(), None),
            row(
                "h.dead".into(),
                Some(Depth { ready: 3, consumers: 0, unacked: Some(1) }),
                QueueStats {
                    publish_rate: Some(0.25),
                    ack_rate: Some(0.0),
                    dead_lettering: Some(2),
                    ..QueueStats::default()
                },
                Some(7_260),
            ),
        ];
        let expected = "\
queue        ready  unacked  consumers     in/s    out/s   oldest
h.events        12  unknown          1  unknown  unknown  unknown
h.hold.ably      0  unknown          0  unknown  unknown        -
h.retry.5s  unknown  unknown    unknown  unknown  unknown  unknown
h.dead           3        1          0      0.2      0.0    2h 1m";
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&render(&rows)), squeeze(expected));
        assert_eq!(serde_json::to_value(&rows[0]).unwrap()["unacked"], serde_json::Value::Null);
    }

    #[test]
    fn the_books_say_whether_they_are_closed() {
        let counts = |pairs: &[(&str, i64)]| pairs.iter().map(|(k, v)| (k.to_string(), *v)).collect();
        let mut books = Books {
            received: 10,
            waiting: 1,
            done: counts(&[("push", 4), ("realtime", 3)]),
            skipped: counts(&[("no_token", 1)]),
            dead: counts(&[("exhausted", 1)]),
            repeats: 2,
            id_reused: 0,
        };
        let closed = "ledger: received 10 = waiting 1 + done 7 (push 4, realtime 3) + skipped 1 (no_token 1) + dead 1 (exhausted 1); closed";
        assert_eq!(render_books(&books).lines().next(), Some(closed));
        books.received = 11;
        assert!(render_books(&books).contains("NOT closed"));
    }

    #[test]
    fn what_is_wrong_stands_first() {
        let queues = vec![row(
            "h.events".into(),
            Some(Depth { ready: 0, consumers: 1, unacked: None }),
            QueueStats::default(),
            Some(7),
        )];
        let worker = WorkerMark { instance: "a".into(), started_at: 0, head_after: None };
        let mut seen = Seen { queues: Some(queues), workers: Some(vec![worker]), overdue: Some(0), ..Seen::default() };
        assert_eq!(
            screen(&seen),
            "1970-01-01 00:00:00Z  nothing is wrong\n\n\
             queue     ready  unacked  consumers     in/s    out/s  oldest\n\
             h.events      0  unknown          1  unknown  unknown       -\n\n\
             workers: a (since 1970-01-01 00:00:00Z)\noverdue: 0"
        );
        seen.symptoms = vec![Symptom { name: "x", says: "it burns".into(), todo: "put it\u{1b}out".into() }];
        assert!(screen(&seen).starts_with("WRONG  it burns\n       put it out\n\nqueue"));
        seen.workers = Some(Vec::new());
        assert!(screen(&seen).contains("workers: none"));
        assert_eq!(screen(&Seen { symptoms: seen.symptoms, ..Seen::default() }), "WRONG  it burns\n       put it out");
    }
}
