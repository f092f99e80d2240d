//! The kinds of faults: their names, what the table calls them, and how often one strikes in a round.
//!
//! Data only; `inject` carries them out.

/// One kind of fault, a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    KillPresence,
    KillLookup,
    KillSendBefore,
    KillSendAfter,
    KillLedger,
    KillConfirm,
    KillAck,
    KillRandom,
    Terminate,
    Reset,
    Blackhole,
    BrokerRestart,
    BrokerAway,
    CloseAll,
    DeleteEmpty,
    DeleteFull,
    ChannelError,
    MemoryAlarm,
    ConfirmsWithheld,
    PostgresRestart,
    PostgresSlow,
    PostgresLocks,
    Provider500,
    Provider429,
    ProviderRetryAfter,
    ProviderHang,
    ProviderResetBefore,
    ProviderResetAfter,
    ProviderLost,
    ProviderGarbage,
    ProviderShort,
    ReplicaKilled,
    Restarts,
    Poison,
    ClusterLeader,
    RelayKill,
    RelayKillConfirm,
    RelayKillSettle,
    RelayBroker,
    RelayPostgres,
}

/// Name on the command line, words in the table, times it strikes in a long and in a short round.
pub struct Plan {
    pub fault: Fault,
    pub name: &'static str,
    pub words: &'static str,
    pub strikes: u32,
    pub short: u32,
}

const fn plan(fault: Fault, name: &'static str, words: &'static str, strikes: u32, short: u32) -> Plan {
    Plan { fault, name, words, strikes, short }
}

pub const PLANS: &[Plan] = &[
    plan(Fault::None, "none", "no fault", 1, 1),
    plan(Fault::KillPresence, "kill-presence", "SIGKILL while presence is held", 8, 2),
    plan(Fault::KillLookup, "kill-lookup", "SIGKILL while the token look-up is locked", 8, 2),
    plan(Fault::KillSendBefore, "kill-send-before", "SIGKILL while the send is held, before it is accepted", 8, 2),
    plan(Fault::KillSendAfter, "kill-send-after", "SIGKILL while the send is held, after it was accepted", 8, 2),
    plan(Fault::KillLedger, "kill-ledger", "SIGKILL while the ledger is locked", 8, 2),
    plan(Fault::KillConfirm, "kill-confirm", "SIGKILL while a confirm is withheld", 8, 2),
    plan(Fault::KillAck, "kill-ack", "SIGKILL just before the ack", 8, 2),
    plan(Fault::KillRandom, "kill-random", "SIGKILL at random", 12, 3),
    plan(Fault::Terminate, "terminate", "SIGTERM under load", 8, 2),
    plan(Fault::Reset, "reset", "TCP reset to the broker", 12, 3),
    plan(Fault::Blackhole, "blackhole", "blackhole to the broker, longer than two heartbeats", 2, 1),
    plan(Fault::BrokerRestart, "broker-restart", "broker restarted", 3, 1),
    plan(Fault::BrokerAway, "broker-away", "broker away for a minute", 1, 1),
    plan(Fault::CloseAll, "close-all", "all connections closed by the operator", 6, 2),
    plan(Fault::DeleteEmpty, "delete-empty", "queue deleted while empty", 3, 1),
    plan(Fault::DeleteFull, "delete-full", "queue deleted with content", 1, 1),
    plan(Fault::ChannelError, "channel-error", "channel error (406)", 8, 2),
    plan(Fault::MemoryAlarm, "memory-alarm", "memory alarm", 3, 1),
    plan(Fault::ConfirmsWithheld, "confirms-withheld", "publisher confirms withheld", 3, 1),
    plan(Fault::PostgresRestart, "postgres-restart", "PostgreSQL restarted", 4, 1),
    plan(Fault::PostgresSlow, "postgres-slow", "PostgreSQL slow", 3, 1),
    plan(Fault::PostgresLocks, "postgres-locks", "PostgreSQL full of locks", 3, 1),
    plan(Fault::Provider500, "provider-500", "provider answers 500", 4, 1),
    plan(Fault::Provider429, "provider-429", "provider answers 429 without Retry-After", 4, 1),
    plan(Fault::ProviderRetryAfter, "provider-retry-after", "provider answers 429 with Retry-After", 4, 1),
    plan(Fault::ProviderHang, "provider-hang", "provider hangs", 3, 1),
    plan(Fault::ProviderResetBefore, "provider-reset-before", "provider resets before accepting", 4, 1),
    plan(Fault::ProviderResetAfter, "provider-reset-after", "provider resets after accepting", 4, 1),
    plan(Fault::ProviderLost, "provider-lost", "provider's answers lost", 3, 1),
    plan(Fault::ProviderGarbage, "provider-garbage", "provider answers garbage", 4, 1),
    plan(Fault::ProviderShort, "provider-short", "provider answers one ticket or result too few", 4, 1),
    plan(Fault::ReplicaKilled, "replica-killed", "two replicas, one killed", 6, 2),
    plan(Fault::Restarts, "restarts", "25 restarts in a row with a full prefetch", 25, 25),
    plan(Fault::Poison, "poison", "an event that aborts the process", 1, 1),
    plan(Fault::ClusterLeader, "cluster-leader", "three-node cluster losing its leader node", 2, 1),
    plan(Fault::RelayKill, "outbox-kill", "outbox: SIGKILL of a relay at random", 12, 3),
    plan(
        Fault::RelayKillConfirm,
        "outbox-kill-confirm",
        "outbox: SIGKILL of a relay while a confirm is withheld",
        8,
        2,
    ),
    plan(Fault::RelayKillSettle, "outbox-kill-settle", "outbox: SIGKILL of a relay between confirm and delete", 8, 2),
    plan(Fault::RelayBroker, "outbox-broker", "outbox: broker restarted", 3, 1),
    plan(Fault::RelayPostgres, "outbox-postgres", "outbox: PostgreSQL restarted", 4, 1),
];

impl Fault {
    /// Whether events may end dead: only where a provider was made to refuse them for longer than the schedule, or one event
    /// kills the worker.
    pub fn may_die(self) -> bool {
        self.hurts_providers() || matches!(self, Fault::KillConfirm | Fault::ConfirmsWithheld | Fault::Poison)
    }

    pub fn hurts_providers(self) -> bool {
        matches!(
            self,
            Fault::Provider500
                | Fault::Provider429
                | Fault::ProviderRetryAfter
                | Fault::ProviderHang
                | Fault::ProviderResetBefore
                | Fault::ProviderResetAfter
                | Fault::ProviderLost
                | Fault::ProviderGarbage
                | Fault::ProviderShort
        )
    }

    /// Whether the fault strikes a server that other rounds use at the same time.
    pub fn exclusive(self) -> bool {
        matches!(
            self,
            Fault::BrokerRestart
                | Fault::BrokerAway
                | Fault::MemoryAlarm
                | Fault::PostgresRestart
                | Fault::RelayBroker
                | Fault::RelayPostgres
        )
    }

    /// How many relays run beside the workers; with any, events are written into the outbox instead of being published.
    pub fn relays(self) -> usize {
        match self {
            Fault::RelayKill
            | Fault::RelayKillConfirm
            | Fault::RelayKillSettle
            | Fault::RelayBroker
            | Fault::RelayPostgres => 2,
            _ => 0,
        }
    }

    /// How many workers the fault needs at least.
    pub fn replicas(self) -> usize {
        if self == Fault::ReplicaKilled { 2 } else { 1 }
    }
}
