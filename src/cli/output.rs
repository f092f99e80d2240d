//! Printing: to standard output, with a reader that may go away (`| head`), in tables, times and ages people can read.

use std::io::{ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::stop::Stop;
pub(super) use crate::domain::when::{span, time};

/// Prints `text` and a line end. A reader that went away ends the command quietly.
pub(super) fn line(text: &str) -> Result<(), Stop> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Stop::silent(0)),
        Err(error) => Err(Stop::failed(format!("cannot print: {error}"))),
    }
}

/// Prints `value` as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Stop> {
    let text = serde_json::to_string(value).map_err(|error| Stop::failed(format!("cannot print: {error}")))?;
    line(&text)
}

/// Returns a table with aligned columns; numbers on the right. The first row is the heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0))
        .collect();
    let numeric: Vec<bool> = (0..columns)
        .map(|column| {
            let mut cells = rows.iter().skip(1).filter_map(|row| row.get(column)).peekable();
            cells.peek().is_some()
                && cells.all(|cell| {
                    cell.starts_with(|c: char| c.is_ascii_digit()) || ["unknown", "-"].contains(&cell.as_str())
                })
        })
        .collect();
    let render = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let padding = " ".repeat(widths[column] - length(cell));
            if numeric[column] { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(render).collect::<Vec<_>>().join("\n")
}

/// Returns `text` fit for a terminal: what others wrote must not move the cursor.
pub(super) fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// Returns a progress bar over `total` steps, which shows itself on a terminal only.
pub(super) fn progress(total: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    if let Ok(style) = style { bar.with_style(style.progress_chars("=> ")) } else { bar }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_put_numbers_right() {
        let cells = |row: [&str; 3]| row.map(str::to_owned).to_vec();
        let rows = [cells(["queue", "ready", "age"]), cells(["a.events", "12", "unknown"]), cells(["b", "1234", "-"])];
        assert_eq!(table(&rows), "queue     ready      age\na.events     12  unknown\nb          1234        -");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn what_others_wrote_does_not_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
