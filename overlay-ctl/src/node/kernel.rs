use crate::{
    datapath::Datapath,
    model::EndpointId,
    netlink::{self, Netlink, PortError, Underlay, UnderlayChoice},
    reconcile::{
        Kernel, KernelError, NextHop, ObservedPort, PortFailure, PortSpec, TableChange, Tables,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The BPF side, shared by the reconciler (which writes it) and the API (which reads its counters).
#[derive(Clone)]
pub struct SharedDatapath(Arc<Mutex<Datapath>>);

impl SharedDatapath {
    /// Takes the data path in.
    #[must_use]
    pub fn new(datapath: Datapath) -> Self {
        Self(Arc::new(Mutex::new(datapath)))
    }

    /// Holds it. No use waits; the longest walks a map, a system call an entry.
    pub fn lock(&self) -> MutexGuard<'_, Datapath> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The real kernel, behind the two doors.
pub struct HostKernel {
    datapath: SharedDatapath,
    netlink: Netlink,
    underlay: Underlay,
    vxlan_port: u16,
    fallbacks: Vec<String>,
    /// What each port was last held against: needed to raise it.
    specs: BTreeMap<EndpointId, netlink::PortSpec>,
}

impl HostKernel {
    /// Through these doors.
    #[must_use]
    pub fn new(
        datapath: SharedDatapath,
        netlink: Netlink,
        underlay: Underlay,
        vxlan_port: u16,
    ) -> Self {
        Self {
            datapath,
            netlink,
            underlay,
            vxlan_port,
            fallbacks: Vec::new(),
            specs: BTreeMap::new(),
        }
    }

    /// Why the port has to be built anew, if it has.
    ///
    /// Inside, only the namespace counts once the port is up: what the endpoint does to its own
    /// interface is its own business. A port that never came up is held against the whole spec.
    async fn fault(
        &self,
        port: &netlink::ObservedPort,
        spec: &netlink::PortSpec,
    ) -> Result<Option<String>, PortError> {
        let Some(peer) = &port.peer else {
            return Ok(Some("the endpoint's interface is gone".to_owned()));
        };
        let netns = match self.netlink.netns_id(&spec.netns).await {
            Ok(netns) => netns,
            // The name may be gone while the namespace lives on with the processes inside: so does
            // the port.
            // Whatever else is wrong with it is the endpoint's own trouble, and no reason to touch a
            // port that stands.
            Err(PortError::Netlink(error)) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        if peer.netns != netns {
            return Ok(Some("the namespace was made anew".to_owned()));
        }
        if port.up {
            return Ok(None);
        }
        Ok(port.difference(spec, netns).map(str::to_owned))
    }
}

impl HostKernel {
    /// The devices and the program that a pass does not look at one by one: all that packets need, or
    /// would be slower without.
    async fn read_back_devices(&mut self) -> Result<(), KernelError> {
        let failed = |e| KernelError::new("making the devices that only exist failed", e);
        let outside = self.netlink.ensure_barrier().await.map_err(failed)?;
        self.netlink.ensure_gro_device(&self.underlay, self.vxlan_port).await.map_err(failed)?;
        let fallbacks: Vec<String> = outside.iter().map(ToString::to_string).collect();
        if fallbacks != self.fallbacks {
            tracing::warn!(?fallbacks, "on a slower path");
            self.fallbacks = fallbacks;
        }
        let choice = UnderlayChoice::Address(self.underlay.address);
        let now = self
            .netlink
            .underlay(&choice)
            .await
            .map_err(|e| KernelError::new("the underlay device can't be used any more", e))?;
        if now.ifindex != self.underlay.ifindex {
            let (address, name) = (now.address, now.name);
            let why = format!("{address} is on another device now, {name}: restart the node");
            return Err(KernelError::new("the underlay changed", why));
        }
        let attached = self.datapath.lock().ensure_underlay(&self.underlay.name);
        attached.map_err(|e| KernelError::new("attaching to the underlay failed", e))
    }
}

fn port_spec(spec: &PortSpec) -> netlink::PortSpec {
    let PortSpec { endpoint, netns, mac, address, prefix, mtu } = spec.clone();
    netlink::PortSpec { endpoint, netns, mac, address, prefix, mtu }
}

fn ports_error(error: PortError) -> KernelError {
    KernelError::new("reading the ports failed", error)
}

impl Kernel for HostKernel {
    async fn tables(&mut self) -> Result<Tables, KernelError> {
        self.read_back_devices().await?;
        self.datapath.lock().tables().map_err(|e| KernelError::new("reading the maps failed", e))
    }

    fn fallbacks(&self) -> Vec<String> {
        self.fallbacks.clone()
    }

    async fn write(&mut self, change: &TableChange) -> Result<(), KernelError> {
        let written = self.datapath.lock().write(change);
        written.map_err(|e| KernelError::new("writing a map failed", e))
    }

    async fn ports(
        &mut self,
        wanted: &BTreeMap<EndpointId, PortSpec>,
    ) -> Result<Vec<ObservedPort>, KernelError> {
        self.specs = wanted.iter().map(|(id, spec)| (*id, port_spec(spec))).collect();
        let mut ports = Vec::new();
        for port in self.netlink.ports().await.map_err(ports_error)? {
            let fault = match self.specs.get(&port.endpoint) {
                Some(spec) => self.fault(&port, spec).await.map_err(ports_error)?,
                None => None,
            };
            ports.push(ObservedPort {
                endpoint: port.endpoint,
                ifname: port.ifname,
                ifindex: port.ifindex,
                mtu: port.mtu,
                up: port.up,
                fault,
            });
        }
        let present: BTreeSet<u32> = ports.iter().map(|port| port.ifindex).collect();
        let mut datapath = self.datapath.lock();
        for gone in datapath.attached().difference(&present) {
            datapath.detach_endpoint(*gone).map_err(|e| {
                KernelError::new("removing the link of a device that is gone failed", e)
            })?;
        }
        drop(datapath);
        Ok(ports)
    }

    async fn create_port(&mut self, spec: &PortSpec) -> Result<ObservedPort, PortFailure> {
        let datapath = &self.datapath;
        let attach = |ifname: &str, ifindex| datapath.lock().attach_endpoint(ifname, ifindex);
        match self.netlink.create_port(&port_spec(spec), attach).await {
            Ok(port) => Ok(ObservedPort {
                endpoint: port.endpoint,
                ifname: port.ifname,
                ifindex: port.ifindex,
                mtu: port.mtu,
                up: port.up,
                fault: None,
            }),
            Err(PortError::Netlink(error)) => {
                Err(PortFailure::Kernel(KernelError::new("making a port failed", error)))
            }
            Err(PortError::Attach(error)) => {
                Err(PortFailure::Kernel(KernelError::new("attaching to a port failed", error)))
            }
            Err(error) => Err(PortFailure::Endpoint(crate::error_chain(&error))),
        }
    }

    async fn raise_port(&mut self, port: &ObservedPort) -> Result<(), KernelError> {
        let Some(spec) = self.specs.get(&port.endpoint) else { return Ok(()) };
        match self.netlink.activate_port(spec).await {
            // Gone again already: the next pass sees it.
            Err(PortError::Gone(_) | PortError::NoNamespace(_)) | Ok(()) => Ok(()),
            Err(error) => Err(KernelError::new("setting a port up failed", error)),
        }
    }

    async fn ensure_attached(&mut self, port: &ObservedPort) -> Result<(), KernelError> {
        let attached = self.datapath.lock().attach_endpoint(&port.ifname, port.ifindex);
        attached.map_err(|e| KernelError::new("attaching to a port failed", e))
    }

    async fn delete_port(&mut self, port: &ObservedPort) -> Result<(), KernelError> {
        self.netlink
            .delete_port(&port.ifname)
            .await
            .map_err(|e| KernelError::new("removing a port failed", e))?;
        let detached = self.datapath.lock().detach_endpoint(port.ifindex);
        detached.map_err(|e| KernelError::new("removing a port's link failed", e))
    }

    async fn next_hops(
        &mut self,
        vteps: &BTreeSet<Ipv4Addr>,
    ) -> Result<BTreeMap<Ipv4Addr, NextHop>, KernelError> {
        let mut next_hops = BTreeMap::new();
        for vtep in vteps {
            let hop = self
                .netlink
                .next_hop(*vtep, &self.underlay)
                .await
                .map_err(|e| KernelError::new("looking up a next hop failed", e))?;
            if let Some(hop) = hop {
                let hop =
                    NextHop { ifindex: hop.ifindex, mac: hop.mac, source_mac: hop.source_mac };
                next_hops.insert(*vtep, hop);
            }
        }
        Ok(next_hops)
    }
}
