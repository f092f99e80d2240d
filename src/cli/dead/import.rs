//! `dead import`: letters of an export back into the queue and the index. Everything is checked before anything is done.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
};

use jiff::Timestamp;
use serde_json::json;

use crate::{
    broker::{Broker, amqp::Role},
    cli::{connect, interrupt, operator, output, stop::Stop},
    config::Config,
    domain::{action::Deed, ledger::Letter},
    letters::{Restored, read_letter, restore, this_process, unknown},
    store::Store,
};

use super::{Act, sweep::STOPPING};

/// Longest line: a body of 64 KiB in base64 and headers of as much, with room for JSON.
const MAX_LINE: u64 = 1024 * 1024;
/// Problems told at once.
const MAX_PROBLEMS: usize = 20;
/// Letters looked up in the index at once.
const CHUNK: usize = 100;

pub(super) async fn import(config: &Config, path: &str, act: &Act, now: Timestamp) -> Result<(), Stop> {
    let mut file = open(path)?;
    let (retention, now) = (config.dead.retention, now.as_millisecond());
    let read = |line: &str| read_letter(line, now, retention);
    let store = connect::store(config).await?;
    let (new, known) = look(&store, &mut file, read).await?;
    output::line(&preview(new, known, act.yes))?;
    if new == 0 || !act.decide("import")? {
        return Ok(());
    }
    let broker = connect::broker(config, Role::Command).await?;
    let topology = connect::topology(config);
    let bar = output::progress(new + known, "letters");
    let stop = interrupt::on_signal(STOPPING);
    // A file that changed since its lines were checked ends where it is no longer readable.
    let letters = lines(&mut file)?.map_while(|line| read(&line.ok()?).ok());
    let owner = this_process("herald dead import");
    let action = operator::begin(&store, Deed::Import, json!({ "file": path })).await?;
    let restored = restore((&broker, &store, &topology), &owner, letters, &stop, || bar.inc(1)).await;
    let restored = restored.map_err(Stop::from);
    action.end(restored.as_ref().map(|restored| (restored.restored, "imported"))).await;
    bar.finish_and_clear();
    broker.close().await;
    let Restored { restored, interrupted, .. } = restored?;
    output::line(&format!("imported {restored}"))?;
    match interrupted {
        true => Err(Stop::failed("interrupted; the same command goes on with the rest")),
        false => Ok(()),
    }
}

/// Opens what can be read twice: a stream is kept in a temporary file meanwhile.
fn open(path: &str) -> Result<File, Stop> {
    let cannot = |error: std::io::Error| Stop::failed(format!("{path}: cannot be read: {error}"));
    if path != "-" {
        let file = File::open(path).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.is_file() {
            return Ok(file);
        }
    }
    let mut kept = tempfile::tempfile().map_err(cannot)?;
    match path {
        "-" => std::io::copy(&mut std::io::stdin().lock(), &mut kept),
        _ => File::open(path).and_then(|mut stream| std::io::copy(&mut stream, &mut kept)),
    }
    .map_err(cannot)?;
    Ok(kept)
}

/// Returns the lines of `file` from its start, but for empty ones.
fn lines(file: &mut File) -> Result<impl Iterator<Item = Result<String, String>>, Stop> {
    file.rewind().map_err(|error| Stop::failed(format!("cannot be read: {error}")))?;
    let mut reader = BufReader::new(file);
    let next = move || {
        let mut line = Vec::new();
        match reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(read) if read as u64 > MAX_LINE => Some(Err(format!("over {MAX_LINE} bytes in one line"))),
            Ok(_) => Some(String::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())),
            Err(error) => Some(Err(error.to_string())),
        }
    };
    Ok(std::iter::from_fn(next).filter(|line| !line.as_ref().is_ok_and(|line| line.trim().is_empty())))
}

/// Checks every line, and counts letters that would be put back and letters that lie in the queue.
async fn look(
    store: &Store,
    file: &mut File,
    read: impl Fn(&str) -> Result<Letter, String>,
) -> Result<(u64, u64), Stop> {
    let (mut problems, mut chunk, mut new, mut known) = (Vec::new(), Vec::new(), 0, 0);
    let mut lines = lines(file)?.enumerate();
    loop {
        let line = lines.next();
        if line.is_none() || chunk.len() == CHUNK {
            let (fresh, old) = unknown(store, std::mem::take(&mut chunk)).await?;
            new += fresh.len() as u64;
            known += old;
        }
        let Some((index, line)) = line else { break };
        match line.and_then(|line| read(&line)) {
            Ok(letter) => chunk.push(letter),
            Err(problem) => {
                problems.push(format!("letter {}: {}", index + 1, output::clean(&problem)));
                if problems.len() == MAX_PROBLEMS {
                    break;
                }
            }
        }
    }
    if problems.is_empty() {
        return Ok((new, known));
    }
    problems.push("nothing was imported".to_owned());
    Err(Stop::failed(problems.join("\n")))
}

fn preview(new: u64, known: u64, sure: bool) -> String {
    let mut text = match new {
        0 => "no dead letters to import".to_owned(),
        1 => format!("{} import 1 letter", if sure { "will" } else { "would" }),
        new => format!("{} import {new} letters", if sure { "will" } else { "would" }),
    };
    if known > 0 {
        text += &format!("; {known} lie in the queue and are left out");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_are_bounded_and_empty_ones_passed_over() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\n\n  \ntwo").unwrap();
        let told: Vec<_> = lines(&mut file).unwrap().map(|line| line.unwrap().trim().to_owned()).collect();
        assert_eq!(told, ["one", "two"]);
        file.write_all(&vec![b'x'; MAX_LINE as usize + 10]).unwrap();
        let long = lines(&mut file).unwrap().nth(1).unwrap();
        assert_eq!(long, Err("over 1048576 bytes in one line".to_owned()));
        let mut odd = tempfile::tempfile().unwrap();
        odd.write_all(&[0xff, b'\n']).unwrap();
        assert_eq!(lines(&mut odd).unwrap().next(), Some(Err("is not UTF-8".to_owned())));
    }

    #[test]
    fn the_preview_counts_both() {
        assert_eq!(preview(0, 3, false), "no dead letters to import; 3 lie in the queue and are left out");
        assert_eq!(preview(1, 0, false), "would import 1 letter");
        assert_eq!(preview(2, 0, true), "will import 2 letters");
    }
}
