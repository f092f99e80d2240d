//! The binary: everything is in the library, so that tests reach it. Here only the room that threads get, and the allocator.
//!
//! Whoever may publish can nest an AMQP header as deep as a frame allows, some 26,000 levels, and lapin reads, writes and drops such
//! a table by recursion: on a thread of the usual 2 MiB that ends the process, again after every restart. So every thread here
//! gets a stack that holds it. Only what is used takes memory.

use std::{
    ffi::{c_int, c_long},
    process::ExitCode,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option `purge_delay`, in milliseconds: how long free memory is kept for the next use before the system has it back.
/// The crate gives no name to it; the test below tells when its number changes.
const PURGE_DELAY: c_int = 15;

/// A quarter of mimalloc's own delay: 3 MB less under load, and no difference in time (docs/benchmarks.md has the figures of a run).
const KEPT_MS: c_long = 250;

unsafe extern "C" {
    /// https://microsoft.github.io/mimalloc/group__options.html
    fn mi_option_set(option: c_int, value: c_long);
}

fn main() -> ExitCode {
    // SAFETY: no other thread exists yet that could read the option meanwhile.
    unsafe { mi_option_set(PURGE_DELAY, KEPT_MS) };
    // lapin makes its own thread and lets nobody say how; the standard library's default is the one way in.
    if std::env::var_os("RUST_MIN_STACK").is_none() {
        // SAFETY: no other thread exists yet that could read the environment meanwhile.
        unsafe { std::env::set_var("RUST_MIN_STACK", STACK.to_string()) };
    }
    let commands = std::thread::Builder::new().name("herald".to_owned()).stack_size(STACK).spawn(herald::cli::main);
    match commands.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        // It has said why.
        Ok(Err(_panicked)) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("herald: no threads or memory left: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Bytes of stack for each thread, with room to spare: unoptimised a level takes 7 to 29 KiB, optimised 1 to 4 KiB
/// (measured with 18,000 nested tables: 128 MiB were too few and 512 enough, 16 too few and 64 enough).
const STACK: usize = if cfg!(debug_assertions) { 512 } else { 128 } * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    #[test]
    fn the_option_is_the_one_whose_default_is_a_second() {
        // SAFETY: nothing in this test binary sets options.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, 1000);
    }
}
