//! The one piece that carries all batching: callers await single answers, requests carry many.
//!
//! Called by both providers, the ledger and the token look-up. While as many requests are out as allowed, newcomers
//! gather, and the next request takes them all, up to a count and a weight. At low load nobody waits. It never repeats a
//! request, never lets one item fail its neighbours and never holds more than its callers wait for: an item whose caller
//! gave up is withdrawn if it has not been sent.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, future::BoxFuture};
use opentelemetry::trace::SpanContext;
use tokio::sync::oneshot;

use crate::trace::{self, Span};

/// How much one request may carry and how many may be out at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At least one; zero counts as one.
    pub requests: usize,
    /// A request beside others carries more than one part in so many of the items that are out; beside so many requests it is at least half
    /// full. What would be a request for a few is better carried by the next that is free. With as many as `requests` none has to.
    pub eager: usize,
    pub items: usize,
    /// Sum of the items' weights, in whatever unit the caller weighs (bytes).
    pub weight: usize,
}

/// The request died without an answer (its task panicked); what it carried may or may not have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request ended without an answer")]
pub struct Lost;

type Send<I, O> = dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<O>> + std::marker::Send + Sync;

/// Gathers items of type `I` into requests and gives each caller its own answer.
pub struct Coalescer<I, O> {
    inner: Arc<Inner<I, O>>,
}

impl<I, O> Clone for Coalescer<I, O> {
    fn clone(&self) -> Self {
        Coalescer { inner: self.inner.clone() }
    }
}

struct Inner<I, O> {
    /// Names the span of a request; `None`: none is made.
    name: Option<&'static str>,
    limits: Limits,
    send: Box<Send<I, O>>,
    state: Mutex<Waiting<I, O>>,
}

struct Waiting<I, O> {
    items: VecDeque<Item<I, O>>,
    /// Sum of their weights.
    weight: usize,
    requests_out: usize,
    /// What they carry.
    items_out: usize,
}

impl<I, O> Waiting<I, O> {
    /// Tells whether what waits deserves a request beside `others`. With none out it always does, so that nothing waits for ever.
    fn deserves(&self, limits: &Limits, others: usize) -> bool {
        let full = self.items.len() * 2 >= limits.items || self.weight >= limits.weight / 2;
        let enough = limits.eager >= limits.requests || self.items.len() * limits.eager > self.items_out;
        others < limits.requests.max(1) && (others < limits.eager.max(1) && enough || full)
    }
}

/// An item whose caller awaits its answer.
struct Item<I, O> {
    item: I,
    weight: usize,
    answer: oneshot::Sender<O>,
    /// The span of the event that it is for.
    event: Option<SpanContext>,
}

/// What one request carries.
struct Taken<I, O> {
    items: Vec<I>,
    answers: Vec<oneshot::Sender<O>>,
    events: Vec<SpanContext>,
}

impl<I: std::marker::Send + 'static, O: std::marker::Send + 'static> Coalescer<I, O> {
    /// Makes a coalescer. `send` makes one request and returns one answer per item, in order.
    pub fn new<F>(limits: Limits, send: F) -> Self
    where
        F: Fn(Vec<I>) -> BoxFuture<'static, Vec<O>> + std::marker::Send + Sync + 'static,
    {
        Self::make(None, limits, send)
    }

