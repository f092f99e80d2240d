//! What operators set and did, as the store keeps it.

use std::{collections::BTreeMap, time::Duration};

use herald::{
    domain::{
        action::{BEGUN, Deed},
        outcome::{HoldCause, Provider},
        steering::{Change, ShutGate, Steering},
    },
    store::{NewAction, Store, Told},
};
use serde_json::json;

use super::on_both;

#[tokio::test]
async fn what_is_set_is_seen_by_all_and_by_who_starts_later() {
    on_both(async |place| {
        let store = Store::connect(&place.url).await.unwrap();
        assert_eq!(
            store.steering().await.unwrap(),
            Steering { released: [(Provider::Ably, 0), (Provider::Expo, 0)].into(), ..Steering::default() }
        );
        let paused = store.steer(&Change::Pause, "ada@laptop", Some("deploying\0 amqp://u:pw@h/")).await.unwrap();
        assert!(paused.changed && paused.steering.version == 1);
        let again = store.steer(&Change::Pause, "bob@laptop", None).await.unwrap();
        assert!(!again.changed && again.steering == paused.steering, "the first stays: {again:?}");
        let held = store.steer(&Change::Hold(Provider::Expo), "ada@laptop", None).await.unwrap();
        assert_eq!((held.changed, held.steering.version), (true, 2));

        let later = Store::connect(&place.url).await.unwrap().steering().await.unwrap();
        let by = later.paused.clone().unwrap();
        assert_eq!((by.who.as_str(), by.why.as_deref()), ("ada@laptop", Some("deploying  amqp://[redacted]@h/")));
        assert!(jiff::Timestamp::now().as_millisecond() - by.since < 60_000, "{by:?}");
        assert_eq!(later.held.keys().collect::<Vec<_>>(), [&Provider::Expo]);
        assert_eq!(later, held.steering);

        let resumed = store.steer(&Change::Resume, "bob@laptop", None).await.unwrap();
        assert!(resumed.changed && resumed.steering.paused.is_none() && resumed.steering.held == later.held);
        let released = store.steer(&Change::Release(Provider::Expo), "bob@laptop", None).await.unwrap().steering;
        assert_eq!((released.held.len(), released.released[&Provider::Expo]), (0, 4));
        let again = store.steer(&Change::Release(Provider::Expo), "bob@laptop", None).await.unwrap();
        assert_eq!((again.changed, again.steering.released[&Provider::Expo]), (true, 5), "a release is news each time");

        let told: Vec<_> = store.actions(20, None).await.unwrap();
        let told: Vec<_> =
            told.iter().rev().map(|a| (a.who.as_str(), a.what.as_str(), a.outcome.as_str(), &a.parameters)).collect();
        let (none, expo) = (json!({}), json!({ "provider": "expo" }));
        assert_eq!(
            told,
            [
                ("ada@laptop", "pause", "done", &none),
                ("bob@laptop", "pause", "it was so already", &none),
                ("ada@laptop", "hold", "done", &expo),
                ("bob@laptop", "resume", "done", &none),
                ("bob@laptop", "release", "done", &expo),
                ("bob@laptop", "release", "done", &expo),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn a_filter_for_a_while_ends_by_the_databases_clock() {
    on_both(async |place| {
        let store = Store::connect(&place.url).await.unwrap();
        let minute = Some(Duration::from_secs(60));
        let set = store.steer(&Change::LogLevel("debug".into(), minute), "ada", None).await.unwrap().steering;
        let log = set.log.unwrap();
        assert_eq!((log.filter.as_str(), log.until.unwrap() - log.by.since), ("debug", 60_000));
        place.execute("UPDATE steering SET until = until - 60001 WHERE what = 'log'").await;
        assert_eq!(store.steering().await.unwrap().log, None);
        let lasting = store.steer(&Change::LogLevel("trace".into(), None), "ada", None).await.unwrap().steering;
        assert_eq!(lasting.log.unwrap().until, None);
        let reset = store.steer(&Change::LogReset, "ada", None).await.unwrap();
        assert!(reset.changed && reset.steering.log.is_none());
    })
    .await;
}

#[tokio::test]
async fn changes_at_once_have_versions_of_their_own() {
    on_both(async |place| {
        let store = Store::connect(&place.url).await.unwrap();
        let changes: Vec<_> = (0..8)
            .map(|n| match n % 4 {
                0 => Change::Pause,
                1 => Change::Hold(Provider::ALL[n / 4 % 2]),
                2 => Change::Release(Provider::ALL[n / 4 % 2]),
                _ => Change::Resume,
            })
            .collect();
        let steered = futures::future::join_all(changes.iter().map(|change| store.steer(change, "ada", None))).await;
        let changed = steered.iter().filter(|steered| steered.as_ref().unwrap().changed).count() as i64;
        let now = store.steering().await.unwrap();
        assert_eq!(now.version, changed, "every change is counted once: {steered:?}");
        assert_eq!(store.actions(100, None).await.unwrap().len(), 8);
    })
    .await;
}

#[tokio::test]
async fn living_workers_tell_how_they_obey() {
    on_both(async |place| {
        let worker = place.open("a").await;
        let steering = worker.steer(&Change::Pause, "ada", None).await.unwrap().steering;
        let shut = ShutGate { cause: HoldCause::Breaker, since: 5, why: "connection refused".into() };
        let told = Told { version: steering.version, gates: BTreeMap::from([(Provider::Ably, shut)]) };
        assert_eq!(worker.living().await.unwrap()[0].told, Told::default());
        worker.tell(&told).await.unwrap();
        assert_eq!(worker.steering_and_told().await.unwrap(), (steering, told.clone()));
        let living = Store::connect(&place.url).await.unwrap().living().await.unwrap();
        assert_eq!((living.len(), living[0].instance.as_str(), &living[0].told), (1, "a", &told));
        place.execute("UPDATE workers SET beat_at = beat_at - 11000").await;
        assert!(worker.living().await.unwrap().is_empty(), "the dead obey nobody");
        worker.heartbeat().await.unwrap();
        worker.farewell().await.unwrap();
        assert!(worker.living().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_was_done_is_recorded_from_its_beginning_and_read_in_pages() {
    on_both(async |place| {
        let store = Store::connect(&place.url).await.unwrap();
        let action = |n: usize| NewAction {
            who: "ada@laptop",
            what: Deed::Replay,
            why: Some("they were Bearer abc"),
            parameters: json!({ "event": format!("e{n}"), "limit": null }),
            affected: None,
            outcome: BEGUN,
        };
        for n in 0..5 {
            store.note_action(&action(n)).await.unwrap();
        }
        let newest = store.actions(2, None).await.unwrap();
        assert_eq!(newest.iter().map(|a| a.parameters["event"].as_str().unwrap()).collect::<Vec<_>>(), ["e4", "e3"]);
        let older = store.actions(100, Some(newest[1].number)).await.unwrap();
        assert_eq!(older.len(), 3);
        let first = &older[2];
        assert_eq!((first.affected, first.outcome.as_str()), (None, BEGUN));
        assert_eq!(
            (first.why.as_deref(), &first.parameters),
            (Some("they were Bearer [redacted]"), &json!({ "event": "e0" }))
        );
        store.end_action(first.number, Some(7), "replayed").await.unwrap();
        let ended = store.actions(1, Some(first.number + 1)).await.unwrap().remove(0);
        assert_eq!((ended.affected, ended.outcome.as_str()), (Some(7), "replayed"));

        place.execute("UPDATE actions SET at = at - 31622400000 WHERE parameters LIKE '%e1%'").await;
        let day = Duration::from_secs(86_400);
        assert_eq!(store.prune(day, day).await.unwrap(), 1);
        assert_eq!(store.actions(100, None).await.unwrap().len(), 4);
    })
    .await;
}
