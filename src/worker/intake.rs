//! The first stop: from the broker into the lanes; and the loops that keep it going.
//!
//! Called by `run`. Owns the consumer of the events queue; `drain` has those of the hold queues. Prefetch is the only
//! backpressure. Never starts an event while a database is away or an operator has paused it, and never gives up on the broker.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use futures::FutureExt;
use tokio::time::Instant;

use super::{Received, Worker, clock, lanes::Entered, trouble::Relapses};
use crate::{
    broker::{Broker, BrokerError, Consumer, Delivery, marks::Marks},
    domain::event::{Malformed, decode},
    store::StoreError,
};

/// Longest wait in a lane before the event goes back to a queue: nothing stays in hand over five minutes.
const MAX_WAIT: Duration = Duration::from_secs(240);

/// First and longest pause before a database is asked again.
const PROBE_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Why a consumer is given up.
enum Why {
    Stopped,
    DatabaseAway(String),
    /// An operator paused the intake.
    Paused,
    Reopen,
    ChannelEnded,
}

impl<B: Broker> Worker<B> {
    /// Takes events in until told to stop, then finishes what is in hand. `Err` only when waiting is of no use.
    pub(super) async fn intake(self: &Arc<Self>) -> Result<(), BrokerError> {
        let queue = self.topology.events();
        let mut relapses = Relapses::default();
        while !self.state.stop.is_cancelled() {
            let changed = self.state.intake.changed();
            if let Some(why) = self.state.intake.stopped() {
                self.readiness.not_ready(&why);
                self.stay_stopped(changed).await;
                continue;
            }
            self.readiness.not_ready("no consumer is registered yet");
            // Before the consumer: what is not begun because of a pause goes back with its channel, however short the pause.
            let paused = self.state.intake.stopped_since();
            let mut consumer = tokio::select! {
                () = self.state.stop.cancelled() => break,
                consumer = self.broker.consume(&queue, self.settings.prefetch) => consumer?,
            };
            tracing::info!(queue, prefetch = self.settings.prefetch, "taking events in");
            self.readiness.ready();
            match self.take_in(&mut consumer, paused).await {
                Why::Stopped => {
                    self.readiness.not_ready("shutting down");
                    self.finish().await;
                    consumer.close().await;
                }
                Why::DatabaseAway(what) => {
                    self.readiness.not_ready(&what);
                    consumer.close().await;
                    self.pause(relapses.pause(Instant::now())).await;
                    self.wait_for_databases().await;
                    relapses.over(Instant::now());
                }
                Why::Paused => {
                    self.readiness.not_ready(&self.state.intake.stopped().unwrap_or_else(|| "paused".to_owned()));
                    tokio::select! {
                        () = self.state.stop.cancelled() => self.finish().await,
                        () = self.settled_or_grace() => {}
                    }
                    consumer.close().await;
                }
                Why::Reopen => {
                    self.readiness.not_ready("the broker takes no copies");
                    consumer.close().await;
                }
                Why::ChannelEnded => {
                    metrics::counter!("herald_reconnects_total", "of" => "consumer").increment(1);
                    tracing::warn!(queue, "the consumer's channel ended; making a new one");
                }
            }
        }
        Ok(())
    }

    async fn take_in(self: &Arc<Self>, consumer: &mut Consumer, paused: impl Future<Output = ()>) -> Why {
        let mut paused = std::pin::pin!(paused);
        let mut reopen = self.state.reopen.subscribe();
        loop {
            tokio::select! {
                biased;
                () = self.state.stop.cancelled() => return Why::Stopped,
                what = self.state.trouble.raised() => return Why::DatabaseAway(what),
                () = &mut paused => return Why::Paused,
                _ = reopen.changed() => return Why::Reopen,
                delivery = consumer.next() => match delivery {
                    Some(delivery) => {
                        let received = Received::read(delivery);
                        if let Some(published) = received.published() {
                            self.store.note_head(published);
                        }
                        self.enter(received);
                    }
                    None => return Why::ChannelEnded,
                },
            }
        }
    }

    /// Waits until operators have `changed` whether the intake runs. A database that is away meanwhile is waited for here, too:
    /// nobody else would find it back.
    async fn stay_stopped(&self, changed: impl Future<Output = ()>) {
        tokio::select! {
            () = self.state.stop.cancelled() => {}
            () = changed => {}
            _ = self.state.trouble.raised() => self.wait_for_databases().await,
        }
    }

