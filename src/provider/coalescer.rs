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
use tokio::sync::oneshot;

/// How much one request may carry and how many may be out at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At least one; zero counts as one.
    pub requests: usize,
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
    limits: Limits,
    send: Box<Send<I, O>>,
    state: Mutex<Waiting<I, O>>,
}

struct Waiting<I, O> {
    items: VecDeque<Item<I, O>>,
    requests_out: usize,
}

/// An item whose caller awaits its answer.
struct Item<I, O> {
    item: I,
    weight: usize,
    answer: oneshot::Sender<O>,
}

impl<I: std::marker::Send + 'static, O: std::marker::Send + 'static> Coalescer<I, O> {
    /// Makes a coalescer. `send` makes one request and returns one answer per item, in order.
    pub fn new<F>(limits: Limits, send: F) -> Self
    where
        F: Fn(Vec<I>) -> BoxFuture<'static, Vec<O>> + std::marker::Send + Sync + 'static,
    {
        let state = Mutex::new(Waiting { items: VecDeque::new(), requests_out: 0 });
        Coalescer { inner: Arc::new(Inner { limits, send: Box::new(send), state }) }
    }

    /// Returns the answer for `item`, which travels in the next request that has room for it. Dropping the future
    /// withdraws the item unless its request is out already.
    pub async fn ask(&self, item: I, weight: usize) -> Result<O, Lost> {
        let (answer, receiver) = oneshot::channel();
        let start = {
            let mut state = self.inner.state.lock().expect("no panic while the lock is held");
            state.items.push_back(Item { item, weight, answer });
            let start = state.requests_out < self.inner.limits.requests.max(1);
            state.requests_out += usize::from(start);
            start
        };
        if start {
            Slot::start(self.inner.clone());
        }
        receiver.await.map_err(|_| Lost)
    }
}

/// One of the requests allowed out at once.
struct Slot<I: std::marker::Send + 'static, O: std::marker::Send + 'static> {
    inner: Arc<Inner<I, O>>,
    given_back: bool,
}

impl<I: std::marker::Send + 'static, O: std::marker::Send + 'static> Slot<I, O> {
    // Not on a tracker: it ends with the last item waiting, and every item has a caller who is tracked.
    fn start(inner: Arc<Inner<I, O>>) {
        tokio::spawn(Slot { inner, given_back: false }.run());
    }

