//! Obeying: what operators set in the store, looked at once a second and done on this worker.
//!
//! Started by `upkeep`. The intake asks here whether it is paused, the gates are told when a provider is held. While the store is
//! away the last word stays in force, and before the first nothing is taken in. Never decides anything: that is `domain::steering`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::Worker;
use crate::{
    broker::Broker,
    domain::{
        outcome::{HoldCause, Provider},
        steering::{Order, Setting, ShutGate, Steering},
    },
    provider::gate::Gate,
    store::Told,
    telemetry,
};

/// How often the store is asked; a change is obeyed after this at the latest.
const LOOK: Duration = Duration::from_secs(1);
/// How often what is paused or held is said again.
const REMIND: Duration = Duration::from_secs(60);

/// Whether the intake may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Intake {
    /// What operators have set is not known yet.
    Unknown,
    Runs,
    Paused(Setting),
}

impl Intake {
    /// Returns why nothing is taken in, or `None` when it may be.
    fn stopped(&self) -> Option<String> {
        match self {
            Intake::Unknown => Some("what operators have set is not known yet".to_owned()),
            Intake::Runs => None,
            Intake::Paused(by) => Some(format!("paused {}", by.said())),
        }
    }
}

/// The intake's switch.
pub(super) struct Switch(watch::Sender<Intake>);

impl Default for Switch {
    fn default() -> Self {
        Switch(watch::Sender::new(Intake::Unknown))
    }
}

impl Switch {
    /// Sets it; whoever waits hears of it. Returns how it was.
    fn set(&self, intake: Intake) -> Intake {
        self.0.send_replace(intake)
    }

    /// Returns why nothing may be taken in, or `None`.
    pub(super) fn stopped(&self) -> Option<String> {
        self.0.borrow().stopped()
    }

    /// Returns once the intake may run.
    pub(super) async fn runs(&self) {
        // An error means that the worker is gone, and with it whoever waits here.
        let _ = self.0.subscribe().wait_for(|intake| *intake == Intake::Runs).await;
    }

    /// Returns a future that ends once it has been set since this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.0.subscribe();
        async move {
            let _ = receiver.changed().await;
        }
    }

    /// Returns a future that ends once the intake has been stopped since this call, even if it runs again by then: a delivery
    /// that was not begun because of it stays in hand until its channel is closed.
    pub(super) fn stopped_since(&self) -> impl Future<Output = ()> + Send + use<> {
        let changed = self.changed();
        let stopped = self.stopped().is_some();
        async move {
            if !stopped {
                changed.await;
            }
        }
    }
}

/// What this worker obeys by now.
#[derive(Default)]
struct Obeyed {
    steering: Option<Steering>,
    reminded: Option<Instant>,
}

