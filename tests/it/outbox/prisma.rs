//! A real Prisma client of a backend, generated from the model that herald ships for pasting.
//!
//! `prisma generate` needs no engine for it, but the command line downloads one first unless told where it is; no test
//! downloads anything beside the registry.

use serde_json::{Value, json};

use super::{all_relayed, drain, relay, rows, table};
use crate::{
    npm::{Project, run},
    rig::Rig,
    support::within,
};

const MODEL: &str = include_str!("../../../config/outbox/schema.prisma");

#[tokio::test(flavor = "multi_thread")]
async fn what_prisma_writes_arrives() {
    let Some(mut rig) = Rig::new("obprisma").await else { return };
    let Some(project) = Project::install("tests/prisma").await else { return };
    let head = std::fs::read_to_string(project.home.join("head.prisma")).unwrap();
    std::fs::write(project.home.join("schema.prisma"), head + MODEL).unwrap();
    let mut generate = project.script("node_modules/prisma/build/index.js");
    generate.arg("generate").env("PRISMA_SCHEMA_ENGINE_BINARY", "/bin/true").env("CHECKPOINT_DISABLE", "1");
    within(120, "prisma generate", run(&mut generate, "")).await;

    let mut backend = table(&rig).await;
    relay(&mut rig, "relay", &[super::NO_POLL]).await;
    let mut script = project.script("write.mjs");
    script.env("DATABASE_URL", rig.users_url.split('?').next().unwrap()).env("SCHEMA", format!("{}_app", rig.prefix));
    let told = within(120, "the backend", run(&mut script, "")).await;
    let least: Value = serde_json::from_str(&told).unwrap();
    all_relayed(&mut backend).await;
    assert_eq!(rows(&mut backend).await, (0, 0, 0));

    let events = drain(&rig, &rig.topology.events()).await;
    let bodies: Vec<Value> = events.iter().map(|event| serde_json::from_slice(&event.message.body).unwrap()).collect();
    let [first, second, third] = bodies.as_slice() else { panic!("{bodies:?}") };
    assert_eq!((&first["id"], &first["sessionId"], &first["data"]), (&least["id"], &json!("s1"), &json!({})));
    assert!(first["occurredAt"].is_string() && uuid::Uuid::parse_str(first["id"].as_str().unwrap()).is_ok(), "{first}");
    let expected = |partner: &str| {
        json!({"id": "full", "sessionId": "s1", "event": "partner.signed_compact", "partnerId": partner,
            "excludeUserId": "u1", "occurredAt": "2026-01-31T12:00:00.123Z", "expiresAt": "2036-01-31T12:00:00Z",
            "data": {"signedAt": "2026-01-31T12:00:00Z", "nested": {"list": [1, "zwei", null, true]}}})
    };
    assert_eq!((second, third), (&expected("u2"), &expected("u3")));
    rig.end().await;
}
