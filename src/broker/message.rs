//! The message as it travels, and the white list of what a copy of it may carry.
//!
//! Called by the worker when it copies a delivery to a retry, hold or dead-letter queue, and by replay. Pure. Must never let
//! through a property or header that loses or duplicates the copy (`expiration`, `x-death`, …: see [`Message::copy`]).

use lapin::BasicProperties;

/// Body and properties of a message.
#[derive(Clone, Default, PartialEq)]
pub struct Message {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}
