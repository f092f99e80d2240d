//! The places a value may come from, and which of them wins: command line, environment, file, default.
//!
//! Called by `load`. Reads the configuration file and the files named by `…_FILE` variables, nothing else; the environment
//! is an argument. Says what is unknown, doubled or in conflict, but judges no value.

use std::{
    collections::{BTreeMap, HashSet},
    io::Read as _,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeTable};

use crate::domain::{catalogue::line_at, did_you_mean};

use super::{DEFAULT_PATH, REFERENCE, problem::Problem, value::Raw};

/// What a configuration is made from.
#[derive(Clone, Default)]
pub struct Inputs {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--set key=value`, in the order given; a later one wins.
    pub set: Vec<(String, String)>,
    /// The environment.
    pub env: BTreeMap<String, String>,
}

impl Inputs {
    /// Returns inputs with this process's environment.
    pub fn from_process(file: Option<PathBuf>, set: Vec<(String, String)>) -> Inputs {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let env = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Inputs { file, set, env }
    }
}

/// Variables that the ecosystem gave names to, beside `HERALD_<SECTION>__<KEY>`.
pub(super) const ECOSYSTEM: [(&str, &str); 5] = [
    ("broker.url", "AMQP_URL"),
    ("users.url", "DATABASE_URL"),
    ("ably.key", "ABLY_API_KEY"),
    ("expo.access_token", "EXPO_ACCESS_TOKEN"),
    ("otlp.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
];

/// Secrets and URLs (which may hold credentials): each has a `<variable>_FILE` form and is never quoted.
pub(super) const SENSITIVE: [&str; 11] = [
    "broker.url",
    "broker.management_url",
    "ably.url",
    "ably.key",
    "expo.url",
    "expo.access_token",
    "users.url",
    "store.url",
    "outbox.url",
    "http.token",
    "otlp.endpoint",
];

/// A value and where it was found.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) raw: Raw,
    /// Variable or flag, when it came from one.
    pub(super) variable: Option<String>,
    /// File and line, when it came from the configuration file.
    pub(super) place: Option<String>,
}

impl Found {
    fn source(&self) -> &str {
        self.variable.as_deref().or(self.place.as_deref()).unwrap_or("the default")
    }
}

/// Everything found, before any value is judged.
pub(super) struct Sources {
    pub(super) defaults: BTreeMap<String, Raw>,
    /// The winning value of every key that something says something about.
    pub(super) found: BTreeMap<String, Found>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// The configuration file that was read.
    pub(super) file: Option<PathBuf>,
}

/// Returns the variable that sets `key`; a key outside every section (`instance`) has none.
pub(super) fn variable(key: &str) -> Option<String> {
    key.split_once('.').map(|(section, key)| format!("HERALD_{section}__{key}").to_uppercase())
}

/// Gathers what every source says.
pub(super) fn gather(inputs: &Inputs) -> Sources {
    let mut all = Sources {
        defaults: BTreeMap::new(),
        found: BTreeMap::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        file: None,
    };
    for (key, value, _) in flatten(REFERENCE).0 {
        all.defaults.insert(key, Raw::Toml(value));
    }
    all.command_line(&inputs.set);
    all.herald_variables(&inputs.env);
    for (key, name) in ECOSYSTEM {
        all.variable_and_file(key, name, &inputs.env);
    }
    all.config_file(inputs);
    all
}

impl Sources {
    fn command_line(&mut self, set: &[(String, String)]) {
        // The last one wins without a conflict: that is how command lines are read.
        for (key, value) in set.iter().rev() {
            if !self.defaults.contains_key(key) {
                let hint = did_you_mean(key, self.defaults.keys().map(String::as_str));
                self.problem(key, Some("--set".to_owned()), None, format!("unknown key{hint}"));
            } else if !self.found.contains_key(key) {
                let variable = Some(format!("--set {key}"));
                self.found.insert(key.clone(), Found { raw: Raw::Text(value.clone()), variable, place: None });
            }
        }
    }

    fn herald_variables(&mut self, env: &BTreeMap<String, String>) {
        let known: BTreeMap<String, String> =
            self.defaults.keys().filter_map(|key| Some((variable(key)?, key.clone()))).collect();
        for (name, key) in &known {
            self.variable_and_file(key, name, env);
        }
        // Kubernetes sets HERALD_PORT and the like for a service of this name: only `__` makes it configuration.
        for name in env.keys().filter(|name| name.starts_with("HERALD_") && name.contains("__")) {
            let plain = name.strip_suffix("_FILE").unwrap_or(name);
            let with_file = known.get(plain).is_some_and(|key| SENSITIVE.contains(&key.as_str()));
            if !known.contains_key(name) && !with_file {
                let hint = did_you_mean(name, known.keys().map(String::as_str));
                self.problem(name, None, None, format!("unknown variable{hint}"));
            }
        }
    }

    fn variable_and_file(&mut self, key: &str, name: &str, env: &BTreeMap<String, String>) {
        let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
        let file_name = format!("{name}_FILE");
        let path = if SENSITIVE.contains(&key) { set(&file_name) } else { None };
        match (set(name), path) {
            (Some(_), Some(_)) => {
                let problem = format!("{name} and {file_name} are both set; keep one");
                self.problem(key, Some(name.to_owned()), None, problem);
            }
            (Some(value), None) => {
                self.offer(key, Found { raw: Raw::Text(value.clone()), variable: Some(name.to_owned()), place: None });
            }
            (None, Some(path)) => match read_secret(Path::new(path)) {
                Ok(value) => self.offer(key, Found { raw: Raw::Text(value), variable: Some(file_name), place: None }),
                Err(problem) => self.problem(key, Some(file_name), None, problem),
            },
            (None, None) => {}
        }
    }

    fn config_file(&mut self, inputs: &Inputs) {
        let from_env = inputs.env.get("HERALD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        if let (Some(flag), Some(variable)) = (&inputs.file, &from_env)
            && flag != variable
        {
            self.warnings.push("--config is used, HERALD_CONFIG names another file".to_owned());
        }
        let (path, named_by) = match (&inputs.file, from_env) {
            (Some(path), _) => (path.clone(), Some("--config")),
            (None, Some(path)) => (path, Some("HERALD_CONFIG")),
            (None, None) => (PathBuf::from(DEFAULT_PATH), None),
        };
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named_by.is_none() => return,
            Err(error) => {
                let named_by = named_by.map(str::to_owned);
                return self.problem(&path.display().to_string(), named_by, None, format!("cannot be read: {error}"));
            }
        };
        self.file_text(&path.display().to_string(), &text);
        self.file = Some(path);
    }

    fn file_text(&mut self, path: &str, text: &str) {
        let (values, mistakes) = flatten(text);
        for (line, problem) in mistakes {
            self.problem(path, None, Some(format!("line {line}")), problem);
        }
        let mut sections: HashSet<String> = self.defaults.keys().filter_map(|key| section(key)).collect();
        sections.insert("instance".to_owned());
        for (key, value, line) in values {
            let place = Some(format!("{path} line {line}"));
            if let Some(default) = self.defaults.get(&key) {
                let raw = Raw::Toml(value);
                // A copy of the reference repeats every default; repeating one is not a decision that could conflict.
                if raw.display() != default.display() {
                    self.offer(&key, Found { raw, variable: None, place });
                }
            } else if sections.contains(&key) {
                self.problem(&key, None, place, format!("must be a section, written [{key}]"));
            } else {
                let hint = did_you_mean(&key, self.defaults.keys().map(String::as_str));
                self.problem(&key, None, place, format!("unknown key{hint}"));
            }
        }
    }

    /// Takes `found` unless a stronger source has spoken, and warns when the two disagree.
    fn offer(&mut self, key: &str, found: Found) {
        let Some(stronger) = self.found.get(key) else {
            self.found.insert(key.to_owned(), found);
            return;
        };
        if stronger.raw.display() != found.raw.display() {
            let (used, other) = (stronger.source(), found.source());
            self.warnings.push(format!("{key}: {used} is used, {other} says something else"));
        }
    }

    fn problem(&mut self, key: &str, variable: Option<String>, place: Option<String>, problem: String) {
        self.problems.push(Problem { key: key.to_owned(), variable, place, problem });
    }
}

fn section(key: &str) -> Option<String> {
    key.split_once('.').map(|(section, _)| section.to_owned())
}

/// A key path with its value and line.
type Line = (String, toml::Value, usize);

/// Returns every `section.key` of a TOML text, and the lines that are not TOML.
fn flatten(text: &str) -> (Vec<Line>, Vec<(usize, String)>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let line = |at: usize| line_at(text, at);
    // `message` never quotes the line, which may hold a secret.
    let mistakes = errors
        .iter()
        .map(|error| (line(error.span().map_or(0, |span| span.start)), error.message().to_owned()))
        .collect::<Vec<_>>();
    let mut values = Vec::new();
    for (name, value) in table.get_ref() {
        match value.get_ref().as_table() {
            Some(section) => {
                for (key, value) in section {
                    values.push((
                        format!("{}.{}", name.get_ref(), key.get_ref()),
                        plain(value),
                        line(key.span().start),
                    ));
                }
            }
            None => values.push((name.get_ref().to_string(), plain(value), line(name.span().start))),
        }
    }
    // What recovery made of a broken line would only report mistakes that nobody made.
    values.retain(|(_, _, line)| mistakes.iter().all(|(broken, _)| broken != line));
    (values, mistakes)
}

/// Returns the value without its places.
fn plain(value: &Spanned<toml::de::DeValue<'_>>) -> toml::Value {
    use serde::Deserialize;
    let value = toml::de::ValueDeserializer::from(value.clone());
    toml::Value::deserialize(value).unwrap_or_else(|_| toml::Value::Array(Vec::new()))
}

/// Reads a secret from a file, without the line end that editors and `echo` put there.
fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_bounded(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(secret.to_owned()) }
}

/// Largest file read, in bytes; a wrong path may lead to a device without an end.
const MAX_FILE: u64 = 1024 * 1024;

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_name_keys_that_exist() {
        let defaults = gather(&Inputs { file: None, ..Inputs::default() }).defaults;
        for key in SENSITIVE.into_iter().chain(ECOSYSTEM.map(|(key, _)| key)) {
            assert!(defaults.contains_key(key), "{key}");
        }
    }
}
