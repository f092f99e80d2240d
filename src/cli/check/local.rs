//! Lines that need nothing but files: the configuration and the catalogue.

use crate::config::{Config, DEFAULT_PATH, Loaded, Problem};

use super::{Line, Standing};

/// One line for each problem, or one that says where the configuration came from.
pub(super) fn configuration(loaded: &Loaded, problems: &[Problem]) -> Vec<Line> {
    let line = |standing, text| Line::new("configuration", standing, text);
    let mut lines: Vec<Line> = problems.iter().map(|problem| line(Standing::Wrong, problem.to_string())).collect();
    if problems.is_empty() {
        let text = match &loaded.file {
            Some(file) => format!("{} and the environment", file.display()),
            None => format!("the environment and the defaults; there is no {DEFAULT_PATH}"),
        };
        lines.push(line(Standing::Ok, text));
    }
    lines.extend(loaded.warnings.iter().map(|warning| line(Standing::Warning, warning.clone())));
    lines
}

/// One line for each mistake, or one that counts the events.
pub(super) fn catalogue(config: &Config) -> Vec<Line> {
    let line = |standing, text| Line::new("catalogue", standing, text);
    match config.catalogue.load() {
        Ok(catalogue) => {
            let text = format!("{}: {} events and a fallback", config.catalogue.path.display(), catalogue.events.len());
            vec![line(Standing::Ok, text)]
        }
        Err(problems) => problems.0.iter().map(|problem| line(Standing::Wrong, problem.to_string())).collect(),
    }
}
