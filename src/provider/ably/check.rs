//! Whether the key can do what herald needs, asked of Ably itself.
//!
//! Called by `herald check`. Works beside the gate, and on channels of a session that nobody has or will have.

use jiff::Timestamp;

use crate::domain::outcome::{Failure, FailureKind};

use super::{
    Ably, Publish,
    presence::{self, Ask},
    publish::{self, Message},
    transport::{Call, Repeat},
};

impl Ably {
    /// Returns Ably's clock. Needs no capability: shows that Ably can be reached.
    pub async fn time(&self) -> Result<Timestamp, Failure> {
        let call = Call { endpoint: "time", target: "/time".to_owned(), body: None, repeat: Repeat::Safe, until: None };
        let reply = self.shared.transport.call(&call).await.map_err(|fault| fault.failure)?;
        serde_json::from_slice::<[i64; 1]>(&reply.body)
            .ok()
            .and_then(|[millis]| Timestamp::from_millisecond(millis).ok())
            .ok_or_else(|| Failure::new(FailureKind::Transient, "unreadable", "not an answer of Ably's clock"))
    }

    /// Tries out what the key must be able to do, and returns each with its result: reading presence (capability
    /// `subscribe`) and publishing (capability `publish`).
    ///
    /// Both use the configured channel templates with a session id made up for this one check (`herald-check-<uuid>`), so
    /// that patterns in the key's capabilities are tried as they are and nobody is there to notice. The publish sends one
    /// empty message named `herald.check`; Ably counts it as one message and closes the channel about a minute later.
    pub async fn check(&self) -> Vec<(&'static str, Result<(), Failure>)> {
        let session = format!("herald-check-{}", uuid::Uuid::new_v4());
        let [publish_channel, presence_channel] =
            self.templates.each_ref().map(|it| it.replace("{sessionId}", &session));
        let ask = Ask { channel: presence_channel, client_id: "herald-check".to_owned() };
        let read = presence::single(&self.shared, &ask).await.map(|_| ()).map_err(|fault| fault.failure);
        let message = Message::new(Publish {
            channel: publish_channel,
            name: "herald.check".to_owned(),
            data: "{}".to_owned(),
            id: session,
            until: None,
        });
        let published = match publish::single(&self.shared, &message).await {
            Ok(answer) => answer.map(|_| ()),
            Err(failure) => Err(failure),
        };
        vec![("read presence (capability `subscribe`)", read), ("publish (capability `publish`)", published)]
    }
}
