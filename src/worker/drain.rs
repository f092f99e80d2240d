//! The hold queues: events that waited for a provider come back while it takes requests.
//!
//! Started by `run`, one loop for each provider. A hold queue is consumed only while the provider's gate lets requests out, no
//! database is away and no operator has paused the intake; a gate that wants a probe gets one event at a time.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{Received, Worker};
use crate::{
    broker::Broker,
    domain::outcome::Provider,
    provider::gate::{Admission, Gate},
};

/// Pause between two probes of a held provider, and between two looks at a crowded one.
const HOLD_PAUSE: Duration = Duration::from_secs(1);

impl<B: Broker> Worker<B> {
    /// Brings held events back while `provider` takes requests.
    pub(super) async fn drain_hold(self: Arc<Self>, provider: Provider) {
        let gate = self.gate(provider).clone();
        while !self.state.stop.is_cancelled() {
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                () = async {
                    self.state.intake.runs().await;
                    self.state.trouble.cleared().await;
                } => {}
            }
            let changed = gate.changed();
            match gate.admission() {
                Admission::Shut(_) => tokio::select! {
                    () = self.state.stop.cancelled() => {}
                    () = changed => {}
                },
                admitted @ Admission::Probe => {
                    self.drain_held(provider, &gate, admitted, 1).await;
                    self.pause(HOLD_PAUSE).await;
                }
                Admission::Open if self.crowded(provider) => self.pause(HOLD_PAUSE).await,
                admitted @ Admission::Open => {
                    self.drain_held(provider, &gate, admitted, (self.settings.prefetch / 8).max(1)).await;
                }
            }
        }
    }

    /// Consumes a hold queue for as long as its provider's gate stays as it was when it `admitted` requests.
    async fn drain_held(self: &Arc<Self>, provider: Provider, gate: &Gate, admitted: Admission, prefetch: u16) {
        let queue = self.topology.hold(provider);
        let mut raised = std::pin::pin!(self.state.trouble.raised_since());
        let mut paused = std::pin::pin!(self.state.intake.stopped_since());
        let mut reopen = self.state.reopen.subscribe();
        let consumer = tokio::select! {
            () = self.state.stop.cancelled() => return,
            consumer = self.broker.consume(&queue, prefetch) => consumer,
        };
        let Ok(mut consumer) = consumer else { return self.pause(HOLD_PAUSE).await };
        loop {
            let changed = gate.changed();
            if gate.admission() != admitted || self.crowded(provider) {
                break;
            }
            tokio::select! {
                biased;
                () = self.state.stop.cancelled() => break,
                () = &mut raised => break,
                () = &mut paused => break,
                _ = reopen.changed() => break,
                () = changed => {}
                delivery = consumer.next() => match delivery {
                    Some(delivery) => {
                        let mut received = Received::read(delivery);
                        let (in_hand, settled) = oneshot::channel();
                        received.in_hand = Some(in_hand);
                        self.enter(received);
                        if admitted == Admission::Probe {
                            // One event at a time, to its end: the sender is dropped with the event.
                            let _ = settled.await;
                            break;
                        }
                    }
                    None => return,
                },
            }
        }
        if self.state.stop.is_cancelled() || self.state.intake.stopped().is_some() {
            // What is in hand is acknowledged on this channel.
            self.settled_or_grace().await;
        }
        consumer.close().await;
    }
}
