//! Makes the tables and the names those of a view: all of them in a pass, or only what a new view changed.

use super::{Reconciler, bridges, desired, held::Held, names, pass_state::PassState};
use crate::{
    control::state::{Changed, View},
    dataplane::kernel::{Kernel, KernelError, Maps as _, Resolve as _, WantedDevices},
};
use overlay_common::TRAFFIC_MAX;
use std::sync::Arc;

/// The devices, where a sync is to write all that depends on them.
struct Whole<'a> {
    wanted: &'a WantedDevices,
    state: &'a mut PassState,
}

impl<K: Kernel> Reconciler<K> {
    /// Reads all tables, and forgets what was held before.
    pub(super) async fn read_all(&mut self) -> Result<(), KernelError> {
        let tables = self.kernel.maps().tables().await?;
        let held = Held::read(tables, &self.node);
        let used = held.slots();
        // An earlier process may have ended before it freed them.
        let unused = (1..TRAFFIC_MAX).filter(|slot| !used.contains(slot)).collect();
        self.kernel.maps().free_slots(unused).await?;
        self.held = held;
        Ok(())
    }

    /// Reads the tables that a pass compares whole.
    pub(super) async fn read_small(&mut self) -> Result<(), KernelError> {
        let small = self.kernel.maps().small_tables().await?;
        self.held.replace_small(small);
        Ok(())
    }

    /// Repairs the entries of the large tables' next part that differ from the view. It must follow a pass, because
    /// entries may name only what exists.
    pub(super) async fn audit(&mut self) -> Result<(), KernelError> {
        let wrong = self.audit.next(self.kernel.maps(), &self.held, &self.node).await?;
        if wrong.is_empty() {
            return Ok(());
        }
        tracing::warn!(entries = wrong.len(), "the FDB or the neighbours were not as written");
        self.held.write(self.kernel.maps(), &wrong).await
    }

    /// Follows a view that differs from the last one only by endpoints on other nodes, or by a doubt whether a node lives:
    /// only the entries and names of those endpoints have to change. Returns false if the view differs by more, so that a pass is due.
    ///
    /// # Errors
    /// The kernel refused a change.
    pub(super) async fn follow(&mut self, view: &View) -> Result<bool, KernelError> {
        if self.held.sites.update(view) {
            return Ok(false);
        }
        let before = Arc::clone(&self.names);
        self.sync(view, None).await?;
        if !Arc::ptr_eq(&before, &self.names) {
            self.tell_names(false).await;
        }
        self.status.send_if_modified(|now| {
            let changed = now.programmed != view.revision;
            now.programmed = view.revision;
            changed
        });
        Ok(true)
    }

    /// Makes all tables those of the view and the devices.
    pub(super) async fn sync_all(
        &mut self,
        view: &View,
        wanted: &WantedDevices,
        state: &mut PassState,
    ) -> Result<(), KernelError> {
        self.sync(view, Some(Whole { wanted, state })).await
    }

    /// Makes the tables, and with them `names`, those of the view: all that differs from the view that they are of,
    /// and where `whole` is given all that depends on the devices.
    ///
    /// A name that ends is withdrawn from the resolvers before its entry goes. A name that begins is only noted, for
    /// [`Reconciler::tell_names`] to tell when its entry stands.
    async fn sync(&mut self, view: &View, whole: Option<Whole<'_>>) -> Result<(), KernelError> {
        let older = self.held.view.clone();
        let is_whole = whole.is_some();
        let touched = self.held.touched(&older, view, is_whole);
        let mut small = None;
        let mut devices = None;
        if let Some(Whole { wanted, state }) = whole {
            state.note(self.held.place(view, &self.node, &state.devices));
            let stands = desired::Standing { wanted, devices: &state.devices, ways: &self.ways };
            let (sites, placement) = (&self.held.sites, &self.held.placement);
            let mut tables = desired::small_tables(view, &self.node, sites, &stands, placement);
            state.note(bridges::put(&mut tables, view, &self.node, sites, placement));
            small = Some(tables);
            devices = Some(&state.devices);
        }
        let rows = self.held.rows(&older, view, &self.node, &touched);
        let before = Arc::clone(&self.names);
        match devices.filter(|_| self.held.may_hold_stale_entries) {
            Some(devices) => {
                let names = names::desired_names(view, &self.node, &self.held.tables, devices);
                self.names = Arc::new(names);
                // Entries that were read may go in this sync.
                let all = view.all_endpoints();
                let all = all.map(|endpoint| Changed { old: Some(endpoint), new: Some(endpoint) });
                names::forget(&mut self.names, view, &all.collect::<Vec<_>>(), &rows);
            }
            None => names::forget(&mut self.names, view, &touched, &rows),
        }
        if !Arc::ptr_eq(&before, &self.names) {
            self.tell_names(is_whole).await;
        }
        let changes = self.held.changes(small.as_ref(), &rows);
        drop(rows);
        let before = self.held.slots();
        self.held.write(self.kernel.maps(), &changes).await?;
        let freed = &before - &self.held.slots();
        if let Err(error) = self.kernel.maps().free_slots(freed).await {
            self.held.doubt();
            return Err(error);
        }
        // After a full read `older` is empty, so `touched` has every endpoint of the view.
        names::tell(&mut self.names, view, &touched, &self.held.tables);
        if let Some(devices) = devices {
            let here = self.held.sites.here();
            let namespaces = names::namespaces(view, here, &self.held.tables, devices);
            if namespaces != self.names.namespaces {
                Arc::make_mut(&mut self.names).namespaces = namespaces;
            }
        }
        self.held.view = view.clone();
        self.held.may_hold_stale_entries = false;
        Ok(())
    }

    /// Makes the resolvers answer from `names`, unless they do so already without a problem.
    pub(super) async fn tell_names(&mut self, is_whole: bool) {
        if self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &self.names)) {
            return;
        }
        let resolved = self.kernel.resolve().resolve(&self.names, is_whole).await;
        let is_done = is_whole && resolved.trouble.is_empty();
        self.told = is_done.then(|| Arc::clone(&self.names));
        if resolved.trouble != self.resolved.trouble && !resolved.trouble.is_empty() {
            tracing::warn!(trouble = ?resolved.trouble, "names do not resolve everywhere");
        }
        self.resolved = resolved;
    }
}
