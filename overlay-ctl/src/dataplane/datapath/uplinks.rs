//! The uplinks: the devices on which VXLAN is received, each with the program that knows its headers.

use super::{
    Datapath, DatapathError, attach,
    place::{Place, Role},
};
use crate::dataplane::kernel::Uplink;
use overlay_common::Ip16;

/// The uplinks of a data path.
pub(super) struct Uplinks {
    /// The one that carries the VTEP's address.
    underlay: Uplink,
    /// All that were asked for last.
    wanted: Vec<Uplink>,
    /// Those that have their program, and no other device has one; `None` where that is not known.
    settled: Option<Vec<Uplink>>,
}

impl Uplinks {
    /// None but the underlay is known yet.
    pub(super) fn new(underlay: Uplink) -> Self {
        Self { wanted: vec![underlay.clone()], underlay, settled: None }
    }
}

/// The place of the program on an uplink.
fn place(uplink: &Uplink) -> Option<Place> {
    Some(Place { role: Role::on_uplink(uplink.link_layer)?, ifindex: uplink.ifindex })
}

impl Datapath {
    /// Makes sure that each of these has its program, then detaches from all other devices. While a swap is due, nothing
    /// is detached. Returns the uplinks that have no program, and why; the others have theirs. It is cheap where nothing
    /// changed.
    pub fn set_uplinks(&mut self, wanted: Vec<Uplink>) -> Vec<(Uplink, DatapathError)> {
        self.uplinks.wanted = wanted;
        if self.uplinks.settled.as_ref() == Some(&self.uplinks.wanted) {
            return Vec::new();
        }
        self.ensure_uplinks()
    }

    /// Makes sure of the uplinks that were set last, whatever became of their programs meanwhile.
    pub fn ensure_uplinks(&mut self) -> Vec<(Uplink, DatapathError)> {
        let wanted = self.uplinks.wanted.clone();
        let mut without = Vec::new();
        for uplink in &wanted {
            if let Err(error) = self.ensure_uplink(uplink) {
                without.push((uplink.clone(), error));
            }
        }
        let dropped = self.is_swap_due || self.drop_old_uplinks().is_ok();
        let is_settled = without.is_empty() && dropped && !self.is_swap_due;
        self.uplinks.settled = is_settled.then_some(wanted);
        without
    }

    /// Attaches to the device that carries the VTEP's address.
    pub(super) fn ensure_underlay(&mut self) -> Result<(), DatapathError> {
        let underlay = self.uplinks.underlay.clone();
        self.ensure_uplink(&underlay)
    }

    fn ensure_uplink(&mut self, uplink: &Uplink) -> Result<(), DatapathError> {
        match place(uplink) {
            Some(place) => self.ensure(place, &uplink.name),
            None => Err(DatapathError::ForeignLinkLayer(uplink.name.clone())),
        }
    }

    /// Detaches from devices that are no uplink any more. To be called when the uplinks have their programs, so that
    /// there is one at every moment.
    pub(super) fn drop_old_uplinks(&self) -> Result<(), DatapathError> {
        let wanted: Vec<Place> = self.uplinks.wanted.iter().filter_map(place).collect();
        let mut outcome = Ok(());
        for place in attach::places(&self.folders.links)? {
            let is_uplinks = matches!(place.role, Role::Underlay | Role::BareLink);
            if is_uplinks && !wanted.contains(&place) {
                outcome = outcome.and(attach::detach(&self.folders.links, place));
            }
        }
        outcome
    }

    /// The node's VTEP has this address from now on, on this device.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn move_underlay(&mut self, underlay: Uplink, vtep: Ip16) -> Result<(), DatapathError> {
        self.config.underlay_ifindex = underlay.ifindex;
        self.config.vtep = vtep;
        self.uplinks.underlay = underlay;
        self.maps.set_config(&self.config)
    }
}
