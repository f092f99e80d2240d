//! The index of dead letters: adding, filtering, grouping, ending, and finding again.

use herald::{
    domain::ledger::Letter,
    store::{LetterFilter, Store},
};

use super::{letter, on_both};

/// Adds five letters that differ in every way a filter looks at; #1 to #5.
async fn five(store: &Store) {
    let different = [
        ("a", "exhausted", "partner.advanced", "s1", 100),
        ("b", "exhausted", "session.paused", "s1", 200),
        ("c", "rejected", "partner.advanced", "s2", 300),
        ("d", "malformed", "", "", 400),
        ("e", "exhausted", "partner.advanced", "s2", 500),
    ];
    for (id, reason, event, session, at) in different {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (event, session_id, identity) = (some(event), some(session), some(event).map(|_| format!("i{id}")));
        let letter = Letter { id: id.to_owned(), event, session_id, identity, ..letter(id, reason, at) };
        store.add_letters(vec![letter]).await.unwrap();
    }
}

async fn numbers(store: &Store, filter: LetterFilter) -> Vec<i64> {
    let letters = store.letters(&filter).await.unwrap();
    let count = store.letter_count(&filter).await.unwrap();
    assert!(filter.limit.is_some() || count == letters.len() as i64, "{filter:?}");
    letters.iter().map(|letter| letter.number).collect()
}

#[tokio::test]
async fn letters_are_filtered_newest_first() {
    on_both(async |place| {
        let store = place.open("a").await;
        five(&store).await;
        let any = LetterFilter::default();
        let some = |text: &str| Some(text.to_owned());
        for (filter, expected) in [
            (any.clone(), vec![5, 4, 3, 2, 1]),
            (LetterFilter { id: some("d"), ..any.clone() }, vec![4]),
            (LetterFilter { reason: some("exhausted"), ..any.clone() }, vec![5, 2, 1]),
            (LetterFilter { event: some("partner.advanced"), ..any.clone() }, vec![5, 3, 1]),
            (LetterFilter { session: some("s1"), ..any.clone() }, vec![2, 1]),
            (LetterFilter { failed_before: Some(300), ..any.clone() }, vec![2, 1]),
            (LetterFilter { below: Some(4), limit: Some(2), ..any.clone() }, vec![3, 2]),
            (LetterFilter { reason: some("exhausted"), session: some("s2"), ..any.clone() }, vec![5]),
            (LetterFilter { reason: some("expired"), ..any.clone() }, vec![]),
        ] {
            assert_eq!(numbers(&store, filter.clone()).await, expected, "{filter:?}");
        }
        let groups = store.letter_groups(&any).await.unwrap();
        let told: Vec<_> =
            groups.iter().map(|g| (g.reason.as_str(), g.event.as_deref(), g.letters, g.oldest, g.newest)).collect();
        assert_eq!(told[0], ("exhausted", Some("partner.advanced"), 2, 100, 500));
        assert_eq!(told.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_letter_comes_back_whole() {
    on_both(async |place| {
        let store = place.open("a").await;
        let whole = letter("i1", "exhausted", 500);
        let bare = Letter {
            identity: None,
            session_id: None,
            partner_id: None,
            event: None,
            route: None,
            first_seen: None,
            content_type: None,
            body: String::new(),
            ..letter("i2", "malformed", 600)
        };
        store.add_letters(vec![whole.clone(), bare.clone()]).await.unwrap();
        for letter in [whole, bare] {
            let filter = LetterFilter { id: Some(letter.id.clone()), ..Default::default() };
            let number = numbers(&store, filter).await[0];
            assert_eq!(store.letter(number).await.unwrap(), Some(Letter { number, ..letter }));
        }
        assert_eq!(store.letter(99).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn ended_letters_keep_their_number_and_nothing_else_and_live_again_when_found() {
    on_both(async |place| {
        let store = place.open("a").await;
        five(&store).await;
        store.end_letters(&[2, 4, 77], "replayed").await.unwrap();
        assert_eq!(numbers(&store, LetterFilter::default()).await, [5, 3, 1]);
        assert_eq!(store.letter(2).await.unwrap(), None);
        let (how, when) = store.ended_letter(2).await.unwrap().unwrap();
        assert_eq!(how, "replayed");
        assert!(when > 1_700_000_000_000);
        assert_eq!(store.ended_letter(1).await.unwrap(), None);
        assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE body <> ''").await, 3);

        // Letters the index knows change nothing, one that had ended is there again.
        five(&store).await;
        assert_eq!(numbers(&store, LetterFilter::default()).await, [5, 4, 3, 2, 1]);
        assert_eq!(store.letter(2).await.unwrap().unwrap().body, "eyJ9");
    })
    .await;
}

#[tokio::test]
async fn a_letter_the_database_refuses_does_not_keep_the_others_out() {
    let Some(place) = super::Place::postgres().await else { return };
    let store = place.open("a").await;
    let mut letters: Vec<Letter> = (0..250).map(|n| letter(&format!("i{n}"), "exhausted", n)).collect();
    letters[120].error = "nul\0".to_owned();
    assert!(store.add_letters(letters).await.is_err());
    assert_eq!(store.letter_count(&LetterFilter::default()).await.unwrap(), 249);
    place.clean().await;
}
