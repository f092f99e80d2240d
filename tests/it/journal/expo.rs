//! Expo: send, alone and many together, compressed and not, and receipts; against both versions of the SDK in use.

use super::*;

const SDKS: [&str; 2] = ["sdk6", "sdk7"];

fn push(event: &Event, all: &Value) -> Push {
    let words = |key: &str| all["push"][key].as_str().unwrap().to_owned();
    let (title, body, route) = (words("title"), words("body"), RouteRule::Push);
    let (channel_id, priority) = (Some(words("channelId")), Some(words("priority")));
    let text = Text { title, body, route, life: None, push_data: None, channel_id, priority };
    Push {
        token: all["token"].as_str().unwrap().to_owned(),
        data: payload::pushed_data(event, &text),
        collapse_id: payload::collapse_id(event),
        ttl_seconds: all["push"]["ttl"].as_u64().unwrap(),
        title: text.title,
        body: text.body,
        channel_id: text.channel_id,
        priority: text.priority,
        until: None,
    }
}

fn compressed(entry: &Value) -> bool {
    entry["headers"].get("content-encoding").is_some_and(|encoding| encoding == "gzip")
}

#[tokio::test]
async fn one_push_is_that_of_the_official_sdk() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let (expo, inputs) = (expo_at(&sandbox.url()), inputs());
    for event in &inputs.events {
        expo.send(push(event, &inputs.all)).await.unwrap();
    }
    for sdk in SDKS {
        for (ours, theirs) in pairs(&sandbox, &recording[&format!("send_{sdk}")]) {
            hold(&ours, theirs, &[]);
        }
        // Beyond what a push needs to be shown, herald always says how long it is worth showing, and by what a repeat
        // replaces it; channel and priority where the catalogue has them.
        let stated = [
            r#"ours /body/0/channelId "default""#,
            r#"ours /body/0/collapseId "event-1""#,
            r#"ours /body/0/priority "high""#,
            r#"ours /body/0/tag "event-1""#,
            "ours /body/0/ttl 3600",
        ];
        hold(&journal(&sandbox)[0], &recording[&format!("send_sketch_{sdk}")][0], &stated);
    }
}

#[tokio::test]
async fn many_pushes_are_compressed_into_one_request_like_the_official_sdk_s() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let (expo, inputs) = (expo_at(&sandbox.url()), inputs());
    for answer in join_all(inputs.events.iter().map(|event| expo.send(push(event, &inputs.all)))).await {
        answer.unwrap();
    }
    for sdk in SDKS {
        for (ours, theirs) in pairs(&sandbox, &recording[&format!("send_many_{sdk}")]) {
            assert!(compressed(&ours));
            hold(&ours, theirs, &[]);
        }
    }
}

#[tokio::test]
async fn compression_begins_where_the_official_sdk_s_does() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let expo = expo_at(&sandbox.url());
    for sdk in SDKS {
        let theirs = &recording[&format!("send_edge_{sdk}")];
        sandbox.control().reset_journal();
        for message in theirs.iter().map(|entry| &entry["body"][0]) {
            expo.send(Push {
                token: message["to"].as_str().unwrap().to_owned(),
                title: message["title"].as_str().unwrap().to_owned(),
                body: String::new(),
                data: serde_json::Map::new(),
                collapse_id: "c".to_owned(),
                ttl_seconds: 1,
                channel_id: None,
                priority: None,
                until: None,
            })
            .await
            .unwrap();
        }
        for (number, (ours, theirs)) in pairs(&sandbox, theirs).into_iter().enumerate() {
            assert_eq!(compressed(theirs), [false, true, false, true][number], "{sdk} {number}");
            // The SDK counts UTF-16 units and herald the bytes that travel: what is longer in bytes is compressed earlier.
            let stated = if number == 2 { &[r#"ours /headers/content-encoding "gzip""#][..] } else { &[] };
            hold(&ours, theirs, stated);
        }
    }
}

#[tokio::test]
async fn receipts_are_asked_for_as_the_official_sdk_does() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let count = inputs().all["tickets"].as_u64().unwrap();
    let ids: Vec<String> = (0..count).map(|number| format!("ticket-{number}")).collect();
    expo_at(&sandbox.url()).receipts(&ids).await.unwrap();
    for sdk in SDKS {
        let pairs = pairs(&sandbox, &recording[&format!("receipts_{sdk}")]);
        assert_eq!(pairs.len(), 2, "three hundred, and the rest");
        pairs.iter().for_each(|(ours, theirs)| hold(ours, theirs, &[]));
    }
}
