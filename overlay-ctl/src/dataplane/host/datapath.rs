//! The BPF side, shared by the reconciler, which writes it, and the API, which reads its counters.

use crate::dataplane::datapath::Datapath;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The data path, shared.
#[derive(Clone)]
pub struct SharedDatapath(Arc<Mutex<Datapath>>);

impl SharedDatapath {
    /// Takes the data path in.
    #[must_use]
    pub fn new(datapath: Datapath) -> Self {
        Self(Arc::new(Mutex::new(datapath)))
    }

    /// Locks the data path. Most uses are short: a large table is read by [`Datapath::reader`], and written in parts.
    /// [`Datapath::swap_programs`] takes longer, once after a start: it replaces the programs of each device.
    pub fn lock(&self) -> MutexGuard<'_, Datapath> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
