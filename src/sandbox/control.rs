//! The control API as Rust: everything `/_sandbox/` can do, for the demo, tests and benches in the same process.
//!
//! Owns all state of the sandbox. Cheap to clone; every clone is the same sandbox.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    ably::Ably,
    effects::Effect,
    entry::Entry,
    expo::Expo,
    fault::{Fault, Faults, Waiting},
    journal::{Count, Journal},
    route::Provider,
    settings::{Credential, Device, Settings},
};

/// Sets presence, faults, keys and devices, and reads the journal.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    settings: RwLock<Arc<Settings>>,
    faults: Faults,
    journal: Arc<Journal>,
    ably: Ably,
    expo: Expo,
}

impl fmt::Debug for Control {
    /// Says nothing: the state holds keys and push tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn new(settings: Settings) -> Self {
        Self(Arc::new(Inner {
            ably: Ably::default(),
            expo: Expo::new(settings.tickets),
            settings: RwLock::new(Arc::new(settings)),
            faults: Faults::default(),
            journal: Arc::default(),
        }))
    }

    /// Lets a client enter a channel's presence, once more over a connection of its own when it is there already.
    /// Returns the connection's id.
    pub fn enter(&self, channel: &str, client_id: &str) -> String {
        self.0.ably.enter(channel, client_id, None, None)
    }

    /// Lets a client enter over the named connection, with presence data as text.
    pub fn enter_on(&self, channel: &str, client_id: &str, connection_id: &str, data: Option<String>) {
        self.0.ably.enter(channel, client_id, Some(connection_id), data);
    }

    /// Lets a client leave a channel's presence with all its connections; returns how many those were.
    pub fn leave(&self, channel: &str, client_id: &str) -> usize {
        self.0.ably.leave(channel, client_id, None)
    }

    /// Lets one connection of a client leave.
    pub fn leave_on(&self, channel: &str, client_id: &str, connection_id: &str) -> usize {
        self.0.ably.leave(channel, client_id, Some(connection_id))
    }

    /// Makes an Ably key or token known, or changes it.
    pub fn add_credential(&self, credential: Credential) {
        self.0.ably.add_credential(credential);
    }

    /// Says what is known of a push token beside what it says itself.
    pub fn set_device(&self, token: &str, device: Device) {
        self.0.expo.set_device(token, device);
    }

    /// Adds a fault; false when there are too many already.
    pub fn add_fault(&self, fault: Fault) -> bool {
        self.0.faults.add(fault)
    }

    /// Returns the rules still in force.
    pub fn list_faults(&self) -> Vec<Fault> {
        self.0.faults.rules()
    }

    /// Removes every rule, forgets what magic ids have done, and lets held requests go on.
    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    /// Ends every hold and lets the held requests go on; returns how many.
    pub fn release(&self) -> usize {
        self.0.faults.release()
    }

    /// Returns the requests that are held now.
    pub fn held(&self) -> Vec<Waiting> {
        self.0.faults.held()
    }

    /// Returns up to `limit` journal entries with numbers above `since`, oldest first.
    pub fn entries(&self, since: u64, provider: Option<Provider>, limit: usize) -> Vec<Entry> {
        self.0.journal.entries(since, provider, limit)
    }

    /// Returns the number of the last journal entry; 0 when there is none.
    pub fn last_entry(&self) -> u64 {
        self.0.journal.last()
    }

    /// Returns the totals per endpoint name.
    pub fn counters(&self) -> BTreeMap<&'static str, Count> {
        self.0.journal.counts()
    }

    /// Returns up to `limit` effects from the position `from`, in the order in which they first happened.
    pub fn effects(&self, from: usize, limit: usize) -> Vec<Effect> {
        self.0.journal.effects(from, limit)
    }

    /// Returns how many distinct effects are listed, and how many more happened after the list was full.
    pub fn effect_totals(&self) -> (usize, u64) {
        self.0.journal.effect_totals()
    }

    /// Forgets entries, counters and effects. Presence, seen ids, tickets and faults stay.
    pub fn reset_journal(&self) {
        self.0.journal.reset();
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the settings; `tickets` counts only at start.
    pub fn set_settings(&self, settings: Settings) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub(super) fn journal(&self) -> &Arc<Journal> {
        &self.0.journal
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(super) fn ably(&self) -> &Ably {
        &self.0.ably
    }

    pub(super) fn expo(&self) -> &Expo {
        &self.0.expo
    }
}
