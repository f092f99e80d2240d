//! Logs, on standard error: standard output belongs to what commands print.
//!
//! Started once by the commands that stay up (`run`, `sandbox`); the worker changes the filter when an operator says so.

use std::sync::OnceLock;

use tracing_subscriber::{
    EnvFilter, Registry, filter::Directive, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    broker::amqp::LOG_DIRECTIVE,
    config::{Log, LogFormat, log_filter},
    trace::InTrace,
};

/// What other crates say below these levels is about their insides; an explicit directive in `log.level` wins.
const TAMED: [&str; 5] = [LOG_DIRECTIVE, "sqlx=warn", "hyper=warn", "h2=warn", "reqwest=warn"];

/// What changes the filter of a process whose logging was started here.
static CONTROL: OnceLock<Control> = OnceLock::new();

struct Control {
    handle: reload::Handle<EnvFilter, Registry>,
    /// `log.level`.
    configured: String,
}

/// Starts logging. A second call changes nothing.
pub fn init(log: &Log) {
    let (filter, handle) = reload::Layer::new(filter(&log.level));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            registry.with(layer.with_ansi(color).map_event_format(|format| InTrace::text(format, color))).try_init()
        }
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true).with_current_span(false);
            registry.with(layer.map_event_format(InTrace::json)).try_init()
        }
    };
    // It fails only when somebody (a test) has started logging already, which is what was asked for.
    if started.is_ok() {
        let _ = CONTROL.set(Control { handle, configured: log.level.clone() });
    }
}

/// Returns `level` if it may stand in for `log.level` while herald runs. Whoever may set it there may not have messages and
/// statements logged: that takes the configuration. A filter by span would let everything within it through.
pub fn steered_filter(level: &str) -> Result<String, String> {
    let level = log_filter(level)?;
    let names = || TAMED.iter().filter_map(|tamed| tamed.split('=').next());
    if level.contains('[') || names().any(|name| names_crate(&level, name)) {
        let names = names().collect::<Vec<_>>().join(", ");
        return Err(format!(
            "must name no span and none of {names}, which log messages and statements; only log.level may"
        ));
    }
    Ok(level)
}

/// Puts another filter in the place of `log.level`, or with `None` takes it away again. The error says what would be right, and
/// nothing has changed then.
pub fn set_filter(level: Option<&str>) -> Result<(), String> {
    let level = level.map(steered_filter).transpose()?;
    let Some(control) = CONTROL.get() else { return Ok(()) };
    let filter = filter(level.as_deref().unwrap_or(&control.configured));
    control.handle.reload(filter).map_err(|error| format!("the filter in force could not be changed: {error}"))
}

/// Returns the filter for `level`, which was checked before.
fn filter(level: &str) -> EnvFilter {
    let mut filter = EnvFilter::builder().parse_lossy(level);
    let tamed = TAMED.iter().filter(|tamed| {
        let name = tamed.split('=').next().unwrap_or_default();
        !names_crate(level, name)
    });
    for directive in tamed.filter_map(|tamed| tamed.parse::<Directive>().ok()) {
        filter = filter.add_directive(directive);
    }
    filter
}

fn names_crate(level: &str, name: &str) -> bool {
    level.split(',').any(|directive| directive.trim().starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_it_runs_nobody_has_messages_and_statements_logged() {
        for level in ["trace", "info,herald::worker=trace", "warn,herald=debug"] {
            assert_eq!(steered_filter(level), Ok(level.to_owned()));
        }
        for level in [
            "info,lapin=trace",
            "info, sqlx::query=debug",
            "debug,sqlx",
            "info,[event]=trace",
            "hyper[x]=trace",
            "loud",
        ] {
            assert!(steered_filter(level).is_err(), "{level}");
        }
    }

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
