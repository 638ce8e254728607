//! Taking over from an earlier process, and the swap of programs when its maps are of another layout.

use super::{
    Datapath, DatapathError, attach,
    place::{Place, Role},
};
use crate::dataplane::kernel::Program;

impl Datapath {
    /// Takes over what earlier processes attached, and attaches to the underlay. Programs that use the pinned maps are
    /// replaced; while a swap is due, all stay.
    pub(super) fn take_over(&mut self) -> Result<(), DatapathError> {
        for place in attach::places(&self.folders.links)? {
            // The guard is replaced by `attach_guard`, since its mode may have to change.
            if matches!(place.role, Role::Guard(_)) {
                continue;
            }
            let is_attached = if self.is_swap_due {
                attach::is_attached(&self.folders.links, place)
            } else {
                self.replace(place)?
            };
            self.note(place, is_attached);
        }
        self.ensure_underlay()
    }

    /// Notes whether a device has its program.
    fn note(&mut self, place: Place, is_attached: bool) {
        let program = match place.role {
            Role::Underlay | Role::Veth | Role::BareLink | Role::Guard(_) => return,
            Role::Endpoint => Program::FromEndpoint,
            Role::Gateway => Program::FromGateway,
        };
        let devices = self.attached.entry(program).or_default();
        if is_attached {
            devices.insert(place.ifindex);
        } else {
            devices.remove(&place.ifindex);
        }
    }

    /// Returns true while programs of another layout are attached, with maps that this process does not write.
    /// They forward as those maps say, until [`Datapath::swap_programs`]. A device that has no program gets this
    /// process' own at once.
    #[must_use]
    pub fn is_swap_due(&self) -> bool {
        self.is_swap_due
    }

    /// The newest endpoint that the maps of other layouts hold, by which the attached programs forward; `None` if no
    /// swap is due.
    ///
    /// # Errors
    /// [`DatapathError::Table`], [`DatapathError::Folder`].
    pub fn newest_of_other_layouts(&self) -> Result<Option<u64>, DatapathError> {
        if self.is_swap_due { self.folders.newest_of_others().map(Some) } else { Ok(None) }
    }

    /// Replaces the program at one place.
    fn swap_program(&mut self, place: Place) -> Result<(), DatapathError> {
        if let Role::Guard(mode) = place.role {
            return self.swap_guard(place, mode);
        }
        let is_attached = self.replace(place)?;
        self.note(place, is_attached);
        Ok(())
    }

    /// Replaces the programs of another layout by this process' own, each atomically, and removes the maps of other
    /// layouts. To be called when the tables hold all that they should; does nothing if no swap is due. Returns
    /// whether one was.
    ///
    /// # Errors
    /// The first [`DatapathError`]; the swap is still due, and each device has one of the two programs.
    pub fn swap_programs(&mut self) -> Result<bool, DatapathError> {
        if !self.is_swap_due {
            return Ok(false);
        }
        // A place that can't be swapped must not keep the others on maps that nobody writes any more.
        let mut outcome = Ok(());
        for place in attach::places(&self.folders.links)? {
            outcome = outcome.and(self.swap_program(place));
        }
        outcome?;
        // An uplink may get another program than the one that was replaced. Where that fails, the next look tries again.
        self.is_swap_due = false;
        for (uplink, error) in self.ensure_uplinks() {
            let (device, error) = (uplink.name, crate::error_chain(&error));
            tracing::warn!(device, error, "an uplink keeps its former program");
        }
        let ended = self.folders.end_swap();
        self.is_swap_due = ended.is_err();
        ended?;
        tracing::info!("the programs of another version are replaced");
        Ok(true)
    }
}
