//! Acknowledging what a consumer delivered: settled deliveries gather for a moment, and a run of them goes out in one frame.
//!
//! Called by the consumer (taken, close) and by [`Receipt`] (settle). One frame for fifty costs the broker a fraction of fifty
//! frames. What goes out when is the window's to say.

mod window;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use lapin::{Channel, options::BasicAckOptions, types::DeliveryTag};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::window::{Frame, Window};
use super::meters;

/// Longest an acknowledgement may take to be written; after that it is a lost settle.
const WRITE: Duration = Duration::from_secs(10);

/// What a consumer's channel has delivered and how it is acknowledged.
#[derive(Debug)]
pub(super) struct Acks {
    window: Mutex<Window>,
    news: Notify,
    /// Cancelled once the connection has ended.
    over: CancellationToken,
}

/// The task that sends; ends with the consumer.
pub(super) struct Sender {
    acks: Arc<Acks>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Acks {
    /// Begins for a new channel.
    pub(super) fn start(channel: Channel, prefetch: u16, over: CancellationToken) -> Sender {
        let acks = Arc::new(Acks { window: Mutex::new(Window::new(prefetch)), news: Notify::new(), over });
        let stop = CancellationToken::new();
        // Not on a tracker: it ends with the consumer, whose orderly close awaits it.
        let task = tokio::spawn(acks.clone().send(channel, stop.clone()));
        Sender { acks, task, stop: stop.drop_guard() }
    }

    /// Notes that a delivery is settled. `false`: its channel is closed, and it comes again.
    fn settle(&self, tag: DeliveryTag) -> bool {
        let mut window = self.lock();
        if window.closed {
            return false;
        }
        if window.settle(tag, Instant::now()) {
            self.news.notify_one();
        }
        true
    }

    async fn send(self: Arc<Self>, channel: Channel, stop: CancellationToken) {
        loop {
            let (frames, until) = {
                let mut window = self.lock();
                (window.take_due(Instant::now()), window.due())
            };
            if !frames.is_empty() {
                write(&channel, frames).await;
                continue;
            }
            let waited = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.news.notified() => {}
                () = waited => {}
            }
        }
        let rest = {
            let mut window = self.lock();
            window.closed = true;
            window.take(|_| true)
        };
        write(&channel, rest).await;
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().expect("no panic while the lock is held")
    }
}

impl Sender {
    /// Notes that the channel has delivered `tag`, and returns the right to settle it.
    pub(super) fn taken(&self, tag: DeliveryTag, acker: lapin::Acker) -> Receipt {
        self.acks.lock().taken(tag);
        Receipt { acker, gathers: Some((self.acks.clone(), tag)), used: AtomicBool::new(false) }
    }

    /// Sends what is settled; what is settled later is lost.
    pub(super) async fn end(self) {
        drop(self.stop);
        // Bounded by the writing of one batch and the rest.
        let _ = self.task.await;
    }
}

/// Writes frames, in order. AMQP confirms no acknowledgement: written is all that can be known.
async fn write(channel: &Channel, frames: Vec<Frame>) {
    if frames.is_empty() {
        return;
    }
    let begun = Instant::now();
    let sends = frames.iter().map(|frame| channel.basic_ack(frame.tag, BasicAckOptions { multiple: frame.multiple }));
    let written = timeout(WRITE, join_all(sends)).await;
    let results = written.unwrap_or_default().into_iter().map(|sent| sent.is_ok());
    let mut unsent = 0;
    for (frame, sent) in frames.iter().zip(results.chain(std::iter::repeat(false))) {
        if !sent {
            unsent += 1;
            meters::settles_lost(frame.count);
        }
    }
    meters::acknowledged(frames.len() - unsent, begun.elapsed(), true);
    meters::acknowledged(unsent, begun.elapsed(), false);
}

/// The right to settle one delivery.
#[derive(Debug)]
pub struct Receipt {
    acker: lapin::Acker,
    /// Where it gathers, and its tag there. `None`: of a walk, acknowledged by itself at once.
    gathers: Option<(Arc<Acks>, DeliveryTag)>,
    used: AtomicBool,
}

impl Receipt {
    /// Returns the right to settle a delivery of a walk.
    pub(super) fn alone(acker: lapin::Acker) -> Receipt {
        Receipt { acker, gathers: None, used: AtomicBool::new(false) }
    }

    /// Tells whether an acknowledgement could still be sent.
    pub fn usable(&self) -> bool {
        let over = self.gathers.as_ref().is_some_and(|(acks, _)| acks.over.is_cancelled());
        !over && !self.used.load(Ordering::Relaxed) && self.acker.usable()
    }

    /// Acknowledges; `false` if that cannot go out any more, so that the message comes again.
    pub async fn ack(&self) -> bool {
        if !self.usable() || self.used.swap(true, Ordering::Relaxed) {
            return false;
        }
        let Some((acks, tag)) = &self.gathers else {
            let begun = Instant::now();
            let sent = matches!(timeout(WRITE, self.acker.ack(BasicAckOptions::default())).await, Ok(Ok(true)));
            meters::acknowledged(1, begun.elapsed(), sent);
            return sent;
        };
        acks.settle(*tag)
    }
}
