//! The queues herald needs, as data.
//!
//! Read by both brokers when they set themselves up, by the worker for names, and by `check` and `status` for what there
//! should be. It declares nothing itself. The table in the tests is the contract: a changed argument is a mismatch with
//! every queue that stands already.

use std::time::Duration;

use crate::domain::{outcome::Provider, retry::delay_name};

/// Returns before a message is dead-lettered by the broker itself, the last resort against a message that kills workers.
const EVENTS_DELIVERY_LIMIT: i64 = 1_000;

/// As good as unlimited on every version: without a limit 4.0 drops after 20 returns, with -1 3.10 drops at the first.
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// Names and arguments of every queue, derived from prefix, retry schedule and dead-letter retention.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    pub prefix: String,
    /// Retry delays, shortest first.
    pub schedule: Vec<Duration>,
    pub dead_retention: Duration,
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Events,
    Retry,
    Hold,
    Dead,
}

/// One queue as it has to stand: durable, and with exactly these arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    pub name: String,
    pub arguments: Vec<(&'static str, Argument)>,
}

/// The value of a queue argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    Number(i64),
}

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Argument::Text(text) => f.write_str(text),
            Argument::Number(number) => number.fmt(f),
        }
    }
}

impl Queue {
    /// Returns the number given for `argument`, if the queue has it.
    pub fn number(&self, argument: &str) -> Option<i64> {
        self.arguments.iter().find_map(|(name, value)| match value {
            Argument::Number(number) if *name == argument => Some(*number),
            _ => None,
        })
    }

    /// Returns the text given for `argument`, if the queue has it.
    pub fn text(&self, argument: &str) -> Option<&str> {
        self.arguments.iter().find_map(|(name, value)| match value {
            Argument::Text(text) if *name == argument => Some(text.as_str()),
            _ => None,
        })
    }
}

impl Topology {
    /// Returns the name of the exchange and of the queue that events arrive in.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// Returns the name of the dead-letter queue.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// Returns the name of the queue where events wait for `provider`.
    pub fn hold(&self, provider: Provider) -> String {
        format!("{}.hold.{provider}", self.prefix)
    }

    /// Returns the provider whose hold queue `queue` is.
    pub fn held(&self, queue: &str) -> Option<Provider> {
        let name = queue.strip_prefix(&self.prefix)?.strip_prefix(".hold.")?;
        Provider::ALL.into_iter().find(|provider| provider.as_str() == name)
    }

    /// Returns the name of the retry queue with `delay`, e.g. `herald.retry.30s`.
    pub fn retry(&self, delay: Duration) -> String {
        format!("{}.retry.{}", self.prefix, delay_name(delay))
    }

    /// Returns what `queue`, which is one of these, is for.
    pub fn role(&self, queue: &str) -> Role {
        if queue == self.events() {
            Role::Events
        } else if queue == self.dead() {
            Role::Dead
        } else if Provider::ALL.iter().any(|provider| queue == self.hold(*provider)) {
            Role::Hold
        } else {
            Role::Retry
        }
    }

