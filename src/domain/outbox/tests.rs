//! Rows to messages, and which rows may go.

use proptest::prelude::*;

use super::*;

fn row(seq: i64, session: &str) -> Row {
    Row {
        seq,
        id: Some(format!("e{seq}")),
        session_id: Some(session.to_owned()),
        event: Some("partner.advanced".to_owned()),
        data: Some("{\"toStage\": 3}".to_owned()),
        data_bytes: 14,
        ..Row::default()
    }
}

#[test]
fn a_full_row_becomes_the_message_of_the_contract() {
    let full = Row {
        partner_id: Some("u2".into()),
        exclude_user_id: Some("u1".into()),
        occurred_at: Some(1_767_225_600_000_000),
        expires_at: Some(1_767_225_600_250_000),
        created_at: Some(1_767_225_601_900_000),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        age: 7,
        ..row(1, "s1")
    };
    let sent = outgoing(&full).unwrap();
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    let expected = json!({"id": "e1", "sessionId": "s1", "event": "partner.advanced", "partnerId": "u2",
        "excludeUserId": "u1", "data": {"toStage": 3}, "occurredAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2026-01-01T00:00:00.25Z"});
    assert_eq!(body, expected);
    assert_eq!(
        (sent.id.as_str(), sent.event.as_str(), sent.written_at),
        ("e1", "partner.advanced", Some(1_767_225_601))
    );
    assert_eq!((sent.traceparent, sent.age), (full.traceparent, 7));
    assert!(!sent.body.contains(&b' '), "PostgreSQL's spaces are gone: {}", String::from_utf8_lossy(&sent.body));
}

#[test]
fn what_the_worker_would_refuse_is_bad_and_the_error_names_the_column() {
    let with = |change: &dyn Fn(&mut Row)| {
        let mut row = row(1, "s");
        change(&mut row);
        row
    };
    for (row, expected) in [
        (with(&|row| row.id = Some("x".repeat(MAX_TEXT))), "id: has 256 characters; at most 128"),
        (with(&|row| row.id = None), "id: is missing"),
        (with(&|row| row.session_id = Some(String::new())), "session_id: is empty"),
        (with(&|row| row.session_id = None), "session_id: is missing"),
        (with(&|row| row.event = Some("a\nb".into())), "event: holds the control character U+000A"),
        (with(&|row| row.partner_id = Some(String::new())), "partner_id: is empty"),
        (with(&|row| row.exclude_user_id = Some("🙂".repeat(64))), "exclude_user_id: has 256 bytes"),
        (with(&|row| row.data = Some("[1]".into())), "data: is an array; expected an object"),
        (with(&|row| row.data = Some("{".into())), "data: cannot be read"),
        (with(&|row| row.data = Some("{\"n\": 1e999}".into())), "data: cannot be read"),
        (with(&|row| (row.data, row.data_bytes) = (None, 200_000)), "data: has 200000 bytes; at most 65536"),
        (with(&|row| row.data = Some(json!({"x": "y".repeat(65_500)}).to_string())), "row: has 655"),
        (with(&|row| row.expires_at = Some(i64::MAX)), "expires_at: is no time between"),
        (with(&|row| row.occurred_at = Some(-70_000_000_000_000_000)), "occurred_at: is no time between"),
    ] {
        let plan = plan(vec![row, super::tests::row(2, "s")]);
        let [bad] = &plan.bad[..] else { panic!("{plan:?} for {expected}") };
        assert!(bad.error.starts_with(expected), "{} for {expected}", bad.error);
        assert_eq!((bad.seq, plan.lanes.len(), plan.lanes[0][0].seq), (1, 1, 2), "the row behind it goes");
    }
    let secret = with(&|row| row.event = Some("ExponentPushToken[secret]\0".into()));
    assert!(!plan(vec![secret]).bad[0].error.contains("secret"));
}

#[test]
fn no_data_is_an_empty_object_and_a_bad_traceparent_is_left_out() {
    for (data, bytes) in [(None, 0), (Some("null".to_owned()), 4), (Some("{}".to_owned()), 2)] {
        let sent = outgoing(&Row { data, data_bytes: bytes, ..row(1, "s") }).unwrap();
        assert_eq!(event::decode(&sent.body, &Meta::default()).unwrap().data, Map::new());
    }
    for bad in [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    ] {
        let sent = outgoing(&Row { traceparent: Some(bad.to_owned()), ..row(1, "s") }).unwrap();
        assert_eq!(sent.traceparent, None, "{bad}");
    }
}

#[test]
fn sessions_go_side_by_side_and_their_rows_in_order() {
    let plan = plan(vec![row(1, "a"), row(2, "b"), row(3, "a"), row(4, "b"), row(5, "c")]);
    let seqs: Vec<Vec<i64>> = plan.lanes.iter().map(|lane| lane.iter().map(|sent| sent.seq).collect()).collect();
    assert_eq!((seqs, plan.behind), (vec![vec![1, 3], vec![2, 4], vec![5]], 0));
}

#[test]
fn the_first_mistakes_are_told_and_no_more() {
    let bad: Vec<Bad> = (1..=9).map(|seq| Bad { seq, error: "id: is empty".into() }).collect();
    assert_eq!(in_words(&bad), "seq 1: id: is empty; seq 2: id: is empty; seq 3: id: is empty");
}

proptest! {
    /// Whatever the table gives: nothing overtakes an earlier row of its session, and nothing is forgotten.
    #[test]
    fn no_row_overtakes_its_session(rows in prop::collection::vec((0..4u8, prop::bool::weighted(0.2), any::<bool>()), 0..40)) {
        let rows: Vec<Row> = rows.iter().enumerate().map(|(n, (session, behind, good))| Row {
            behind: *behind,
            id: good.then(|| "e".to_owned()),
            ..row(n as i64, &format!("s{session}"))
        }).collect();
        let count = rows.len();
        let first_behind = |session: &str| {
            rows.iter().find(|row| row.behind && row.session_id.as_deref() == Some(session)).map(|row| row.seq)
        };
        let plan = plan(rows.clone());
        let published: usize = plan.lanes.iter().map(Vec::len).sum();
        prop_assert_eq!(published + plan.bad.len() + plan.behind, count);
        for lane in &plan.lanes {
            prop_assert!(lane.is_sorted_by_key(|sent| sent.seq));
            let session = rows[lane[0].seq as usize].session_id.clone().unwrap();
            if let Some(first) = first_behind(&session) {
                prop_assert!(lane.iter().all(|sent| sent.seq < first));
            }
        }
    }
}
