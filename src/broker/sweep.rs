//! One sweep through a queue by rotation: every message is taken once, and kept at the tail, sent elsewhere, or dropped.
//!
//! Called by `dead replay|drop`, by the demo, and by `run` when it reads the dead-letter queue into the index. Looking by
//! returning messages would wear out a delivery limit; a rotation wears out nothing. Must never acknowledge a message
//! before its copy is confirmed.

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::time::Instant;

use super::{Broker, BrokerError, Delivery, Destination, Message, marks::Marks};

/// Most messages unacknowledged at once: what a crash in the middle leaves twice.
const IN_HAND: usize = 100;
/// Confirms waited for at once.
const PUBLISHES: usize = 32;

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

/// Takes each message that lies in `queue` now once, and does with it what `decide` says.
pub async fn sweep<B: Broker>(
    broker: &B,
    queue: &str,
    mut decide: impl FnMut(&Delivery) -> Verdict,
) -> Result<Swept, BrokerError> {
    let settle = |_| async { Ok::<(), BrokerError>(()) }.boxed();
    sweep_and(broker, queue, None, |delivery| (decide(delivery), ()), settle).await
}

/// Like [`sweep`], with at most `per_second` replacements a second. `settle` is told what `decide` said beside the verdict,
/// for a number of messages that were replaced (confirmed) or are dropped, before they are acknowledged. When it fails they
/// stay in the queue, and the sweep ends.
pub async fn sweep_and<B: Broker, T, E: From<BrokerError>>(
    broker: &B,
    queue: &str,
    per_second: Option<u32>,
    mut decide: impl FnMut(&Delivery) -> (Verdict, T),
    mut settle: impl FnMut(Vec<T>) -> BoxFuture<'static, Result<(), E>>,
) -> Result<Swept, E> {
    // Kept messages come round again behind those that lay there at the start.
    let mut left = broker.depth(queue).await?.ready;
    let mut walk = broker.walk(queue).await?;
    let mut swept = Swept::default();
    let ended = async {
        while left > 0 {
            let begun = Instant::now();
            let mut hand = Vec::new();
            let mut paced = 0;
            while left > 0 && hand.len() < IN_HAND && per_second.is_none_or(|most| paced < most) {
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
                tokio::time::sleep_until(begun + Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }
    .await;
    walk.close().await;
    ended.map(|()| swept)
}

/// Publishes what is to be published, then settles each message whose copy is confirmed. What fails is not acknowledged and
/// goes back to its place; its neighbours' copies are out, so they are settled all the same.
async fn act<B: Broker, T, E: From<BrokerError>>(
    broker: &B,
    queue: &str,
    hand: Vec<(Delivery, Verdict, T)>,
    swept: &mut Swept,
    settle: &mut impl FnMut(Vec<T>) -> BoxFuture<'static, Result<(), E>>,
) -> Result<(), E> {
    let tail = Destination::Queue(queue.to_owned());
    let copies: Vec<_> = hand
        .iter()
        .map(|(delivery, verdict, _)| match verdict {
            Verdict::Keep => Some((tail.clone(), kept(&delivery.message))),
            Verdict::Replace(to, message) => Some((to.clone(), message.clone())),
            Verdict::Drop => None,
        })
        .collect();
    let publish = |copy: Option<(Destination, Message)>| async move {
        match copy {
            Some((to, message)) => broker.publish(&to, message).await,
            None => Ok(()),
        }
    };
    let published: Vec<_> = stream::iter(copies).map(publish).buffered(PUBLISHES).collect().await;

    let mut failed: Option<E> = None;
    let (mut kept, mut gone, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for ((delivery, verdict, tag), published) in hand.into_iter().zip(published) {
        match (published, verdict) {
            (Err(error), _) => failed = failed.or(Some(error.into())),
            (Ok(()), Verdict::Keep) => kept.push(delivery),
            (Ok(()), verdict) => {
                gone.push((delivery, verdict));
                told.push(tag);
            }
        }
    }
    let mut acknowledged = true;
    for delivery in kept {
        swept.kept += 1;
        acknowledged &= delivery.receipt.ack().await;
    }
    if !told.is_empty() {
        match settle(told).await {
            Ok(()) => {
                for (delivery, verdict) in gone {
                    swept.replaced += u64::from(matches!(verdict, Verdict::Replace(..)));
                    swept.dropped += u64::from(verdict == Verdict::Drop);
                    acknowledged &= delivery.receipt.ack().await;
                }
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if !acknowledged {
        let lost = "the channel ended during the sweep; some messages may lie there twice";
        failed = failed.or(Some(BrokerError::Unavailable(lost.to_owned()).into()));
    }
    failed.map_or(Ok(()), Err)
}

/// Returns the copy that goes to the tail: what may travel on, and herald's own marks. Why the broker put it there, if it was
/// the broker, becomes a mark: `x-death` itself may not travel.
fn kept(message: &Message) -> Message {
    let marks = Marks::of_letter(message);
    let mut copy = message.copy().message;
    marks.write(&mut copy);
    copy
}
