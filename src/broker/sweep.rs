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
    decide: impl FnMut(&Delivery) -> Verdict,
) -> Result<Swept, BrokerError> {
    sweep_and(broker, queue, None, decide, |_| async { Ok::<(), BrokerError>(()) }.boxed()).await
}

/// Like [`sweep`], with at most `per_second` replacements a second, and with `settle` called for every message that was
/// replaced or is dropped, after its replacement is confirmed and before it is acknowledged. An error of `settle` ends the
/// sweep, and the message stays.
pub async fn sweep_and<B: Broker, E: From<BrokerError>>(
    broker: &B,
    queue: &str,
    per_second: Option<u32>,
    mut decide: impl FnMut(&Delivery) -> Verdict,
    mut settle: impl FnMut(&Delivery) -> BoxFuture<'static, Result<(), E>>,
) -> Result<Swept, E> {
    // Kept messages come round again behind those that lay there at the start.
    let mut left = broker.depth(queue).await?.ready;
    let mut walk = broker.walk(queue).await?;
    let mut swept = Swept::default();
    let ended = async {
        while left > 0 {
            let begun = Instant::now();
            let mut hand: Vec<(Delivery, Verdict)> = Vec::new();
            let mut paced = 0;
            while left > 0 && hand.len() < IN_HAND && per_second.is_none_or(|most| paced < most) {
                let Some(delivery) = walk.next().await? else {
                    left = 0;
                    break;
                };
                left -= 1;
                let verdict = decide(&delivery);
                paced += u32::from(matches!(verdict, Verdict::Replace(..)));
                hand.push((delivery, verdict));
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

/// Publishes what is to be published, then settles each message whose copy is confirmed.
async fn act<B: Broker, E: From<BrokerError>>(
    broker: &B,
    queue: &str,
    hand: Vec<(Delivery, Verdict)>,
    swept: &mut Swept,
    settle: &mut impl FnMut(&Delivery) -> BoxFuture<'static, Result<(), E>>,
) -> Result<(), E> {
    let tail = Destination::Queue(queue.to_owned());
    let copies = hand.iter().map(|(delivery, verdict)| match verdict {
        Verdict::Keep => Some((tail.clone(), kept(&delivery.message))),
        Verdict::Replace(to, message) => Some((to.clone(), message.clone())),
        Verdict::Drop => None,
    });
    let published: Vec<Result<(), BrokerError>> = stream::iter(copies.collect::<Vec<_>>())
        .map(|copy| async {
            match copy {
                Some((to, message)) => broker.publish(&to, message).await,
                None => Ok(()),
            }
        })
        .buffered(PUBLISHES)
        .collect()
        .await;
    let mut failed: Option<E> = None;
    for ((delivery, verdict), published) in hand.iter().zip(published) {
        let settled = match (published, verdict) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), Verdict::Keep) => Ok(()),
            (Ok(()), Verdict::Replace(..) | Verdict::Drop) => settle(delivery).await,
        };
        if let Err(error) = settled {
            // Not acknowledged, so it goes back to its place; its neighbours' copies are out and must be settled.
            failed = failed.or(Some(error));
            continue;
        }
        match verdict {
            Verdict::Keep => swept.kept += 1,
            Verdict::Replace(..) => swept.replaced += 1,
            Verdict::Drop => swept.dropped += 1,
        }
        if !delivery.receipt.ack().await {
            let lost = "the channel ended during the sweep; some messages may lie there twice";
            failed = failed.or(Some(BrokerError::Unavailable(lost.to_owned()).into()));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Returns the copy that goes to the tail: what may travel on, and herald's own marks.
fn kept(message: &Message) -> Message {
    let marks = Marks::read(message);
    let mut copy = message.copy().message;
    marks.write(&mut copy);
    copy
}
