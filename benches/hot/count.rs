//! Runs one case of the hot path a number of times, and nothing else: `scripts/instructions` counts what that takes.
//!
//! `count` names the cases; `count CASE TIMES` runs one.

mod cases;

use std::process::ExitCode;

/// As in herald; and the counts do not change with the system's library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => cases::CASES.iter().for_each(|(name, _)| println!("{name}")),
        [case, times] => {
            let found = cases::CASES.iter().find(|(name, _)| *name == case);
            let (Some((_, prepare)), Ok(times)) = (found, times.parse::<u32>()) else {
                eprintln!("count: no case `{case}` to be run `{times}` times; without arguments the cases are named");
                return ExitCode::FAILURE;
            };
            let mut run = prepare();
            (0..times).for_each(|_| run());
        }
        _ => {
            eprintln!("usage: count [CASE TIMES]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
