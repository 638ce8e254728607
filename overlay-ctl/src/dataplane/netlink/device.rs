//! Devices of the overlay created, raised and removed. What the kinds of devices differ in is a row of
//! [`kernel::Kind`](crate::dataplane::kernel::Kind).

use ipnet::IpNet;
use nix::errno::Errno;

use super::{
    DeviceError, Netlink, Offloads,
    features::UNCARRIED,
    link,
    marks::{self, device_name, id_of},
    netns::Netns,
    observe::observed,
    pair::Pair,
};
use crate::dataplane::kernel::{Bridge, DeviceId, DeviceSpec, Kind, ObservedDevice};

impl Netlink {
    /// Creates a device, both sides down, and calls `attach` with the name and the index of the host's side: there
    /// the caller attaches the program. [`Netlink::raise_device`] follows. On any error nothing is left.
    ///
    /// A raised device of this id that leads into the namespace stays, and is the result: the list that did not show it
    /// was interrupted. What else is left of an earlier device of this id is removed first.
    ///
    /// # Errors
    /// [`DeviceError`]: what of the namespace does not fit, or what the kernel refused.
    /// [`DeviceError::InterfaceExists`] also where the namespace has an interface of that name that is the overlay's,
    /// if there can be only one. [`DeviceError::NoGatewayBridge`] and [`DeviceError::GatewayBridgeFull`] of a leg.
    pub async fn create_device<E>(
        &self,
        spec: &DeviceSpec,
        attach: impl FnOnce(&str, u32) -> Result<(), E>,
    ) -> Result<ObservedDevice, DeviceError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let row = spec.id.kind.row();
        let ifname = device_name(spec.id)?;
        let netns = Netns::open(&spec.netns)?;
        if let Some(standing) = self.standing(spec, &netns).await? {
            attach(&standing.ifname, standing.ifindex)
                .map_err(|error| DeviceError::Attach(error.into()))?;
            return Ok(standing);
        }
        self.remove_device(spec.id).await?;
        let bridge = self.bridge_of(row).await?;
        let inside = netns.connect()?;
        let interfaces = link::links(&inside, None).await?;
        self.check_free(&netns, &interfaces, row.interface.required()).await?;
        let taken: Vec<&str> = interfaces.iter().map(|link| link.name.as_str()).collect();
        let pair = Pair {
            ifname: &ifname,
            netns: &netns,
            interface: &row.interface.choose(&taken),
            mac: spec.mac,
            addresses: &spec.addresses,
            mtu: spec.sizes.mtu,
        };
        match self.make_pair(&pair, bridge).await {
            Err(DeviceError::Netlink(error)) if error.errno() == Some(Errno::EXFULL) => {
                match row.bridge {
                    // `ensure_barrier` reports it.
                    Bridge::Barrier => self.make_pair(&pair, None).await?,
                    Bridge::Gateway => return Err(DeviceError::GatewayBridgeFull),
                }
            }
            made => made?,
        }
        let is_isolated = row.bridge == Bridge::Gateway;
        let (link, peer) = self.prepare_pair(&pair, &inside, is_isolated, attach).await?;
        if let (true, Some(peer)) = (row.cuts_inside, link.peer) {
            cut_inside(&pair, peer).await;
        }
        Ok(observed(spec.id, link, peer))
    }

    /// The device of this spec, where it was raised and leads into this namespace.
    async fn standing(
        &self,
        spec: &DeviceSpec,
        netns: &Netns,
    ) -> Result<Option<ObservedDevice>, DeviceError> {
        let Some(device) = self.device(spec.id).await? else { return Ok(None) };
        let id = self.known_netns_id(netns).await?;
        let is_inside = device.peer.as_ref().is_some_and(|peer| Some(peer.netns) == id);
        Ok((device.complete && is_inside).then_some(device))
    }

    /// The index of the bridge that a new device goes into. `None`: into none.
    async fn bridge_of(&self, row: &Kind) -> Result<Option<u32>, DeviceError> {
        match row.bridge {
            Bridge::Barrier => Ok(self.barrier().await?),
            Bridge::Gateway => {
                let bridge = self.gateway_bridge().await?;
                Ok(Some(bridge.ok_or(DeviceError::NoGatewayBridge)?.index))
            }
        }
    }

    /// Sets up both sides of a device and the loopback of its namespace, adds the default route if the spec has one,
    /// and returns the device, read back when packets pass. Where that was done before, only the host's side is set up
    /// again if it is down.
    ///
    /// A namespace that has a default route of its own keeps it; that is logged.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] where the device that was seen, or its namespace, is gone. [`DeviceError::NotRunning`].
    pub async fn raise_device(
        &self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<ObservedDevice, DeviceError> {
        let now = self.same_device(seen).await?;
        self.raise_pair(&now, spec, &marks::alias(seen.id)).await?;
        self.same_device(seen).await
    }

    /// The device that was seen, as it is now.
    async fn same_device(&self, seen: &ObservedDevice) -> Result<ObservedDevice, DeviceError> {
        let now = self.device(seen.id).await?.filter(|now| now.ifindex == seen.ifindex);
        now.ok_or_else(|| DeviceError::Gone(seen.ifname.clone()))
    }

    /// Removes a device that was seen, as [`Netlink::remove_device`] does, and the host's permanent neighbours for its
    /// addresses.
    ///
    /// # Errors
    /// As [`Netlink::remove_device`].
    pub async fn remove_seen(&self, seen: &ObservedDevice) -> Result<(), DeviceError> {
        self.remove_device(seen.id).await?;
        if seen.id.kind.row().bridge != Bridge::Gateway || seen.bridge == 0 {
            return Ok(());
        }
        for address in seen.peer.iter().flat_map(|peer| &peer.addresses) {
            if let IpNet::V4(net) = address {
                self.unfix((seen.bridge, net.addr())).await?;
            }
        }
        Ok(())
    }

    /// Removes a device, both sides, and with it the routes inside that lead through it. It is no error when it is
    /// gone already, as it is when the namespace is.
    ///
    /// # Errors
    /// [`DeviceError::NameTaken`] where a device of that name is not the overlay's; it is left alone.
    pub async fn remove_device(&self, id: DeviceId) -> Result<(), DeviceError> {
        let ifname = device_name(id)?;
        let Some(link) = link::link_by_name(&self.handle, &ifname).await? else { return Ok(()) };
        if id_of(&link) != Some(id) {
            return Err(DeviceError::NameTaken(ifname));
        }
        Ok(link::delete(&self.handle, link.index).await?)
    }
}

/// Makes the endpoint's side cut super-packets itself, for the reason at
/// [`Kind::cuts_inside`](crate::dataplane::kernel::Kind::cuts_inside).
async fn cut_inside(pair: &Pair<'_>, peer: u32) {
    let cut = async { Offloads::open_in(pair.netns)?.switch(peer, &UNCARRIED, false).await };
    if let Err(error) = cut.await {
        tracing::warn!(
            device = pair.ifname,
            error = crate::error_chain(&error),
            "an endpoint's interface cannot be made to cut all super-packets: those of a tunnel inside \
             the endpoint, of SCTP and of UDP may be lost"
        );
    }
}
