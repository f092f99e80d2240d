//! The steps of a test push as they are told: each ok, worth knowing, or the reason why it does not arrive.

use serde::Serialize;

use crate::cli::{
    output,
    stop::{CONFIG, FAILED, Stop},
};

/// How a step ended. The order is that of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    Ok,
    /// It may arrive, but this is worth knowing.
    Note,
    /// Here it ends.
    Failed,
    /// Here it ends, until somebody changes a key or a credential.
    Wrong,
}

/// Tells steps as they happen, and remembers the worst.
pub(super) struct Steps {
    json: bool,
    worst: Standing,
    /// The first step that failed.
    failed: Option<&'static str>,
}

#[derive(Serialize)]
struct Step<'a> {
    step: &'static str,
    standing: Standing,
    text: &'a str,
}

impl Steps {
    pub(super) fn new(json: bool) -> Steps {
        Steps { json, worst: Standing::Ok, failed: None }
    }

    /// Tells one step.
    pub(super) fn tell(&mut self, step: &'static str, standing: Standing, text: &str) -> Result<(), Stop> {
        self.worst = self.worst.max(standing);
        if standing >= Standing::Failed {
            self.failed.get_or_insert(step);
        }
        if self.json {
            return output::json(&Step { step, standing, text });
        }
        let word = match standing {
            Standing::Ok => "ok",
            Standing::Note => "note",
            Standing::Failed => "FAILED",
            Standing::Wrong => "WRONG",
        };
        output::line(&format!("{word:<6}  {step:<11}  {}", output::clean(text)))
    }

    /// Returns how it went as a whole, for the record.
    pub(super) fn outcome(&self) -> String {
        self.failed.map_or_else(|| "every step was ok".to_owned(), |step| format!("failed at: {step}"))
    }

    /// Ends the command with the exit code of the worst step.
    pub(super) fn end(self) -> Result<(), Stop> {
        match self.worst {
            Standing::Ok | Standing::Note => Ok(()),
            Standing::Failed => Err(Stop::silent(FAILED)),
            Standing::Wrong => Err(Stop::silent(CONFIG)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_step_decides_and_the_first_failed_one_is_named() {
        let told = |standings: &[Standing]| {
            let mut steps = Steps::new(false);
            for (standing, step) in standings.iter().zip(["user", "token", "ticket"]) {
                steps.tell(step, *standing, "").unwrap();
            }
            (steps.outcome(), steps.end())
        };
        use Standing::{Failed, Note, Ok as Fine, Wrong};
        assert_eq!(told(&[Fine, Note, Fine]), ("every step was ok".to_owned(), Ok(())));
        assert_eq!(told(&[Fine, Failed, Note]), ("failed at: token".to_owned(), Err(Stop::silent(FAILED))));
        assert_eq!(told(&[Failed, Wrong]), ("failed at: user".to_owned(), Err(Stop::silent(CONFIG))));
    }
}
