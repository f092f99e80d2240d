//! Refused credentials, Ably's, Expo's and the project's at Apple and Google: an alarm, a hold, no token cleared, nothing lost.

use std::time::Instant;

use herald::{
    domain::{ledger::State, outcome::Provider},
    sandbox::{Action, Credential, DEFAULT_KEY, Device, Endpoint, Fault, Match, Settings, Standing},
};
use serde_json::{Value, json};

use super::{add_users, ended, held, single};
use crate::rig::Rig;

/// Credentials are bad, are seen to be bad, and are mended: held without an attempt, an alarm that names the key, no token
/// cleared, everything delivered.
async fn refused(name: &str, provider: Provider, code: &str, fix: &str, spoil: impl Fn(&Rig), mend: impl Fn(&Rig)) {
    let Some(mut rig) = Rig::new(name).await else { return };
    add_users(&rig, 5).await;
    let worker = rig.start().await;
    spoil(&rig);
    let ids: Vec<String> = (0..5).map(|n| format!("e{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        rig.send(single(provider, id, n)).await;
        let entry = held(&rig, id, "held:unauthorised").await;
        assert_eq!((entry.attempt, entry.state), (0, State::Waiting), "{name}: {entry:?}");
    }
    assert_eq!(rig.effects().len(), 0, "{name}: nothing has arrived");
    assert_eq!(rig.tokens().await, 5, "{name}: no push token is cleared");
    let log = rig.log(worker);
    let alarm = log.lines().find(|line| line.contains("ERROR") && line.contains("refuses our credentials"));
    let alarm = alarm.unwrap_or_else(|| panic!("{name}: no alarm in {log}"));
    assert!(alarm.contains(fix) && alarm.contains(code), "{name}: {alarm}");
    mend(&rig);
    let started = Instant::now();
    for id in &ids {
        let entry = ended(&rig, id, 120).await;
        assert_eq!((entry.state, entry.attempt), (State::Done, 0), "{name}: {entry:?}");
    }
    println!("{name}: delivered {:?} after the credentials were good again", started.elapsed());
    let effects = rig.effects();
    let arrived = |id: &String| effects[id].0 + effects[id].1;
    assert!(ids.iter().all(|id| arrived(id) == 1), "{name}: {effects:?}");
    assert_eq!(rig.tokens().await, 5, "{name}: no push token is cleared");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_hold_raise_an_alarm_that_names_the_key_and_lose_nothing() {
    let ably = |standing| {
        move |rig: &Rig| {
            let everything = [("*".to_owned(), vec!["*".to_owned()])].into();
            let credential = Credential { secret: DEFAULT_KEY.to_owned(), capability: everything, standing };
            rig.sandbox.control().add_credential(credential);
        }
    };
    let security = |enhanced_security| {
        move |rig: &Rig| {
            let settings = Settings { enhanced_security, ..(*rig.sandbox.control().settings()).clone() };
            rig.sandbox.control().set_settings(settings);
        }
    };
    let devices = |outcome: &'static str| {
        move |rig: &Rig| {
            for n in 0..5 {
                let device = Device { outcome: Some(outcome.to_owned()), ..Device::default() };
                rig.sandbox.control().set_device(&format!("ExponentPushToken[phone-{n}]"), device);
            }
        }
    };
    let answer = |status: u16, body: Option<Value>| {
        move |rig: &Rig| {
            let matching = Match { endpoint: Some(Endpoint::Send), ..Match::default() };
            let body = body.as_ref().map(Value::to_string);
            rig.sandbox.control().add_fault(Fault {
                matching,
                status: Some(status),
                body,
                ..Fault::new(Action::Status)
            });
        }
    };
    let well = |rig: &Rig| rig.sandbox.control().clear_faults();
    let mismatch = json!({"data": [{
        "status": "error", "message": "the sender id does not match", "details": {"error": "MismatchSenderId"}
    }]});
    tokio::join!(
        refused("ably_401", Provider::Ably, "401", "ABLY_API_KEY", ably(Standing::Revoked), ably(Standing::Good)),
        refused("expo_403", Provider::Expo, "UNAUTHORIZED", "EXPO_ACCESS_TOKEN", security(true), security(false)),
        refused("expo_401", Provider::Expo, "invalid_token", "EXPO_ACCESS_TOKEN", answer(401, None), well),
        refused(
            "credentials",
            Provider::Expo,
            "InvalidCredentials",
            "push credentials at Expo",
            devices("invalid-credentials"),
            devices("ok")
        ),
        refused(
            "mismatch",
            Provider::Expo,
            "MismatchSenderId",
            "push credentials at Expo",
            answer(200, Some(mismatch)),
            well
        ),
    );
}
