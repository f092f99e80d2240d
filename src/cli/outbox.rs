//! `herald outbox`: the flags; the relay itself is [`crate::outbox`].

use crate::{config::Config, outbox, telemetry};

use super::{output, stop::Stop};

/// What a backend needs, as it stands in `config/outbox`.
const SQL: &str = include_str!("../../config/outbox/herald_outbox.sql");
const PRISMA: &str = include_str!("../../config/outbox/schema.prisma");

const HELP: &str = "\
Needs RabbitMQ (AMQP_URL) and the PostgreSQL with the table (HERALD_OUTBOX__URL, or DATABASE_URL):
  herald outbox --print sql | psql \"$DATABASE_URL\"     makes the table
  herald outbox                                        relays until SIGTERM; several may run side by side

Rows that are no events are marked and left behind:
  SELECT seq, error FROM herald_outbox WHERE failed_at IS NOT NULL
Mend one and set failed_at and error to NULL to have it relayed, or delete it.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Print {
    /// The table, its indexes and its trigger
    Sql,
    /// The model for schema.prisma
    Prisma,
}

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Prints what the backend needs, and does nothing else
    #[arg(long, value_name = "WHAT")]
    print: Option<Print>,
}

/// Prints without reading any configuration; `false` when the relay is wanted.
pub(super) fn printed(args: &Args) -> Result<bool, Stop> {
    match args.print {
        Some(Print::Sql) => output::line(SQL.trim_end()).map(|()| true),
        Some(Print::Prisma) => output::line(PRISMA.trim_end()).map(|()| true),
        None => Ok(false),
    }
}

pub(super) async fn run(config: Config) -> Result<(), Stop> {
    telemetry::init(&config.log);
    outbox::run(config).await?;
    Ok(())
}
