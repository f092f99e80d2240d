//! One sweep through a queue by rotation: every message is taken once, and kept at the tail, sent elsewhere, or dropped.
//!
//! Called by `letters` for replays and drops, by the demo, and by `run` when it reads the dead-letter queue into the index. Looking by
//! returning messages would wear out a delivery limit; a rotation wears out nothing. Must never acknowledge a message
//! before its copy is confirmed.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Broker, BrokerError, Delivery, Destination, Message, marks::Marks};

/// Most messages unacknowledged at once: what a crash in the middle leaves twice. Under 32, because a RabbitMQ channel passes
/// on only so many acknowledgements of a quorum queue at a time, keeps the rest to itself, and forgets them when it is closed
/// (measured on 3.10.8: of 50 acknowledged just before the close, 5 and 17 lay there again).
const IN_HAND: usize = 30;

/// What becomes of one message.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "at most a hundred live at once")]
pub enum Verdict {
    /// It goes to the tail of the queue.
    Keep,
    /// This message is published there instead.
    Replace(Destination, Message),
    /// It ends here.
    Drop,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub kept: u64,
    pub replaced: u64,
    pub dropped: u64,
}

/// How fast and how long.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// At most so many replacements a second.
    pub per_second: Option<u32>,
    /// Cancelled: no further message is taken; what is in hand is settled.
    pub stop: CancellationToken,
}

/// Takes each message that lies in `queue` now once, and does with it what `decide` says.
pub async fn sweep<B: Broker>(
    broker: &B,
    queue: &str,
    mut decide: impl FnMut(&Delivery) -> Verdict,
) -> Result<Swept, BrokerError> {
    let settle = |_| async { Ok::<(), BrokerError>(()) }.boxed();
    sweep_and(broker, queue, &Pace::default(), |delivery| (decide(delivery), ()), settle).await
}

/// Like [`sweep`], at a `pace`. `settle` is told what `decide` said beside the verdict,
/// for a number of messages that were replaced (confirmed) or are dropped, before they are acknowledged. When it fails they
/// stay in the queue, and the sweep ends.
pub async fn sweep_and<B: Broker, T, E: From<BrokerError>>(
    broker: &B,
    queue: &str,
    pace: &Pace,
    mut decide: impl FnMut(&Delivery) -> (Verdict, T),
    mut settle: impl FnMut(Vec<T>) -> BoxFuture<'static, Result<(), E>>,
) -> Result<Swept, E> {
    let Pace { per_second, stop } = pace;
    // Kept messages come round again behind those that lay there at the start.
    let mut left = broker.depth(queue).await?.ready;
    let mut walk = broker.walk(queue).await?;
    let mut swept = Swept::default();
    let ended = async {
        while left > 0 && !stop.is_cancelled() {
            let begun = Instant::now();
            let mut hand = Vec::new();
            let mut paced = 0;
            let room = |held: usize, paced| held < IN_HAND && per_second.is_none_or(|most| paced < most);
            while left > 0 && room(hand.len(), paced) && !stop.is_cancelled() {
                let Some(delivery) = walk.next().await? else {
                    left = 0;
                    break;
                };
                left -= 1;
                let (verdict, told) = decide(&delivery);
                paced += u32::from(matches!(verdict, Verdict::Replace(..)));
                hand.push((delivery, verdict, told));
            }
            act(broker, queue, hand, &mut swept, &mut settle).await?;
            if per_second.is_some() && paced > 0 && left > 0 {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep_until(begun + Duration::from_secs(1)) => {}
                }
            }
        }
        Ok(())
    }
    .await;
    walk.close().await;
    ended.map(|()| swept)
}

/// Publishes what is to be published, one after the other, because replayed events keep their order; then settles each
/// message whose copy is confirmed. What comes after a failure is not acknowledged and goes back to its place.
async fn act<B: Broker, T, E: From<BrokerError>>(
    broker: &B,
    queue: &str,
    hand: Vec<(Delivery, Verdict, T)>,
    swept: &mut Swept,
    settle: &mut impl FnMut(Vec<T>) -> BoxFuture<'static, Result<(), E>>,
) -> Result<(), E> {
    let tail = Destination::Queue(queue.to_owned());
    let mut failed = None;
    let mut now = Swept::default();
    let (mut done, mut told) = (Vec::new(), Vec::new());
    for (delivery, verdict, tag) in hand {
        let (published, count) = match verdict {
            Verdict::Keep => (broker.publish(&tail, kept(&delivery.message)).await, &mut now.kept),
            Verdict::Replace(to, message) => {
                told.push(tag);
                (broker.publish(&to, message).await, &mut now.replaced)
            }
            Verdict::Drop => {
                told.push(tag);
                (Ok(()), &mut now.dropped)
            }
        };
        if let Err(error) = published {
            told.truncate(usize::try_from(now.replaced + now.dropped).unwrap_or(usize::MAX));
            failed = Some(error);
            break;
        }
        *count += 1;
        done.push(delivery);
    }
    if !told.is_empty() {
        settle(told).await?;
    }
    for delivery in done {
        if !delivery.receipt.ack().await {
            let lost = "the channel ended during the sweep; some messages may lie there twice";
            failed = failed.or_else(|| Some(BrokerError::Unavailable(lost.to_owned())));
        }
    }
    swept.kept += now.kept;
    swept.replaced += now.replaced;
    swept.dropped += now.dropped;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Returns the copy that goes to the tail: what may travel on, and herald's own marks. Why the broker put it there, if it was
/// the broker, becomes a mark: `x-death` itself may not travel.
fn kept(message: &Message) -> Message {
    let marks = Marks::of_letter(message);
    let mut copy = message.copy().message;
    marks.write(&mut copy);
    copy
}