    /// Puts an event into its session's lane.
    pub(super) fn enter(self: &Arc<Self>, mut received: Box<Received>) {
        received.counted = Some(self.state.live.take(self.source(&received.delivery.queue)));
        self.count_consumed(&received);
        // What cannot be read has no session and waits for nobody.
        let session = match &received.event {
            Ok(event) => event.session_id.clone(),
            Err(_) => format!("\0{}", uuid::Uuid::new_v4()),
        };
        match self.state.lanes.enter(&session, received) {
            Entered::First(first) => {
                self.state.tracker.spawn(self.clone().lane(session, first));
            }
            Entered::Waits => {}
            Entered::Full(received) => {
                metrics::counter!("herald_lane_full_total").increment(1);
                let worker = self.clone();
                self.state.tracker.spawn(async move {
                    // Interrupted: it stays with the broker and comes again.
                    let _ = received.traced(Box::pin(worker.settle_elsewhere(&received, "lane_full"))).await;
                });
            }
        }
    }

    /// Handles the events of one session until none waits.
    async fn lane(self: Arc<Self>, session: String, first: Box<Received>) {
        let mut next = Some(first);
        while let Some(received) = next {
            let step = async {
                if received.entered.elapsed() > MAX_WAIT && received.delivery.receipt.usable() {
                    let _ = received.traced(Box::pin(self.settle_elsewhere(&received, "waited_too_long"))).await;
                } else {
                    self.handle(received).await;
                }
            };
            // A panic while one is settled leaves that one with the broker; the lane must go on, or its session never would.
            if AssertUnwindSafe(step).catch_unwind().await.is_err() {
                metrics::counter!("herald_panics_total").increment(1);
                tracing::error!(
                    session.id = session,
                    "a bug in herald: an event could not be settled; it stays unacknowledged"
                );
            }
            next = self.state.lanes.next(&session);
        }
    }

    /// Waits for what is in hand, at most the grace period.
    pub(super) async fn finish(&self) {
        self.state.tracker.close();
        if tokio::time::timeout(self.settings.grace, self.state.tracker.wait()).await.is_err() {
            tracing::warn!("the grace period is over; what is still in hand goes back to the broker");
        }
    }

    /// Probes the databases with growing pauses until all answer.
    async fn wait_for_databases(&self) {
        let (mut pause, longest) = PROBE_PAUSES;
        while !self.state.stop.is_cancelled() {
            let probed = tokio::select! {
                () = self.state.stop.cancelled() => return,
                probed = self.probe_databases() => probed,
            };
            match probed {
                Ok(None) => return self.state.trouble.clear(),
                Ok(Some(wait)) => self.pause(wait).await,
                Err(error) => {
                    tracing::debug!(%error, "a database is still away");
                    self.pause(pause).await;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    /// Asks the databases for what the path of an event needs of them. Returns how long to wait all the same, so that other
    /// workers may speak again before their claims are taken for void.
    async fn probe_databases(&self) -> Result<Option<Duration>, StoreError> {
        self.heartbeat().await?;
        if let Some(users) = &self.users {
            users.look_up("herald-probe").await?;
        }
        // Not only so that no other worker waits for them: it writes where claims are written.
        let claims: Vec<String> = self.unsettled().iter().cloned().collect();
        self.store.give_up(&claims).await?;
        self.unsettled().retain(|identity| !claims.contains(identity));
        let now = Instant::now();
        let careful = self.state.pulse.lock().expect("no panic while the lock is held").careful_until(now);
        Ok(careful.map(|until| until - now))
    }

    /// Claims of events that left the path without a row.
    pub(super) fn unsettled(&self) -> MutexGuard<'_, HashSet<String>> {
        self.state.unsettled.lock().expect("no panic while the lock is held")
    }

    /// Waits until no event is in hand, at most the grace period.
    pub(super) async fn settled_or_grace(&self) {
        let settled = async {
            while !self.state.lanes.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(self.settings.grace, settled).await;
    }

    pub(super) async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = self.state.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Received {
    /// Reads what can be read. Boxed, because it is a kilobyte, and passed on from hand to hand.
    pub(super) fn read(delivery: Delivery) -> Box<Received> {
        let at = clock::now();
        let message = &delivery.message;
        let read = || (Marks::read(message), decode(&message.body, &message.meta()));
        // Outside every lane: a panic here would end the intake, at this message again and again.
        let (marks, event) = std::panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
            metrics::counter!("herald_panics_total").increment(1);
            let problem = "makes herald panic while it reads it: a bug in herald".to_owned();
            (Marks::default(), Err(Malformed { field: "body", problem }))
        });
        Box::new(Received { marks, event, delivery, at, entered: Instant::now(), counted: None, in_hand: None })
    }
}
