//! Receipts: what became of accepted pushes at Apple and Google, asked for until Expo forgets them after a day.
//!
//! Started by `upkeep`, one loop for each worker. Tickets are taken from the store in rounds of one request, so that workers share
//! the work and a restart forgets nothing. Never sends a push again, whatever a receipt says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Worker,
    tokens::{ALARM_PAUSE, Source},
};
use crate::{
    broker::Broker,
    domain::{
        ledger::{RECEIPT_OK, RECEIPT_UNKNOWN},
        outcome::{Failure, FailureKind},
        receipt::{self, ReceiptOutcome},
    },
    provider::expo::Receipt,
    store::{DueTicket, StoreError, TicketReceipt},
};

/// Tickets of one round: what one request asks for.
const ROUND: u32 = 300;
/// Pause after a round that was full; four rounds a second keep up with twice Expo's rate of 600 a second.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause when nothing is due.
const IDLE_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause after requests that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Expo keeps a receipt for a day; what has none by then never will.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What one round came to.
enum Round {
    /// There may be more at once.
    Full,
    Idle,
    /// Expo or the store did not answer.
    Failed,
}

impl<B: Broker> Worker<B> {
    /// Reads receipts until told to stop. A round that is cut off changes nothing: what it took is due again.
    pub(super) async fn read_receipts(self: Arc<Self>) {
        // Receipts are put off by a quarter of their age, but not more often than this.
        let least = self.settings.receipts_after.clamp(Duration::from_secs(1), Duration::from_secs(60));
        let idle = least.min(IDLE_PAUSE);
        let mut alarms = HashMap::new();
        let mut failures = 0;
        loop {
            let round = async {
                self.state.trouble.cleared().await;
                self.receipts_round(least, &mut alarms).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "receipts wait for the database");
                    Round::Failed
                })
            };
            let round = tokio::select! {
                () = self.state.stop.cancelled() => return,
                round = round => round,
            };
            let pause = match round {
                Round::Full => BUSY_PAUSE,
                Round::Idle => idle,
                Round::Failed => longer(failures),
            };
            failures = if matches!(round, Round::Failed) { failures + 1 } else { 0 };
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes tickets that are due, asks for their receipts and settles those that have one.
    async fn receipts_round(
        &self,
        pause: Duration,
        alarms: &mut HashMap<&'static str, Instant>,
    ) -> Result<Round, StoreError> {
        let due = self.store.take_tickets(ROUND, pause).await?;
        if due.is_empty() {
            return Ok(Round::Idle);
        }
        let ids: Vec<String> = due.iter().map(|due| due.ticket.id.clone()).collect();
        let mut receipts = match self.expo.receipts(&ids).await {
            Ok(receipts) => receipts,
            // The client has said so.
            Err(failure) => {
                if failure.kind == FailureKind::Unauthorised {
                    alarm("UNAUTHORIZED", &failure, alarms);
                }
                return Ok(Round::Failed);
            }
        };
        let full = due.len() >= ROUND as usize;
        let read: Vec<Read> =
            due.into_iter().filter_map(|due| Read::new(receipts.remove(&due.ticket.id), due)).collect();
        self.settle_receipts(read, alarms).await?;
        Ok(if full { Round::Full } else { Round::Idle })
    }

    async fn settle_receipts(
        &self,
        read: Vec<Read>,
        alarms: &mut HashMap<&'static str, Instant>,
    ) -> Result<(), StoreError> {
        // All are noted before any token is cleared: a wave within one answer is seen in time.
        for read in &read {
            match read.outcome {
                ReceiptOutcome::Ok => self.device_seen(Source::Receipt, false),
                ReceiptOutcome::Unregistered => self.device_seen(Source::Receipt, true),
                ReceiptOutcome::Misconfigured | ReceiptOutcome::NotHandedOn | ReceiptOutcome::Unknown => {}
            }
        }
        let mut settled = Vec::with_capacity(read.len());
        for read in &read {
            if let Some(failure) = read.failure.as_ref().filter(|_| read.outcome == ReceiptOutcome::Misconfigured) {
                alarm(&failure.code, failure, alarms);
            }
            let ticket = &read.due.ticket;
            let gone = read.outcome == ReceiptOutcome::Unregistered;
            if gone && self.clear_token(&ticket.user_id, &ticket.token).await.is_err() && read.due.age < LIFE {
                // Its token is needed once more: the ticket comes again.
                continue;
            }
            settled.push(TicketReceipt { id: ticket.id.clone(), receipt: read.says() });
        }
        let noted = self.store.settle_tickets(&settled).await?;
        let outcomes: HashMap<&str, ReceiptOutcome> =
            read.iter().map(|read| (read.due.ticket.id.as_str(), read.outcome)).collect();
        for outcome in noted.iter().filter_map(|id| outcomes.get(id.as_str())) {
            metrics::counter!("herald_receipts_total", "outcome" => outcome.as_str()).increment(1);
            if *outcome == ReceiptOutcome::Misconfigured {
                metrics::counter!("herald_credentials_rejected_total", "dependency" => "expo").increment(1);
            }
        }
        Ok(())
    }
}

/// A ticket whose receipt is known, or will never be.
struct Read {
    due: DueTicket,
    outcome: ReceiptOutcome,
    failure: Option<Failure>,
}

impl Read {
    /// Returns `None` when there is no receipt yet.
    fn new(receipt: Option<Receipt>, due: DueTicket) -> Option<Read> {
        let (outcome, failure) = match receipt {
            Some(Receipt::Ok) => (ReceiptOutcome::Ok, None),
            Some(Receipt::Failed(failure)) => {
                // Expo quotes push tokens, and not all have the form that is recognised everywhere.
                let detail = match due.ticket.token.as_str() {
                    "" => failure.detail,
                    token => failure.detail.replace(token, "[push token]"),
                };
                let failure = Failure { detail, ..failure };
                (receipt::outcome(&failure), Some(failure))
            }
            None if due.age >= LIFE => (ReceiptOutcome::Unknown, None),
            None => return None,
        };
        Some(Read { due, outcome, failure })
    }

    /// Returns what the ledger keeps.
    fn says(&self) -> String {
        match (&self.failure, self.outcome) {
            (Some(failure), _) => failure.to_string(),
            (None, ReceiptOutcome::Unknown) => RECEIPT_UNKNOWN.to_owned(),
            (None, _) => RECEIPT_OK.to_owned(),
        }
    }
}

/// Raises an alarm about what somebody has to mend, at most once a minute for each code.
fn alarm(code: &str, failure: &Failure, alarms: &mut HashMap<&'static str, Instant>) {
    let Some((code, fix)) = receipt::fix(code) else { return };
    if alarms.get(code).is_none_or(|at| at.elapsed() >= ALARM_PAUSE) {
        alarms.insert(code, Instant::now());
        tracing::error!(code, "Expo's receipts: {failure}; check {fix}. No push token is cleared because of this");
    }
}

/// Returns the pause after so many failures before this one: from five seconds, doubling, spread by half.
fn longer(failures: u32) -> Duration {
    let pause = Duration::from_secs(5).saturating_mul(2u32.saturating_pow(failures.min(10))).min(LONGEST_PAUSE);
    pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)
}