    async fn run(mut self) {
        // Callers that are ready in this very moment get to join the first request.
        tokio::task::yield_now().await;
        while let Some((items, answers)) = self.take() {
            let expected = items.len();
            let request = async {
                let replies = (self.inner.send)(items).await;
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

    /// Takes what the next request carries. When nothing waits the place is given back under the same lock, so that a
    /// newcomer either is seen here or starts a request of its own.
    fn take(&mut self) -> Option<(Vec<I>, Vec<oneshot::Sender<O>>)> {
        let mut state = self.inner.state.lock().expect("no panic while the lock is held");
        let limits = self.inner.limits;
        let (mut items, mut answers, mut weight) = (Vec::new(), Vec::new(), 0usize);
        while let Some(next) = state.items.front() {
            let fits = items.len() < limits.items && weight.saturating_add(next.weight) <= limits.weight;
            if next.answer.is_closed() {
                state.items.pop_front();
            } else if fits || items.is_empty() {
                let next = state.items.pop_front().expect("front was just seen");
                weight += next.weight;
                items.push(next.item);
                answers.push(next.answer);
            } else {
                break;
            }
        }
        if items.is_empty() {
            state.requests_out -= 1;
            self.given_back = true;
            return None;
        }
        Some((items, answers))
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
        if state.requests_out == 0 {
            state.items.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::sync::Semaphore;

    use super::*;

    const WIDE: Limits = Limits { requests: 1, items: 100, weight: usize::MAX };

    /// A coalescer whose requests wait for a permit each, and what each request carried.
    fn gated(limits: Limits) -> (Coalescer<u32, u32>, Arc<Semaphore>, Arc<Mutex<Vec<Vec<u32>>>>) {
        let permits = Arc::new(Semaphore::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (held, seen) = (permits.clone(), requests.clone());
        let coalescer = Coalescer::new(limits, move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.clone());
            let held = held.clone();
            async move {
                held.acquire().await.unwrap().forget();
                items.iter().map(|item| item * 2).collect()
            }
            .boxed()
        });
        (coalescer, permits, requests)
    }

    /// Asks for `item` in a task of its own.
    fn asking(coalescer: &Coalescer<u32, u32>, item: u32, weight: usize) -> tokio::task::JoinHandle<Result<u32, Lost>> {
        let coalescer = coalescer.clone();
        tokio::spawn(async move { coalescer.ask(item, weight).await })
    }

    /// Lets every task run until nothing more happens on this single-threaded runtime.
    async fn settle() {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }

    fn sizes(requests: &Mutex<Vec<Vec<u32>>>) -> Vec<usize> {
        requests.lock().unwrap().iter().map(Vec::len).collect()
    }

    #[tokio::test]
    async fn a_hundred_waiting_items_travel_in_one_request() {
        let (coalescer, permits, requests) = gated(WIDE);
        let first = asking(&coalescer, 1000, 1);
        settle().await;
        let waiting: Vec<_> = (0..100).map(|item| asking(&coalescer, item, 1)).collect();
        settle().await;
        assert_eq!(sizes(&requests), [1]);
        permits.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(2000));
        for (item, answer) in (0..100).zip(waiting) {
            assert_eq!(answer.await.unwrap(), Ok(item * 2));
        }
        assert_eq!(sizes(&requests), [1, 100]);
    }

    #[tokio::test]
    async fn count_and_weight_bound_a_request_and_a_heavy_item_goes_alone() {
        for (limits, weights, expected) in [
            (Limits { requests: 1, items: 3, weight: 100 }, vec![1; 7], vec![1, 3, 3, 1]),
            (Limits { requests: 1, items: 9, weight: 10 }, vec![4, 4, 4, 10, 3], vec![1, 2, 1, 1, 1]),
            (Limits { requests: 1, items: 9, weight: 10 }, vec![4, 11, 4], vec![1, 1, 1, 1]),
            (Limits { requests: 0, items: 9, weight: 10 }, vec![1, 1], vec![1, 2]),
        ] {
            let (coalescer, permits, requests) = gated(limits);
            let first = asking(&coalescer, 0, 0);
            settle().await;
            let waiting: Vec<_> = weights.iter().map(|weight| asking(&coalescer, 1, *weight)).collect();
            settle().await;
            permits.add_permits(100);
            assert_eq!(first.await.unwrap(), Ok(0));
            for answer in waiting {
                assert_eq!(answer.await.unwrap(), Ok(2));
            }
            assert_eq!(sizes(&requests), expected, "{weights:?}");
        }
    }

    #[tokio::test]
    async fn a_withdrawn_item_is_not_sent() {
        let (coalescer, permits, requests) = gated(WIDE);
        let first = asking(&coalescer, 1, 1);
        settle().await;
        let gone = asking(&coalescer, 2, 1);
        let stays = asking(&coalescer, 3, 1);
        settle().await;
        gone.abort();
        settle().await;
        permits.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(2));
        assert_eq!(stays.await.unwrap(), Ok(6));
        assert_eq!(*requests.lock().unwrap(), [vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn a_panicking_request_is_lost_to_its_own_items_only() {
        let coalescer = Coalescer::new(Limits { items: 2, ..WIDE }, |items: Vec<u32>| {
            assert!(items != [7], "before the request");
            async move {
                tokio::task::yield_now().await;
                assert!(!items.contains(&13), "within the request");
                items
            }
            .boxed()
        });
        let answers: Vec<_> = [7, 1, 13, 2, 3].into_iter().map(|item| asking(&coalescer, item, 1)).collect();
        let mut told = Vec::new();
        for answer in answers {
            told.push(answer.await.unwrap());
        }
        // 7 and 1 share the first request, 13 and 2 the second.
        assert_eq!(told, [Ok(7), Ok(1), Err(Lost), Err(Lost), Ok(3)]);
        assert_eq!(coalescer.ask(7, 1).await, Err(Lost));
        assert_eq!(coalescer.ask(4, 1).await, Ok(4));
    }

    #[test]
    fn a_runtime_that_ends_with_a_request_out_tells_those_who_wait_elsewhere() {
        let (coalescer, _permits, requests) = gated(WIDE);
        let inner = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        inner.block_on(async {
            asking(&coalescer, 1, 1);
            while requests.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        });
        let waiting = other.spawn({
            let coalescer = coalescer.clone();
            async move { coalescer.ask(2, 1).await }
        });
        while coalescer.inner.state.lock().unwrap().items.is_empty() {
            std::thread::yield_now();
        }
        inner.shutdown_timeout(Duration::from_secs(5));
        assert_eq!(other.block_on(waiting).unwrap(), Err(Lost));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_is_stuck_under_stress() {
        let out = Arc::new(AtomicUsize::new(0));
        let counted = out.clone();
        let limits = Limits { requests: 3, items: 7, weight: 40 };
        let coalescer = Coalescer::new(limits, move |items: Vec<u32>| {
            let out = counted.clone();
            async move {
                assert!(out.fetch_add(1, Ordering::SeqCst) < 3, "more requests out than allowed");
                for _ in 0..items[0] % 3 {
                    tokio::task::yield_now().await;
                }
                out.fetch_sub(1, Ordering::SeqCst);
                assert!(!items.iter().any(|item| item % 1000 == 66), "one bad request");
                items.iter().map(|item| item * 2).collect()
            }
            .boxed()
        });
        let lost = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..64u32 {
            let (coalescer, lost) = (coalescer.clone(), lost.clone());
            tasks.spawn(async move {
                for step in 0..200u32 {
                    let item = worker * 1000 + step;
                    if step % 17 == 3 {
                        // A caller that gives up at once: its item may or may not be out already.
                        let _ = coalescer.ask(item, 1).now_or_never();
                        continue;
                    }
                    match coalescer.ask(item, (step % 9) as usize).await {
                        Ok(answer) => assert_eq!(answer, item * 2),
                        Err(Lost) => _ = lost.fetch_add(1, Ordering::SeqCst),
                    }
                }
            });
        }
        let all = async {
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
            // The last requests give their places back just after they have answered.
            while coalescer.inner.state.lock().unwrap().requests_out > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("somebody is stuck");
        let left = coalescer.inner.state.lock().unwrap().items.len();
        assert_eq!((left, out.load(Ordering::SeqCst)), (0, 0));
        assert!(lost.load(Ordering::SeqCst) >= 64, "every worker's bad request is told");
    }
}
