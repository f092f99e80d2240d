//! Runs a batch so that one bad row never fails its neighbours and no key meets itself in a statement.
//!
//! Called by the coalescers of claims, records and token look-ups. It repeats a statement only in smaller parts, and only
//! when the database refused it for its data.

use std::ops::Range;

use futures::future::BoxFuture;

use super::StoreError;

/// Runs `run` over `items` and returns one answer per item, in order. Each statement carries every key once, sorted, so that
/// two workers lock rows in the same order; items with an equal key go in statements one after the other, in the order of
/// arrival. `run` answers in the order of its items.
pub(super) async fn each<I, O>(
    items: Vec<I>,
    key: fn(&I) -> &str,
    run: impl Fn(&[I]) -> BoxFuture<'static, Result<Vec<O>, StoreError>>,
) -> Vec<Result<O, StoreError>> {
    let mut answers: Vec<_> = items.iter().map(|_| Err(StoreError::Unavailable("not reached".to_owned()))).collect();
    let mut left: Vec<(usize, I)> = items.into_iter().enumerate().collect();
    left.sort_by(|(_, a), (_, b)| key(a).cmp(key(b)));
    while !left.is_empty() {
        let (mut places, mut round, mut later): (Vec<usize>, Vec<I>, Vec<(usize, I)>) = Default::default();
        for (place, item) in left {
            if round.last().is_some_and(|last| key(last) == key(&item)) {
                later.push((place, item));
            } else {
                places.push(place);
                round.push(item);
            }
        }
        for (place, answer) in places.into_iter().zip(split(&round, &run).await) {
            answers[place] = answer;
        }
        left = later;
    }
    answers
}

/// Runs `items` in one statement; when the database refuses their data, in two halves, down to the row.
async fn split<I, O>(
    items: &[I],
    run: &impl Fn(&[I]) -> BoxFuture<'static, Result<Vec<O>, StoreError>>,
) -> Vec<Result<O, StoreError>> {
    let mut answers = Vec::with_capacity(items.len());
    let mut waiting: Vec<Range<usize>> = vec![0..items.len()];
    while let Some(range) = waiting.pop() {
        match run(&items[range.clone()]).await {
            Ok(outputs) => answers.extend(outputs.into_iter().map(Ok)),
            Err(StoreError::Data(_)) if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                waiting.extend([middle..range.end, range.start..middle]);
            }
            Err(error @ StoreError::Data(_)) => answers.push(Err(error)),
            // Nothing about the rows: the rest would only wait for the same answer.
            Err(error) => {
                answers.resize_with(items.len(), || Err(error.clone()));
                break;
            }
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Runs `items`, where `bad` is refused and `away` loses the database, and returns answers and statements.
    async fn check(items: &[&'static str]) -> (Vec<Result<String, StoreError>>, Vec<String>) {
        let statements = Arc::new(Mutex::new(Vec::new()));
        let log = statements.clone();
        let run = move |part: &[&'static str]| -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
            log.lock().unwrap().push(part.join(" "));
            let answer = if part.contains(&"away") {
                Err(StoreError::Unavailable("gone".into()))
            } else if part.contains(&"bad") {
                Err(StoreError::Data("bad".into()))
            } else {
                Ok(part.iter().map(|item| item.to_uppercase()).collect())
            };
            Box::pin(std::future::ready(answer))
        };
        let answers = each(items.to_vec(), |item| item, run).await;
        let statements = statements.lock().unwrap().clone();
        (answers, statements)
    }

    #[tokio::test]
    async fn a_batch_is_one_statement_sorted() {
        let (answers, statements) = check(&["c", "a", "b"]).await;
        assert_eq!(answers, [Ok("C".into()), Ok("A".into()), Ok("B".into())]);
        assert_eq!(statements, ["a b c"]);
    }

    #[tokio::test]
    async fn equal_keys_go_one_after_the_other() {
        let (answers, statements) = check(&["b", "a", "b", "b"]).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(statements, ["a b", "b", "b"]);
    }

    #[tokio::test]
    async fn a_bad_row_fails_alone() {
        let (answers, statements) = check(&["a", "bad", "c", "d", "e"]).await;
        let failed: Vec<_> = answers.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, false, false, false]);
        assert_eq!(statements, ["a bad c d e", "a bad", "a", "bad", "c d e"]);
    }

    #[tokio::test]
    async fn a_lost_database_fails_all_at_once() {
        let (answers, statements) = check(&["a", "away", "bad"]).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))));
        assert_eq!(statements.len(), 1);
    }
}
