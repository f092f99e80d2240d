//! What lapin's errors mean to herald.
//!
//! Called by everything in `amqp`. The broker's words are redacted and bounded before they are kept.

use lapin::{
    Error, ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

use super::{meters, url::Address};
use crate::{broker::BrokerError, domain::redact};

/// Returns an error as bounded, redacted text.
pub(super) fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => redact(error.get_message().as_str()),
        ErrorKind::IOError(error) => redact(&error.to_string()),
        ErrorKind::MissingHeartbeatError => "no heartbeat from the broker".to_owned(),
        _ => redact(&error.to_string()),
    }
}

/// Returns the channel-level error the broker sent, if it is one.
pub(super) fn soft(error: &Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

/// Returns any error of a call that nobody can do anything about but wait.
pub(super) fn unavailable(error: &Error) -> BrokerError {
    BrokerError::Unavailable(words(error))
}

/// Tells refused credentials and a missing vhost apart from a broker that is merely away.
pub(super) fn refused_connection(error: &Error, address: &Address) -> BrokerError {
    let ErrorKind::ProtocolError(protocol) = error.kind() else {
        return BrokerError::Unavailable(format!("{address}: {}{}", words(error), tls_hint(error)));
    };
    let said = words(error);
    let (user, vhost) = (address.user(), address.vhost());
    match protocol.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
            meters::refused();
            BrokerError::Config(format!(
                "{address} refused user `{user}`: correct user and password in broker.url (AMQP_URL); the broker says: {said}"
            ))
        }
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if said.contains("not found") => BrokerError::Config(format!(
            "vhost `{vhost}` does not exist on {address}: create it or correct broker.url (AMQP_URL), which ends in \
             /%2f for the default vhost"
        )),
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if said.contains("refused for user") => {
            meters::refused();
            BrokerError::Config(format!(
                "user `{user}` may not use vhost `{vhost}` on {address}: grant permissions or correct broker.url (AMQP_URL)"
            ))
        }
        _ => BrokerError::Unavailable(format!("{address}: {said}")),
    }
}

fn tls_hint(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::IOError(io) if io.to_string().contains("certificate") => {
            "; a private authority's certificate goes into broker.ca_file"
        }
        _ => "",
    }
}
