//! Setting the topology up, and comparing what stands with what herald needs.
//!
//! Called by the supervisor on each new connection ([`set_up`]) and by `check` ([`compare`], which declares nothing). Must
//! never repair: a queue that differs is named, with both values, and left alone. Existing queues are compared by an
//! active declare, because a passive one says yes to any arguments (measured).

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::AMQPSoftError,
    types::{AMQPValue, FieldTable},
};

use super::{consume::queue_name, error, session::Session};
use crate::broker::{
    BrokerError, Found, Standing,
    topology::{Argument, Queue, Topology},
};

/// Declares what is missing; [`BrokerError::Config`] names the first queue or exchange that differs.
pub(super) async fn set_up(session: &Session, topology: &Topology) -> Result<(), BrokerError> {
    let mut probe = Probe { session, channel: None };
    for queue in topology.queues() {
        let standing = match probe.compare(&queue, queue.name == topology.dead()).await? {
            Standing::Unchecked(_) if !probe.exists(&queue.name).await? => Standing::Missing,
            standing => standing,
        };
        accept(&format!("queue `{}`", queue.name), standing)?;
    }
    let exchange = topology.events();
    let standing = probe.exchange(&exchange).await?;
    accept(&format!("exchange `{exchange}`"), standing)?;
    probe.bind(&exchange).await
}

/// Compares without declaring anything; queues first, then the exchange.
pub(super) async fn compare(session: &Session, topology: &Topology) -> Result<Vec<Found>, BrokerError> {
    let mut probe = Probe { session, channel: None };
    let mut found = Vec::new();
    for queue in topology.queues() {
        // Declaring actively is harmless only once it is known to exist.
        let standing = match probe.exists(&queue.name).await? {
            true => probe.compare(&queue, queue.name == topology.dead()).await?,
            false => Standing::Missing,
        };
        found.push(Found { what: format!("queue `{}`", queue.name), standing });
    }
    let exchange = topology.events();
    let standing = match probe.exchange_exists(&exchange).await? {
        true => probe.exchange(&exchange).await?,
        false => Standing::Missing,
    };
    found.push(Found { what: format!("exchange `{exchange}`"), standing });
    Ok(found)
}

/// Says what has to be said about a standing; only what herald cannot work with is an error.
fn accept(what: &str, standing: Standing) -> Result<(), BrokerError> {
    match standing {
        Standing::Fits => Ok(()),
        Standing::Tolerated(difference) => {
            tracing::warn!("{what}: {difference}");
            Ok(())
        }
        Standing::Unchecked(why) => {
            tracing::warn!("{what}: arguments not checked, {why}");
            Ok(())
        }
        Standing::Missing => Err(BrokerError::Config(format!(
            "{what} does not exist and this user may not declare it: declare it first or grant configure permission"
        ))),
        Standing::Differs(difference) => {
            Err(BrokerError::Config(format!("{what}: {difference}; delete or rename it, or set broker.prefix")))
        }
    }
}

/// Asks on throw-away channels: every no of the broker closes the channel it was asked on.
struct Probe<'a> {
    session: &'a Session,
    channel: Option<Channel>,
}

