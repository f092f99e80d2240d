//! Logs, on standard error: standard output belongs to what commands print.
//!
//! Called once by the commands that stay up (`run`, `demo`, `sandbox`).

use tracing_subscriber::{EnvFilter, filter::Directive, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    broker::amqp::LOG_DIRECTIVE,
    config::{Log, LogFormat},
};

/// What other crates say below these levels is about their insides; an explicit directive in `log.level` wins.
const TAMED: [&str; 5] = [LOG_DIRECTIVE, "sqlx=warn", "hyper=warn", "h2=warn", "reqwest=warn"];

/// Starts logging. A second call changes nothing.
pub fn init(log: &Log) {
    let registry = tracing_subscriber::registry().with(filter(&log.level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            registry.with(layer.with_ansi(color)).try_init()
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init(),
    };
    // It fails only when somebody (a test) has started logging already, which is what was asked for.
    drop(started);
}

/// Returns the filter for `level`, which the configuration has checked.
fn filter(level: &str) -> EnvFilter {
    let mut filter = EnvFilter::builder().parse_lossy(level);
    let tamed = TAMED.iter().filter(|tamed| {
        let name = tamed.split('=').next().unwrap_or_default();
        !level.split(',').any(|directive| directive.trim().starts_with(name))
    });
    for directive in tamed.filter_map(|tamed| tamed.parse::<Directive>().ok()) {
        filter = filter.add_directive(directive);
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noisy_crates_are_tamed_unless_asked_for() {
        for (level, contains, lacks) in [
            ("info", &["info", "lapin=off", "sqlx=warn"][..], &[][..]),
            ("debug,sqlx=trace", &["debug", "sqlx=trace", "lapin=off"], &["sqlx=warn"]),
        ] {
            let filter = filter(level).to_string();
            assert!(contains.iter().all(|part| filter.contains(part)), "{filter}");
            assert!(!lacks.iter().any(|part| filter.contains(part)), "{filter}");
        }
    }
}