impl<B: Broker> Worker<B> {
    /// Looks into the store until told to stop, and does what operators have set.
    pub(super) async fn obey_operators(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut obeyed = Obeyed::default();
        loop {
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                () = async {
                    ticks.tick().await;
                    self.obey(&mut obeyed).await;
                } => {}
            }
        }
    }

    async fn obey(&self, obeyed: &mut Obeyed) {
        let told = match self.store.steering_and_told().await {
            Ok((steering, told)) => {
                for order in steering.orders(obeyed.steering.as_ref()) {
                    obeyed.reminded = Some(Instant::now());
                    self.carry_out(order);
                }
                self.state.board.steered(&steering);
                obeyed.steering = Some(steering);
                told
            }
            // The heartbeat says so. What was set last stays in force.
            Err(error) => return tracing::debug!(%error, "what operators have set could not be read"),
        };
        let Some(steering) = &obeyed.steering else { return };
        remind(steering, &mut obeyed.reminded);
        let now = Told { version: steering.version, gates: self.shut_gates() };
        if now != told
            && let Err(error) = self.store.tell(&now).await
        {
            tracing::debug!(%error, "operators were not told that this worker obeys; it is tried again");
        }
    }

    fn carry_out(&self, order: Order) {
        match order {
            Order::Pause(by) => {
                tracing::warn!("PAUSED {}: nothing is taken in until `herald resume`", by.said());
                metrics::gauge!("herald_paused").set(1.0);
                self.state.intake.set(Intake::Paused(by));
            }
            Order::Resume => {
                metrics::gauge!("herald_paused").set(0.0);
                if let Intake::Paused(_) = self.state.intake.set(Intake::Runs) {
                    tracing::warn!("RESUMED: events are taken in again");
                }
            }
            Order::Hold(provider, by) => {
                tracing::warn!(%provider, "{provider} HELD {}: its events wait until `herald release {provider}`", by.said());
                self.gate(provider).hold();
            }
            Order::Release(provider) => {
                tracing::warn!(%provider, "{provider} released by an operator");
                self.gate(provider).release();
            }
            Order::Log(filter) => match telemetry::set_filter(filter.as_ref().map(|log| log.filter.as_str())) {
                Ok(()) => match &filter {
                    Some(log) => tracing::warn!("log filter `{}` {}", log.filter, log.by.said()),
                    None => tracing::warn!("log filter as configured (log.level) again"),
                },
                Err(error) => tracing::warn!(error, "the log filter that was set is not obeyed"),
            },
        }
    }

    /// Returns the gate of `provider`.
    pub(super) fn gate(&self, provider: Provider) -> &Arc<Gate> {
        match provider {
            Provider::Ably => self.ably.gate(),
            Provider::Expo => self.expo.gate(),
        }
    }

    fn shut_gates(&self) -> BTreeMap<Provider, ShutGate> {
        let shut = Provider::ALL.into_iter().filter_map(|provider| {
            let state = self.gate(provider).state();
            let since = state.since.as_millisecond();
            Some((provider, ShutGate { cause: state.shut?, since, why: state.why }))
        });
        shut.collect()
    }

    /// Says of each provider and each cause whether it is shut for it.
    pub(super) fn gauge_gates(&self) {
        for provider in Provider::ALL {
            let shut = self.gate(provider).state().shut;
            for cause in [HoldCause::Operator, HoldCause::Breaker, HoldCause::Unauthorised, HoldCause::Throttled] {
                let held = f64::from(u8::from(shut == Some(cause)));
                metrics::gauge!("herald_provider_held", "provider" => provider.as_str(), "by" => cause.as_str())
                    .set(held);
            }
        }
    }
}

/// Says once a minute what is paused or held: nobody shall wonder in the morning why nothing moves.
fn remind(steering: &Steering, reminded: &mut Option<Instant>) {
    if reminded.is_none_or(|at| at.elapsed() >= REMIND) {
        *reminded = Some(Instant::now());
        for said in steering.said() {
            tracing::warn!("{said}");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn paused() -> Intake {
        Intake::Paused(Setting { who: "ada@laptop".into(), why: Some("deploying".into()), since: 0 })
    }

    #[test]
    fn nothing_is_taken_in_before_the_first_word_nor_while_paused() {
        let switch = Switch::default();
        assert!(switch.stopped().is_some() && switch.runs().now_or_never().is_none());
        switch.set(Intake::Runs);
        assert_eq!((switch.stopped(), switch.runs().now_or_never()), (None, Some(())));
        switch.set(paused());
        let why = "paused by ada@laptop since 1970-01-01 00:00:00Z (deploying)";
        assert_eq!(switch.stopped().as_deref(), Some(why));
    }

    #[test]
    fn a_pause_that_is_over_before_anybody_looked_is_not_missed() {
        let switch = Switch::default();
        switch.set(Intake::Runs);
        let mut quiet = std::pin::pin!(switch.stopped_since());
        assert_eq!(quiet.as_mut().now_or_never(), None);
        switch.set(paused());
        switch.set(Intake::Runs);
        assert_eq!(quiet.now_or_never(), Some(()));
        assert_eq!(switch.stopped_since().now_or_never(), None);
    }
}