    /// Returns every queue, targets of dead-lettering first, each name once.
    pub fn queues(&self) -> Vec<Queue> {
        let mut queues = vec![self.dead_queue(), self.events_queue()];
        queues.extend(Provider::ALL.map(|provider| self.hold_queue(provider)));
        for delay in &self.schedule {
            let queue = self.retry_queue(*delay);
            if !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        queues
    }

    fn events_queue(&self) -> Queue {
        queue(self.events(), [dead_letters_to(self.dead()), limits(EVENTS_DELIVERY_LIMIT)].concat())
    }

    fn retry_queue(&self, delay: Duration) -> Queue {
        let arguments = [
            vec![("x-message-ttl", Argument::Number(millis(delay)))],
            dead_letters_to(self.events()),
            limits(NO_DELIVERY_LIMIT),
        ];
        queue(self.retry(delay), arguments.concat())
    }

    fn hold_queue(&self, provider: Provider) -> Queue {
        queue(self.hold(provider), vec![("x-delivery-limit", Argument::Number(NO_DELIVERY_LIMIT))])
    }

    fn dead_queue(&self) -> Queue {
        let ttl = vec![("x-message-ttl", Argument::Number(millis(self.dead_retention)))];
        queue(self.dead(), [ttl, limits(NO_DELIVERY_LIMIT)].concat())
    }
}

fn queue(name: String, arguments: Vec<(&'static str, Argument)>) -> Queue {
    let quorum = vec![("x-queue-type", Argument::Text("quorum".to_owned()))];
    Queue { name, arguments: [quorum, arguments].concat() }
}

/// Dead-lettering straight into `queue`, confirmed: at-most-once, the default, may lose the message.
fn dead_letters_to(queue: String) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-dead-letter-exchange", Argument::Text(String::new())),
        ("x-dead-letter-routing-key", Argument::Text(queue)),
        ("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())),
    ]
}

fn limits(delivery_limit: i64) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
        ("x-delivery-limit", Argument::Number(delivery_limit)),
    ]
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Topology {
        Topology {
            prefix: "herald".to_owned(),
            schedule: [5, 30, 120, 600, 3600].map(Duration::from_secs).to_vec(),
            dead_retention: Duration::from_secs(14 * 86_400),
        }
    }

    #[test]
    fn the_shipped_queues_are_those_of_the_contract() {
        let retry = |name: &str, ttl: i64| {
            format!(
                "herald.retry.{name} x-queue-type=quorum x-message-ttl={ttl} x-dead-letter-exchange= \
                 x-dead-letter-routing-key=herald.events x-dead-letter-strategy=at-least-once \
                 x-overflow=reject-publish x-delivery-limit=1000000000"
            )
        };
        let expected = [
            "herald.dead x-queue-type=quorum x-message-ttl=1209600000 x-overflow=reject-publish \
             x-delivery-limit=1000000000"
                .to_owned(),
            "herald.events x-queue-type=quorum x-dead-letter-exchange= x-dead-letter-routing-key=herald.dead \
             x-dead-letter-strategy=at-least-once x-overflow=reject-publish x-delivery-limit=1000"
                .to_owned(),
            "herald.hold.ably x-queue-type=quorum x-delivery-limit=1000000000".to_owned(),
            "herald.hold.expo x-queue-type=quorum x-delivery-limit=1000000000".to_owned(),
            retry("5s", 5_000),
            retry("30s", 30_000),
            retry("2m", 120_000),
            retry("10m", 600_000),
            retry("1h", 3_600_000),
        ];
        let actual: Vec<String> = shipped().queues().iter().map(in_words).collect();
        assert_eq!(actual, expected);
    }

    #[test]
    fn every_queue_has_a_role() {
        let topology = shipped();
        let roles: Vec<Role> = topology.queues().iter().map(|queue| topology.role(&queue.name)).collect();
        let (retry, hold) = ([Role::Retry; 5], [Role::Hold; 2]);
        assert_eq!(roles, [&[Role::Dead, Role::Events][..], &hold, &retry].concat());
    }

    fn in_words(queue: &Queue) -> String {
        let arguments = queue.arguments.iter().map(|(name, value)| format!(" {name}={value}"));
        queue.name.clone() + &arguments.collect::<String>()
    }

    #[test]
    fn a_delay_given_twice_is_one_queue() {
        let topology = Topology { schedule: vec![Duration::from_secs(60); 2], ..shipped() };
        assert_eq!(topology.queues().iter().filter(|queue| queue.name == "herald.retry.1m").count(), 1);
    }

    #[test]
    fn arguments_are_found_by_name_and_type() {
        let events = shipped().events_queue();
        assert_eq!(events.number("x-delivery-limit"), Some(1000));
        assert_eq!(events.text("x-dead-letter-routing-key"), Some("herald.dead"));
        assert_eq!((events.number("x-overflow"), events.text("x-delivery-limit")), (None, None));
    }
}
