//! `status --watch`: the same screen again every two seconds, drawn over the last one; line by line where there is no terminal.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use crate::cli::{interrupt, output, stop::Stop};

use super::{look::Look, render};

const PERIOD: Duration = Duration::from_secs(2);

/// No cursor meanwhile.
const BEGIN: &str = "\x1b[?25l\x1b[2J";
const END: &str = "\x1b[?25h\n";

/// Looks and shows until Ctrl-C.
pub(super) async fn watch(look: &mut Look<'_>, json: bool) -> Result<(), Stop> {
    let stop = interrupt::on_signal("");
    let screen = !json && std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    if screen {
        draw(BEGIN)?;
    }
    let watched = async {
        loop {
            ticks.tick().await;
            let seen = look.once(PERIOD).await;
            if json {
                output::json(&seen)?;
            } else if screen {
                let (rows, columns) = console::Term::stdout().size();
                let text = format!("{}\n\nevery 2s until Ctrl-C", render::screen(&seen));
                draw(&over(&fit(&text, rows.into(), columns.into())))?;
            } else {
                output::line(&format!("{}\n", render::screen(&seen)))?;
            }
        }
    };
    let ended = tokio::select! {
        ended = watched => ended,
        () = stop.cancelled() => Ok(()),
    };
    if screen {
        draw(END)?;
    }
    look.end().await;
    ended
}

/// Breaks lines at the edge of the terminal, and leaves out what does not fit below.
fn fit(text: &str, rows: usize, columns: usize) -> Vec<String> {
    let broken = text.lines().flat_map(|line| {
        let letters: Vec<char> = line.chars().collect();
        let pieces: Vec<String> = letters.chunks(columns.max(1)).map(|piece| piece.iter().collect()).collect();
        if pieces.is_empty() { vec![String::new()] } else { pieces }
    });
    broken.take(rows.max(1)).collect()
}

/// Draws `lines` over what stands there, each in its place: nothing is cleared that is drawn again, so nothing flickers.
fn over(lines: &[String]) -> String {
    let lines = lines.iter().enumerate().map(|(number, line)| format!("\x1b[{};1H{line}\x1b[K", number + 1));
    lines.collect::<String>() + "\x1b[J"
}

fn draw(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    let drawn = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    drawn.map_err(|error| Stop::failed(format!("cannot print: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_drawn_over_the_last_one_and_never_cleared() {
        let lines = ["a", "", "bc"].map(str::to_owned);
        assert_eq!(over(&lines), "\x1b[1;1Ha\x1b[K\x1b[2;1H\x1b[K\x1b[3;1Hbc\x1b[K\x1b[J");
    }

    #[test]
    fn a_screen_fits_the_terminal() {
        assert_eq!(fit("abcde\n\nüü", 9, 3), ["abc", "de", "", "üü"]);
        assert_eq!(fit("a\nb\nc", 2, 80), ["a", "b"]);
        assert_eq!(fit("ab", 0, 0), ["a"]);
    }
}
