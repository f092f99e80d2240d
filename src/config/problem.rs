//! What is wrong with a configuration, said so that it can be mended in one go.
//!
//! Made by `sources` and `build`, printed by the commands. Never holds the value of a secret or URL.

use std::fmt;

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key path, e.g. `broker.prefetch`; or the flag or file that is at fault.
    pub key: String,
    /// The variable that sets the key, e.g. `HERALD_BROKER__PREFETCH`.
    pub variable: Option<String>,
    /// The place in the file, when the value stands in one.
    pub place: Option<String>,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(variable) = &self.variable {
            write!(f, " ({variable})")?;
        }
        if let Some(place) = &self.place {
            write!(f, " in {place}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Everything wrong with the configuration. Exit code 78.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "configuration: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
