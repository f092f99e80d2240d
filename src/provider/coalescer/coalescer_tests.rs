//! The coalescer under one caller, a hundred, and many that give up or panic.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::*;

const WIDE: Limits = Limits { requests: 1, eager: 1, items: 100, weight: usize::MAX };

/// What each request carried.
type Requests = Arc<Mutex<Vec<Vec<u32>>>>;

/// A coalescer whose requests wait for a permit each, and what each request carried.
fn gated(limits: Limits) -> (Coalescer<u32, u32>, Arc<Semaphore>, Requests) {
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
        (Limits { requests: 1, eager: 1, items: 3, weight: 100 }, vec![1; 7], vec![1, 3, 3, 1]),
        (Limits { requests: 1, eager: 1, items: 9, weight: 10 }, vec![4, 4, 4, 10, 3], vec![1, 2, 1, 1, 1]),
        (Limits { requests: 1, eager: 1, items: 9, weight: 10 }, vec![4, 11, 4], vec![1, 1, 1, 1]),
        (Limits { requests: 0, eager: 0, items: 9, weight: 10 }, vec![1, 1], vec![1, 2]),
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
async fn beside_the_eager_ones_a_request_is_at_least_half_full() {
    for (weights, expected) in [
        // The second waits until it has company; what is left when a place becomes free waits for the last one.
        (vec![1, 1, 1], vec![1, 2, 1]),
        // Half of the weight is company enough.
        (vec![10, 1], vec![1, 1, 1]),
        (vec![1, 1, 1, 1, 1], vec![1, 2, 2, 1]),
    ] {
        let (coalescer, permits, requests) = gated(Limits { requests: 3, eager: 1, items: 4, weight: 20 });
        let mut asked = vec![asking(&coalescer, 0, 1)];
        for weight in &weights {
            settle().await;
            asked.push(asking(&coalescer, 1, *weight));
        }
        settle().await;
        let out = sizes(&requests);
        assert_eq!(out, expected[..expected.len() - 1], "{weights:?}: what is left has no company");
        for place in 1..out.len() {
            permits.add_permits(1);
            settle().await;
            assert_eq!(sizes(&requests), out, "{weights:?}: {place} of {} places are free", out.len());
        }
        permits.add_permits(2);
        for answer in asked {
            answer.await.unwrap().unwrap();
        }
        assert_eq!(sizes(&requests), expected, "{weights:?}");
    }
}

#[tokio::test]
async fn beside_a_large_request_there_is_no_small_one() {
    let (coalescer, permits, requests) = gated(Limits { requests: 4, eager: 2, items: 100, weight: usize::MAX });
    let mut asked: Vec<_> = (0..4).map(|item| asking(&coalescer, item, 1)).collect();
    for (waiting, expected) in [(1, vec![4]), (2, vec![4]), (3, vec![4, 3]), (1, vec![4, 3])] {
        settle().await;
        asked.push(asking(&coalescer, 9, 1));
        settle().await;
        assert_eq!(sizes(&requests), expected, "with {waiting} waiting");
    }
    // The four are answered: beside the three one is too few, beside nothing it is not.
    permits.add_permits(1);
    settle().await;
    assert_eq!(sizes(&requests), [4, 3]);
    permits.add_permits(2);
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(sizes(&requests), [4, 3, 1]);
    settle().await;
    assert_eq!(coalescer.inner.state.lock().unwrap().items_out, 0);
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
    let limits = Limits { requests: 3, eager: 2, items: 7, weight: 40 };
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
    let (left, items_out) = {
        let state = coalescer.inner.state.lock().unwrap();
        (state.items.len(), state.items_out)
    };
    assert_eq!((left, items_out, out.load(Ordering::SeqCst)), (0, 0, 0));
    assert!(lost.load(Ordering::SeqCst) >= 64, "every worker's bad request is told");
}
