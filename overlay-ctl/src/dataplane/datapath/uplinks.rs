//! The uplinks: the devices on which VXLAN is received, each with the program that knows its headers.

use super::{
    Datapath, DatapathError, attach,
    place::{Place, Role},
};
use crate::dataplane::kernel::Uplink;
use overlay_common::{Config, Ip16};

/// The uplinks of a data path.
pub(super) struct Uplinks {
    /// The one that carries the VTEP's address.
    underlay: Uplink,
    /// All that were asked for last.
    wanted: Vec<Uplink>,
    /// They were asked for in this process. Before that nothing is detached: an earlier process knew of others.
    is_known: bool,
    /// Those that have their program, and no other device has one; `None` where that is not known.
    settled: Option<Vec<Uplink>>,
}

impl Uplinks {
    /// None but the underlay is known yet.
    pub(super) fn new(underlay: Uplink) -> Self {
        Self { wanted: vec![underlay.clone()], is_known: false, underlay, settled: None }
    }
}

/// The place of the program on an uplink.
fn place(uplink: &Uplink) -> Option<Place> {
    Some(Place { role: Role::on_uplink(uplink)?, ifindex: uplink.ifindex })
}

impl Datapath {
    /// Makes sure that each of these has its program, then detaches from all other devices. While a swap is due, nothing
    /// is detached. Returns the uplinks that have no program, and why; the others have theirs. It is cheap where nothing
    /// changed.
    pub fn set_uplinks(&mut self, wanted: Vec<Uplink>) -> Vec<(Uplink, DatapathError)> {
        self.uplinks.wanted = wanted;
        self.uplinks.is_known = true;
        if self.uplinks.settled.as_ref() == Some(&self.uplinks.wanted) {
            return Vec::new();
        }
        self.ensure_uplinks()
    }

    /// Makes sure of the uplinks that were set last, whatever became of their programs meanwhile. Before any were set, it
    /// makes sure of the underlay's and leaves the others alone.
    pub fn ensure_uplinks(&mut self) -> Vec<(Uplink, DatapathError)> {
        let wanted = self.uplinks.wanted.clone();
        let mut without = Vec::new();
        for uplink in &wanted {
            if let Err(error) = self.ensure_uplink(uplink) {
                without.push((uplink.clone(), error));
            }
        }
        let deaf: Vec<u32> = without.iter().map(|(uplink, _)| uplink.ifindex).collect();
        let is_final = self.uplinks.is_known && !self.is_swap_due;
        let dropped = !is_final || self.drop_old_uplinks(&deaf).is_ok();
        let is_settled = without.is_empty() && dropped && is_final;
        self.uplinks.settled = is_settled.then_some(wanted);
        without
    }

    /// Attaches to the device that carries the VTEP's address.
    pub(super) fn ensure_underlay(&mut self) -> Result<(), DatapathError> {
        let underlay = self.uplinks.underlay.clone();
        self.ensure_uplink(&underlay)
    }

    fn ensure_uplink(&mut self, uplink: &Uplink) -> Result<(), DatapathError> {
        let Some(wanted) = place(uplink) else {
            return Err(DatapathError::ForeignLinkLayer(uplink.name.clone()));
        };
        // A program of another layout may be another one of an uplink's. In front of it, one of this layout would take
        // the packets, and drop them by maps that are not filled.
        let of_another = self.is_swap_due.then(|| self.held_on(uplink.ifindex)).flatten();
        self.ensure(of_another.unwrap_or(wanted), &uplink.name)
    }

    /// The place of the program that the uplink has, whichever it is.
    fn held_on(&self, ifindex: u32) -> Option<Place> {
        let places = Role::UPLINKS.map(|role| Place { role, ifindex });
        places.into_iter().find(|place| attach::is_attached(&self.folders.links, *place))
    }

    /// Detaches from devices that are no uplink any more, and takes off what an uplink has beside its program. To be
    /// called when the uplinks have their programs, so that there is one at every moment; those in `deaf` have none, and
    /// keep what they have.
    fn drop_old_uplinks(&self, deaf: &[u32]) -> Result<(), DatapathError> {
        let wanted: Vec<Place> = self.uplinks.wanted.iter().filter_map(place).collect();
        let mut outcome = Ok(());
        for place in attach::places(&self.folders.links)? {
            let is_old = !wanted.contains(&place) && !deaf.contains(&place.ifindex);
            if !Role::UPLINKS.contains(&place.role) || !is_old {
                continue;
            }
            // Of a device that has another program now: a filter of clsact became that one, and is not to be taken off.
            let has_another = wanted.iter().any(|other| other.ifindex == place.ifindex);
            let dropped = if has_another {
                attach::remove_entry(&place.entry(&self.folders.links))
            } else {
                attach::detach(&self.folders.links, place)
            };
            outcome = outcome.and(dropped);
        }
        outcome
    }

    /// `from_veth` sends segments that came in one by one out of this device from now on, to have them merged; 0: out of
    /// none. What goes out must come in by a device that is an uplink.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn merge_by(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        if self.config.merge_ifindex == ifindex {
            return Ok(());
        }
        let config = Config { merge_ifindex: ifindex, ..self.config };
        self.maps.set_config(&config)?;
        // Not before: what was not written is written by the next attempt.
        self.config = config;
        Ok(())
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