impl Probe<'_> {
    /// Declares `queue` actively and tells how it stands; a missing one stands afterwards.
    async fn compare(&mut self, queue: &Queue, ttl_may_differ: bool) -> Result<Standing, BrokerError> {
        let mut asked = queue.clone();
        let mut tolerated = None;
        loop {
            let name = queue_name(&asked.name)?;
            let channel = self.channel().await?;
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let declare = channel.queue_declare(name, options, table(&asked));
            let answer = self.session.bounded("queue.declare", declare).await?;
            let Err(problem) = answer else {
                return Ok(tolerated.map_or(Standing::Fits, Standing::Tolerated));
            };
            let words = error::words(&problem);
            match error::soft(&problem) {
                Some(AMQPSoftError::PRECONDITIONFAILED) => {
                    let Some(difference) = Difference::read(&words) else {
                        return Ok(Standing::Differs(words));
                    };
                    if difference.argument != "x-message-ttl" || !ttl_may_differ || tolerated.is_some() {
                        return Ok(Standing::Differs(difference.to_string()));
                    }
                    // Asked again with the broker's own value, the other arguments come to light.
                    asked.arguments.retain(|(name, _)| *name != "x-message-ttl");
                    if let Ok(ttl) = difference.current.parse() {
                        asked.arguments.push(("x-message-ttl", Argument::Number(ttl)));
                    }
                    tolerated = Some(difference.to_string());
                }
                Some(AMQPSoftError::ACCESSREFUSED) => return Ok(Standing::Unchecked(words)),
                _ => return Err(BrokerError::Unavailable(words)),
            }
        }
    }

    /// Tells whether a queue exists, by a passive declare.
    async fn exists(&mut self, queue: &str) -> Result<bool, BrokerError> {
        let name = queue_name(queue)?;
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(name, options, FieldTable::default());
        let answer = self.session.bounded("queue.declare", declare).await?.map(|_| ());
        existence(answer)
    }

    /// Declares the events exchange actively and tells how it stands.
    async fn exchange(&mut self, name: &str) -> Result<Standing, BrokerError> {
        match self.declare_exchange(name, false).await? {
            Ok(()) => Ok(Standing::Fits),
            Err(problem) => {
                let words = error::words(&problem);
                match error::soft(&problem) {
                    Some(AMQPSoftError::PRECONDITIONFAILED) => {
                        let difference = Difference::read(&words).map_or(words, |difference| difference.to_string());
                        Ok(Standing::Differs(difference))
                    }
                    Some(AMQPSoftError::ACCESSREFUSED) if self.exchange_exists(name).await? => {
                        Ok(Standing::Unchecked(words))
                    }
                    Some(AMQPSoftError::ACCESSREFUSED) => Ok(Standing::Missing),
                    _ => Err(BrokerError::Unavailable(words)),
                }
            }
        }
    }

    async fn exchange_exists(&mut self, name: &str) -> Result<bool, BrokerError> {
        let answer = self.declare_exchange(name, true).await?;
        existence(answer)
    }

    async fn declare_exchange(&mut self, name: &str, passive: bool) -> Result<lapin::Result<()>, BrokerError> {
        let exchange = queue_name(name)?;
        let channel = self.channel().await?;
        let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
        let declare = channel.exchange_declare(exchange, ExchangeKind::Topic, options, FieldTable::default());
        self.session.bounded("exchange.declare", declare).await
    }

    /// Binds the events queue to its exchange for every routing key. Without permission somebody else must have done so.
    async fn bind(&mut self, events: &str) -> Result<(), BrokerError> {
        let name = queue_name(events)?;
        let channel = self.channel().await?;
        let bind =
            channel.queue_bind(name.clone(), name, "#".into(), QueueBindOptions::default(), FieldTable::default());
        match self.session.bounded("queue.bind", bind).await? {
            Ok(()) => Ok(()),
            Err(problem) if error::soft(&problem) == Some(&AMQPSoftError::ACCESSREFUSED) => {
                tracing::warn!("exchange `{events}`: binding not checked, {}", error::words(&problem));
                Ok(())
            }
            Err(problem) => Err(error::unavailable(&problem)),
        }
    }

    async fn channel(&mut self) -> Result<Channel, BrokerError> {
        match &self.channel {
            Some(channel) if channel.status().connected() => Ok(channel.clone()),
            _ => {
                let channel = self.session.channel().await?;
                self.channel = Some(channel.clone());
                Ok(channel)
            }
        }
    }
}

fn existence(answer: lapin::Result<()>) -> Result<bool, BrokerError> {
    match answer {
        Ok(()) => Ok(true),
        Err(problem) => match error::soft(&problem) {
            Some(AMQPSoftError::NOTFOUND) => Ok(false),
            // It exists and is exclusive to another connection.
            Some(AMQPSoftError::RESOURCELOCKED) => Ok(true),
            Some(AMQPSoftError::ACCESSREFUSED) => Err(BrokerError::Config(error::words(&problem))),
            _ => Err(error::unavailable(&problem)),
        },
    }
}

fn table(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert((*name).into(), value);
    }
    table
}

/// What the broker says when an active declare does not fit.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    argument: String,
    received: String,
    current: String,
}

impl Difference {
    /// Reads `… inequivalent arg 'x' for queue 'q' in vhost 'v': received 'a' but current is 'b'`; either side may also be
    /// `none`, or `the value 'a' of type 'signedint'`.
    fn read(words: &str) -> Option<Difference> {
        let (argument, rest) = words.split_once("inequivalent arg '")?.1.split_once('\'')?;
        let (received, current) = rest.rsplit_once(": received ")?.1.split_once(" but current is ")?;
        let value = |side: &str| match side.split_once('\'') {
            Some((_, quoted)) => quoted.split_once('\'').map_or(quoted, |(value, _)| value).to_owned(),
            None => side.trim_end_matches('.').to_owned(),
        };
        Some(Difference { argument: argument.to_owned(), received: value(received), current: value(current) })
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { argument, received, current } = self;
        let word = |value: &str| if value == "none" { "not set".to_owned() } else { format!("`{value}`") };
        write!(f, "argument {argument} is {} on the broker, herald needs it {}", word(current), word(received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_name_argument_and_both_values() {
        for (words, argument, received, current) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but \
                 current is 'classic'",
                "x-queue-type",
                "quorum",
                "classic",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'a.dead' in vhost '/': received the \
                 value '60000' of type 'signedint' but current is none",
                "x-message-ttl",
                "60000",
                "none",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'a.dead' in vhost ': received ': \
                 received none but current is the value '7' of type 'signedint'",
                "x-delivery-limit",
                "none",
                "7",
            ),
        ] {
            let [argument, received, current] = [argument, received, current].map(str::to_owned);
            assert_eq!(Difference::read(words), Some(Difference { argument, received, current }), "{words}");
        }
        assert_eq!(Difference::read("PRECONDITION_FAILED - something else"), None);
    }
}