    /// Makes a coalescer whose requests stand in the traces of the events they carry something of, as `name`.
    pub fn traced<F>(name: &'static str, limits: Limits, send: F) -> Self
    where
        F: Fn(Vec<I>) -> BoxFuture<'static, Vec<O>> + std::marker::Send + Sync + 'static,
    {
        Self::make(Some(name), limits, send)
    }

    fn make<F>(name: Option<&'static str>, limits: Limits, send: F) -> Self
    where
        F: Fn(Vec<I>) -> BoxFuture<'static, Vec<O>> + std::marker::Send + Sync + 'static,
    {
        let state = Mutex::new(Waiting { items: VecDeque::new(), weight: 0, requests_out: 0, items_out: 0 });
        Coalescer { inner: Arc::new(Inner { name, limits, send: Box::new(send), state }) }
    }

    /// Returns the answer for `item`, which travels in the next request that has room for it. Dropping the future
    /// withdraws the item unless its request is out already. Not an `async fn`, which would hold the item beside the queue.
    pub fn ask(&self, item: I, weight: usize) -> impl Future<Output = Result<O, Lost>> + use<I, O> {
        let (answer, receiver) = oneshot::channel();
        let event = self.inner.name.and_then(|_| trace::here());
        let start = {
            let mut state = self.inner.state.lock().expect("no panic while the lock is held");
            state.items.push_back(Item { item, weight, answer, event });
            state.weight = state.weight.saturating_add(weight);
            let start = state.deserves(&self.inner.limits, state.requests_out);
            state.requests_out += usize::from(start);
            start
        };
        if start {
            Slot::start(self.inner.clone());
        }
        async move { receiver.await.map_err(|_| Lost) }
    }
}

/// One of the requests allowed out at once.
struct Slot<I: std::marker::Send + 'static, O: std::marker::Send + 'static> {
    inner: Arc<Inner<I, O>>,
    given_back: bool,
    carries: usize,
}

impl<I: std::marker::Send + 'static, O: std::marker::Send + 'static> Slot<I, O> {
    // Not on a tracker: it ends with the last item waiting, and every item has a caller who is tracked.
    fn start(inner: Arc<Inner<I, O>>) {
        tokio::spawn(Slot { inner, given_back: false, carries: 0 }.run());
    }

    async fn run(mut self) {
        while let Some(Taken { items, answers, events }) = self.gathered().await {
            let expected = items.len();
            let request = async {
                let span = Span::of_batch(self.inner.name.unwrap_or_default(), events, expected);
                let replies = span.run((self.inner.send)(items)).await;
                debug_assert_eq!(replies.len(), expected, "one answer per item");
                replies
            };
            // A request that panics leaves its own callers without an answer (`Lost`); those behind it go on.
            let Ok(replies) = AssertUnwindSafe(request).catch_unwind().await else { continue };
            for (answer, reply) in answers.into_iter().zip(replies) {
                // A caller that has gone needs no answer.
                let _ = answer.send(reply);
            }
        }
    }

    /// Lets callers join for as long as they keep coming, and takes what the next request carries. An answer that many waited for
    /// makes many callers ready at once: without this the first few of them would make up requests of their own.
    async fn gathered(&mut self) -> Option<Taken<I, O>> {
        let mut seen = 0;
        loop {
            tokio::task::yield_now().await;
            let waiting = self.inner.state.lock().expect("no panic while the lock is held").items.len();
            if waiting <= seen || waiting >= self.inner.limits.items {
                return self.take();
            }
            seen = waiting;
        }
    }

    /// Takes what the next request carries. When nothing waits, or too little, the place is given back under the same lock, so that
    /// a newcomer either is seen here or starts a request of its own.
    fn take(&mut self) -> Option<Taken<I, O>> {
        let mut state = self.inner.state.lock().expect("no panic while the lock is held");
        let limits = self.inner.limits;
        state.items_out -= std::mem::take(&mut self.carries);
        let (mut items, mut answers, mut events, mut weight) = (Vec::new(), Vec::new(), Vec::new(), 0usize);
        let deserved = state.deserves(&limits, state.requests_out - 1);
        while deserved && let Some(next) = state.items.front() {
            let fits = items.len() < limits.items && weight.saturating_add(next.weight) <= limits.weight;
            let gone = next.answer.is_closed();
            if !gone && !fits && !items.is_empty() {
                break;
            }
            let next = state.items.pop_front().expect("front was just seen");
            state.weight = state.weight.saturating_sub(next.weight);
            if !gone {
                weight += next.weight;
                items.push(next.item);
                answers.push(next.answer);
                events.extend(next.event);
            }
        }
        if items.is_empty() {
            state.requests_out -= 1;
            self.given_back = true;
            return None;
        }
        self.carries = items.len();
        state.items_out += self.carries;
        Some(Taken { items, answers, events })
    }
}

impl<I: std::marker::Send + 'static, O: std::marker::Send + 'static> Drop for Slot<I, O> {
    fn drop(&mut self) {
        if self.given_back {
            return;
        }
        // The runtime is going down with a request out. Nothing may be spawned here (it would be dropped at once, and end
        // up here again); whoever still waits from elsewhere hears `Lost` instead of waiting for ever.
        let Ok(mut state) = self.inner.state.lock() else { return };
        state.requests_out -= 1;
        state.items_out -= self.carries;
        if state.requests_out == 0 {
            state.items.clear();
            state.weight = 0;
        }
    }
}

#[cfg(test)]
#[path = "coalescer/coalescer_tests.rs"]
mod tests;
