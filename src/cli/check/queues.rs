//! Lines about RabbitMQ: whether it lets us in, and whether its queues are the ones herald needs. Declares nothing.

use crate::{
    broker::{self, Broker, BrokerError, Found, amqp::Role},
    cli::connect,
    config::Config,
};

use super::{Line, Standing};

pub(super) async fn check(config: &Config) -> Vec<Line> {
    let broker = connect::start_broker(config, Role::Inspect);
    let ready = broker.ready(connect::PATIENCE).await;
    let reached = ready.is_ok();
    let mut lines = vec![line("broker", ready, |()| "RabbitMQ lets herald in".to_owned())];
    if reached {
        lines.extend(match broker.compare(connect::PATIENCE).await {
            Ok(found) => stand(&found),
            Err(error) => vec![line("queues", Err::<(), _>(error), |()| String::new())],
        });
    } else {
        lines.push(Line::new("queues", Standing::Skipped, "not tried: no broker"));
    }
    broker.close().await;
    lines
}

fn line<T>(what: &'static str, result: Result<T, BrokerError>, text: impl FnOnce(T) -> String) -> Line {
    match result {
        Ok(value) => Line::new(what, Standing::Ok, text(value)),
        Err(BrokerError::Config(problem)) => Line::new(what, Standing::Wrong, problem),
        Err(error) => Line::new(what, Standing::Unreachable, format!("{error}; is broker.url (AMQP_URL) right?")),
    }
}

/// One line for each queue that is not exactly as it must be, or one that says all are.
pub(super) fn stand(found: &[Found]) -> Vec<Line> {
    let mut lines: Vec<Line> = found
        .iter()
        .filter_map(|found| {
            let what = &found.what;
            let (standing, text) = match &found.standing {
                broker::Standing::Fits => return None,
                broker::Standing::Missing => {
                    (Standing::Warning, format!("{what} is missing; `herald run` declares it"))
                }
                broker::Standing::Tolerated(how) => (Standing::Warning, format!("{what}: {how}")),
                broker::Standing::Unchecked(why) => (Standing::Warning, format!("{what} was not checked: {why}")),
                broker::Standing::Differs(how) => {
                    (Standing::Wrong, format!("{what} {how}; empty and delete it, or choose another broker.prefix"))
                }
            };
            Some(Line::new("queues", standing, text))
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::new("queues", Standing::Ok, format!("all {} are there and as they must be", found.len())));
    }
    lines
}
