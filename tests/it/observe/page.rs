//! A worker's metrics page, read sample by sample.

use std::collections::BTreeMap;

use crate::{rig::Rig, support::eventually};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Returns what the worker's `/metrics` says.
pub async fn text(rig: &Rig, worker: usize) -> String {
    let answer = reqwest::get(format!("{}/metrics", rig.http(worker))).await.expect("the worker answers");
    answer.text().await.expect("text")
}

/// Reads the samples of a page.
pub fn samples(page: &str) -> Vec<Sample> {
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}')?.split_terminator("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (label, value) = pair.split_once("=\"")?;
        Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(Sample { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value: value.parse().ok()? })
}

/// Returns the sum of the samples of `name` with all of `labels`, or `None` when there is none.
pub fn value(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    sum(page, &Sample { name: name.to_owned(), labels: labels.collect(), value: 0.0 })
}

/// Does what [`value`] does for a series written as on the page: `name` or `name{label="value"}`.
pub fn value_of(page: &str, series: &str) -> Option<f64> {
    sum(page, &sample(&format!("{series} 0")).unwrap_or_else(|| panic!("not a series: {series}")))
}

fn sum(page: &str, wanted: &Sample) -> Option<f64> {
    let fits = |sample: &Sample| {
        sample.name == wanted.name && wanted.labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
    };
    let values: Vec<f64> = samples(page).iter().filter(|sample| fits(sample)).map(|sample| sample.value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Waits until the worker's value fits.
pub async fn until(rig: &Rig, worker: usize, name: &str, labels: &[(&str, &str)], fits: impl Fn(f64) -> bool) -> f64 {
    eventually(&format!("{name}{labels:?}"), async || {
        value(&text(rig, worker).await, name, labels).filter(|value| fits(*value))
    })
    .await
}
