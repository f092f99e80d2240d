//! The command line: one file for each command. What is printed for reading goes to standard output, everything else to
//! standard error.
//!
//! Exit codes are a contract: 0 ok, 1 failed, 64 usage, 78 configuration.

mod stop;
mod connect;
mod interrupt;
mod output;
mod run;
mod outbox;
mod demo;
mod sandbox;
mod send;
mod status;
mod explain;
mod dead;
mod check;
mod operator;
mod steer;
mod actions;
mod users;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Inputs};

use stop::{Stop, USAGE};

/// Delivers session events from RabbitMQ to whoever is online (Ably) or not (Expo push), and can explain every decision.
#[derive(Debug, Parser)]
#[command(name = "herald", version, max_term_width = 120, after_help = EXAMPLES)]
struct Cli {
    /// Configuration file [env: HERALD_CONFIG] [default: config/herald.toml, or the compiled-in text when that is absent]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key, before every other source; may be repeated. Secrets belong into a variable or file: a command line
    /// can be read by everybody on the machine.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it without an account or a broker:
  herald demo --exit

The usual way in:
  herald check                                             is everything set up?
  herald run                                               deliver events until SIGTERM
  herald send partner.advanced --session s1 --partner u2   enqueue one event
  herald explain --session s1                              what became of it, and why
  herald dead list                                         what could not be delivered

Exit codes: 0 ok, 1 failed, 64 usage, 78 configuration.";

const RUN: &str = "\
Needs RabbitMQ (AMQP_URL), an Ably key (ABLY_API_KEY) and the database with the push tokens (DATABASE_URL, or `none`):
  AMQP_URL=amqp://guest:guest@127.0.0.1/ ABLY_API_KEY=app.key:secret DATABASE_URL=postgres://localhost/app herald run

Several workers share a PostgreSQL store: HERALD_STORE__URL=postgres://…
While it runs: the page http://127.0.0.1:8080/, and /readyz, /healthz, /metrics.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Delivers events until SIGTERM or SIGINT; a second signal ends it at once
    #[command(after_help = RUN)]
    Run,
    /// Relays the events that a backend wrote into its own database (table herald_outbox) until SIGTERM
    Outbox(outbox::Args),
    /// Plays twenty events through everything, without an account, and shows what went where and why
    Demo(demo::Args),
    /// A local Ably REST and Expo push, for development without accounts (sandbox.listen)
    Sandbox,
    /// Enqueues events, as a backend would
    Send(send::Args),
    /// Shows how full every queue is, and the ledger's books
    Status(status::Args),
    /// Tells what became of an event, and why
    Explain(explain::Args),
    /// Lists, shows, replays, drops, exports and imports dead letters
    Dead(dead::Args),
    /// Stops taking events in, on all workers; what is in hand is finished, everything else waits in its queue
    Pause(steer::Args),
    /// Takes events in again
    Resume(steer::Args),
    /// Sends nothing to one provider; its events wait and use no attempt
    Hold(steer::ProviderArgs),
    /// Ends a hold; a provider that was shut by failures is tried at once
    Release(steer::ProviderArgs),
    /// Sets another log filter on all workers while they run
    LogLevel(steer::LogArgs),
    /// Tells what operators did: who, when, what, how many
    Actions(actions::Args),
    /// Tries a push to one user, or forgets one user
    Users(users::Args),
    /// Tries everything herald needs, and says for each ok or what to do
    Check(check::Args),
}

/// Where the configuration of a command comes from.
struct Sources {
    file: Option<PathBuf>,
    set: Vec<(String, String)>,
}

impl Sources {
    fn inputs(self) -> Inputs {
        Inputs::from_process(self.file, self.set)
    }

    /// Reads the configuration and tells its warnings.
    fn load(self) -> Result<Config, Stop> {
        let loaded = config::load(&self.inputs())?;
        for warning in &loaded.warnings {
            eprintln!("herald: warning: {warning}");
        }
        Ok(loaded.config)
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; they go to standard output. A closed pipe there is nobody's problem.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // Fails when one is installed already, which is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Stop::failed(format!("no threads or files left: {error}")).tell(),
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.tell(),
    }
}

async fn dispatch(cli: Cli) -> Result<(), Stop> {
    let sources = Sources { file: cli.config, set: cli.set };
    match cli.command {
        Command::Run => run::run(sources.load()?).await,
        Command::Outbox(args) if outbox::printed(&args)? => Ok(()),
        Command::Outbox(_) => outbox::run(sources.load()?).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Sandbox => sandbox::run(sources.load()?).await,
        Command::Send(args) => send::run(&sources.load()?, args).await,
        Command::Status(args) => status::run(&sources.load()?, &args).await,
        Command::Explain(args) => explain::run(&sources.load()?, args).await,
        Command::Dead(args) => dead::run(&sources.load()?, args).await,
        Command::Pause(args) => steer::pause(&sources.load()?, args).await,
        Command::Resume(args) => steer::resume(&sources.load()?, args).await,
        Command::Hold(args) => steer::hold(&sources.load()?, args).await,
        Command::Release(args) => steer::release(&sources.load()?, args).await,
        Command::LogLevel(args) => steer::log_level(&sources.load()?, args).await,
        Command::Actions(args) => actions::run(&sources.load()?, &args).await,
        Command::Users(args) => users::run(&sources.load()?, args).await,
        Command::Check(args) => check::run(&sources.inputs(), &args).await,
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write key=value, e.g. broker.prefetch=64")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_explained() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} says what it does", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
