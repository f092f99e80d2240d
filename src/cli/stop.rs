//! Why a command ended other than well, and what the process says and returns then: one clear line, no stack of causes.

use std::process::ExitCode;

use crate::{broker::BrokerError, config::Problems, letters::LettersError, store::StoreError, worker::RunError};

pub(super) const FAILED: u8 = 1;
/// `EX_USAGE` of sysexits.h.
pub(super) const USAGE: u8 = 64;
/// `EX_CONFIG` of sysexits.h: starting again does not help, somebody must change something first.
pub(super) const CONFIG: u8 = 78;

/// An exit code and what to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stop {
    code: u8,
    /// One line; several only for a list of problems. Empty: everything was said already.
    message: String,
}

impl Stop {
    pub(super) fn failed(message: impl Into<String>) -> Stop {
        Stop { code: FAILED, message: message.into() }
    }

    pub(super) fn usage(message: impl Into<String>) -> Stop {
        Stop { code: USAGE, message: message.into() }
    }

    pub(super) fn config(message: impl Into<String>) -> Stop {
        Stop { code: CONFIG, message: message.into() }
    }

    /// Ends with `code`; what there is to say was printed.
    pub(super) fn silent(code: u8) -> Stop {
        Stop { code, message: String::new() }
    }

    /// Returns what there is to say; empty when it was said.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Says why on standard error, and returns the exit code.
    pub(super) fn tell(self) -> ExitCode {
        for line in self.message.lines() {
            eprintln!("herald: {line}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Problems> for Stop {
    fn from(problems: Problems) -> Self {
        Stop::config(problems.to_string())
    }
}

impl From<BrokerError> for Stop {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Config(_) => Stop::config(error.to_string()),
            BrokerError::Unavailable(_) | BrokerError::Refused(_) => Stop::failed(error.to_string()),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Config(_) => Stop::config(error.to_string()),
            StoreError::Unavailable(_) | StoreError::Data(_) => Stop::failed(error.to_string()),
        }
    }
}

impl From<LettersError> for Stop {
    fn from(error: LettersError) -> Self {
        match error {
            LettersError::Taken(_) => Stop::failed(crate::domain::redact(&error.to_string())),
            LettersError::Broker(error) => error.into(),
            LettersError::Store(error) => error.into(),
        }
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Config(problem) => Stop::config(problem),
            RunError::Failed(error) => error.into(),
        }
    }
}

impl From<anyhow::Error> for Stop {
    /// Says what failed and the last cause; what lies between is for developers.
    fn from(error: anyhow::Error) -> Self {
        let (outer, root) = (error.to_string(), error.root_cause().to_string());
        let message = if outer.contains(&root) { outer } else { format!("{outer}: {root}") };
        Stop::failed(crate::domain::redact(&message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_must_change_is_78_and_the_rest_1() {
        let text = || "x".to_owned();
        for (stop, code) in [
            (Stop::from(BrokerError::Config(text())), CONFIG),
            (Stop::from(BrokerError::Unavailable(text())), FAILED),
            (Stop::from(BrokerError::Refused(text())), FAILED),
            (Stop::from(StoreError::Config(text())), CONFIG),
            (Stop::from(StoreError::Unavailable(text())), FAILED),
            (Stop::from(StoreError::Data(text())), FAILED),
            (Stop::from(RunError::Config(text())), CONFIG),
            (Stop::from(RunError::Failed(anyhow::anyhow!("x"))), FAILED),
            (Stop::from(Problems(Vec::new())), CONFIG),
        ] {
            assert_eq!(stop.code, code, "{stop:?}");
        }
    }

    #[test]
    fn of_a_chain_of_causes_first_and_last_are_told() {
        let chain = anyhow::anyhow!("refused").context("middle").context("cannot connect");
        assert_eq!(Stop::from(chain), Stop::failed("cannot connect: refused"));
        assert_eq!(Stop::from(anyhow::anyhow!("alone")), Stop::failed("alone"));
    }
}
