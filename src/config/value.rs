//! One value of the configuration: where it came from, and what it reads as.
//!
//! Called by `build`. Pure. A problem never quotes a value here: `build` knows which keys are secret and which are not.

use std::{net::SocketAddr, time::Duration};

use url::Url;

use crate::domain::parse_duration;

/// A value as it was found. Text comes from the environment and the command line, the rest from TOML.
#[derive(Clone)]
pub(super) enum Raw {
    Text(String),
    Toml(toml::Value),
}

impl Raw {
    /// Tells whether it is the empty text, which means "not set".
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Raw::Text(text) | Raw::Toml(toml::Value::String(text)) if text.is_empty())
    }

    /// Returns the value as one would write it on a command line, for comparing and quoting.
    pub(super) fn display(&self) -> String {
        match self {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => text.clone(),
            Raw::Toml(value) => value.to_string(),
        }
    }

    pub(super) fn text(&self) -> Result<String, String> {
        match self {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => Ok(text.clone()),
            Raw::Toml(other) => Err(format!("must be a text in quotes, not {}", kind(other))),
        }
    }

    pub(super) fn integer(&self, least: u32, most: u32) -> Result<u32, String> {
        let problem = || format!("must be a whole number from {least} to {most}");
        let number = match self {
            Raw::Text(text) => text.trim().parse::<i64>().map_err(|_| problem())?,
            Raw::Toml(toml::Value::Integer(number)) => *number,
            Raw::Toml(_) => return Err(problem()),
        };
        u32::try_from(number).ok().filter(|n| (least..=most).contains(n)).ok_or_else(problem)
    }

    /// Reads a share of a whole.
    pub(super) fn share(&self) -> Result<f64, String> {
        let share = match self {
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Toml(toml::Value::Float(share)) => Some(*share),
            Raw::Toml(toml::Value::Integer(whole @ 0..=1)) => Some(if *whole == 1 { 1.0 } else { 0.0 }),
            Raw::Toml(_) => None,
        };
        share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "must be a number from 0 to 1".to_owned())
    }

    pub(super) fn duration(&self, least: Duration, most: Duration) -> Result<Duration, String> {
        let duration = parse_duration(&self.text()?)?;
        if (least..=most).contains(&duration) {
            return Ok(duration);
        }
        let name = crate::domain::retry::delay_name;
        Err(format!("must be from {} to {}", name(least), name(most)))
    }

    /// Reads a list of texts. In the environment a list is written as a TOML array.
    pub(super) fn list(&self) -> Result<Vec<String>, String> {
        let problem = || "must be a list of texts such as [\"5s\", \"30s\"]".to_owned();
        let value = match self {
            Raw::Text(text) => {
                let mut table: toml::Table = toml::from_str(&format!("list = {text}")).map_err(|_| problem())?;
                table.remove("list").ok_or_else(problem)?
            }
            Raw::Toml(value) => value.clone(),
        };
        let items = value.as_array().ok_or_else(problem)?;
        items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(problem)).collect()
    }

    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        let problem = || "must be an IP address and a port, e.g. 127.0.0.1:8080 or [::]:8080".to_owned();
        self.text().map_err(|_| problem())?.parse().map_err(|_| problem())
    }

    /// Reads a URL of one of `schemes`. The problem never quotes it: there may be credentials in it.
    pub(super) fn url(&self, schemes: &[&str]) -> Result<Url, String> {
        let expected = schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ");
        let problem = |why: &str| format!("must be a URL that begins with {expected} ({why})");
        let url = Url::parse(&self.text()?).map_err(|error| problem(&error.to_string()))?;
        if !schemes.contains(&url.scheme()) {
            return Err(problem("another scheme stands there"));
        }
        let needs_host = ["http", "https", "amqp", "amqps"].contains(&url.scheme());
        if needs_host && url.host_str().is_none_or(str::is_empty) {
            return Err(problem("the host is missing"));
        }
        Ok(url)
    }
}

fn kind(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a text",
        toml::Value::Integer(_) | toml::Value::Float(_) => "a number",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_never_quoted() {
        for text in ["amqp://user:hunter2@", "user:hunter2@host", "http://user:hunter2@host", "hunter2"] {
            let problem = Raw::Text(text.into()).url(&["amqp", "amqps"]).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
