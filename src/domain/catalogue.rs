//! The catalogue: per event name the texts of a push, the route, the life and what may travel in a push.
//!
//! Called by the worker at start and by `herald check`. Pure: parses a text, reads no file. An unknown event name is
//! normal and gets the fallback.

mod parse;

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

/// How an event name is delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteRule {
    /// Present: Ably; absent: push.
    #[default]
    Presence,
    /// Ably, and push in addition when absent.
    Always,
    /// Ably only.
    Realtime,
    /// Push only.
    Push,
}

impl RouteRule {
    pub const ALL: [RouteRule; 4] = [RouteRule::Presence, RouteRule::Always, RouteRule::Realtime, RouteRule::Push];

    /// Returns the name as it stands in the catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteRule::Presence => "presence",
            RouteRule::Always => "always",
            RouteRule::Realtime => "realtime",
            RouteRule::Push => "push",
        }
    }
}

/// What the catalogue says of one event name.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    pub title: String,
    pub body: String,
    pub route: RouteRule,
    /// How long the event matters, when the event itself does not say.
    pub life: Option<Duration>,
    /// Fields of data that may travel in a push; `None`: all.
    pub push_data: Option<Vec<String>>,
    pub channel_id: Option<String>,
    pub priority: Option<String>,
}

/// All event names with their texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    pub events: HashMap<String, Text>,
    pub default: Text,
}

impl Catalogue {
    /// Reads a catalogue, or returns every mistake in it, in the order of lines.
    pub fn parse(text: &str) -> Result<Catalogue, Vec<Mistake>> {
        parse::parse(text)
    }

    /// Returns what holds for `event`: its own table, or the fallback.
    pub fn text(&self, event: &str) -> &Text {
        self.events.get(event).unwrap_or(&self.default)
    }
}

/// One mistake in the catalogue's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Key path, e.g. `"partner.advanced".route`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Returns the line, from 1, of the byte `at` in `text`.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
