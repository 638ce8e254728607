//! What a request must keep to beyond what its types express. It is checked on every way by which a request comes:
//! from the API, and forwarded by another node.

use super::{CreateEndpoint, CreateNetwork, Register};
use crate::{
    control::state::Placement,
    model::{ENDPOINT_MTU_MIN, EndpointAddrs, Invalid, Vtep},
};
use std::net::{IpAddr, Ipv4Addr};

/// Greatest MTU that leaves room for the encapsulation in an IPv4 packet, in bytes.
const MTU_MAX: u32 = 65_535 - 36;

/// Most aliases of one endpoint.
pub const ALIASES_MAX: usize = 64;
/// Most ports that one endpoint exposes, and that it publishes by name.
pub const PORTS_MAX: usize = 1024;

/// Returns true if the address can be a host's on the underlay.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast())
}

fn check_vtep(vtep: Vtep) -> Result<(), Invalid> {
    let why = match vtep.ip() {
        IpAddr::V4(v4) if is_host(v4) => return Ok(()),
        IpAddr::V4(_) => "is not a host's address",
        IpAddr::V6(_) => "is not an IPv4 address; the underlay is IPv4",
    };
    Err(Invalid::new("vtep", vtep.to_string(), why))
}

/// A network has IPv4 addresses only.
fn check_addresses(addresses: EndpointAddrs) -> Result<(), Invalid> {
    match addresses.v6 {
        None => Ok(()),
        Some(v6) => {
            let why = "is not an IPv4 address; networks have IPv4 addresses";
            Err(Invalid::new("ip", v6.to_string(), why))
        }
    }
}

fn check_count(field: &'static str, count: usize, max: usize) -> Result<(), Invalid> {
    if count <= max {
        return Ok(());
    }
    let why = format!("are too many: one endpoint has up to {max}");
    Err(Invalid::new(field, count.to_string(), why))
}

impl CreateNetwork {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        match self.options.mtu.map(u32::from) {
            Some(mtu) if !(ENDPOINT_MTU_MIN..=MTU_MAX).contains(&mtu) => {
                let why = format!("is not within {ENDPOINT_MTU_MIN}..={MTU_MAX}");
                Err(Invalid::new("mtu", mtu.to_string(), why))
            }
            _ => Ok(()),
        }
    }
}

impl CreateEndpoint {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        match &self.placement {
            Placement::External { vtep, addresses, .. } => {
                check_vtep(*vtep)?;
                check_addresses(*addresses)?;
                if addresses.v4.is_none() {
                    let why = "is missing: an endpoint behind a VTEP has one";
                    return Err(Invalid::new("ip", "", why));
                }
            }
            Placement::Node { netns, .. } if !netns.is_absolute() => {
                let why = "is not an absolute path";
                return Err(Invalid::new("netns", netns.display().to_string(), why));
            }
            Placement::Node { addresses, .. } => check_addresses(*addresses)?,
        }
        check_count("aliases", self.aliases.len(), ALIASES_MAX)?;
        check_count("exposed", self.ports.exposed.len(), PORTS_MAX)?;
        check_count("publish", self.ports.publish.len(), PORTS_MAX)
    }
}

impl Register {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        check_vtep(self.vtep)?;
        let ip = self.listen.ip();
        if ip.is_unspecified() || ip.is_multicast() || self.listen.port() == 0 {
            let why = "is not an address that peers reach";
            return Err(Invalid::new("listen", self.listen.to_string(), why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::state::PortsWanted;
    use crate::model::Permissions;
    use std::net::Ipv6Addr;

    fn create(placement: Placement) -> Result<(), Invalid> {
        let request = CreateEndpoint {
            request: [1; 16],
            name: "web1".parse().unwrap(),
            network: "net".parse().unwrap(),
            placement,
            permissions: Permissions::NONE,
            aliases: [].into(),
            ports: PortsWanted::default(),
            wait: false,
        };
        request.check()
    }

    /// A later version may forward such requests.
    #[test]
    fn addresses_of_ipv6_are_refused_by_the_leader() {
        let v4 = EndpointAddrs::from(Ipv4Addr::new(10, 0, 0, 9));
        let v6 = EndpointAddrs { v6: Some(Ipv6Addr::LOCALHOST), ..v4 };
        let here = |addresses| Placement::Node {
            node: "h1".parse().unwrap(),
            netns: "/run/netns/web1".into(),
            addresses,
        };
        let external = |vtep: &str, addresses| Placement::External {
            vtep: vtep.parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            addresses,
        };
        for good in [here(v4), here(EndpointAddrs::default()), external("203.0.113.7", v4)] {
            assert_eq!(create(good), Ok(()));
        }
        for (bad, field) in [
            (here(v6), "ip"),
            (external("203.0.113.7", v6), "ip"),
            (external("203.0.113.7", EndpointAddrs::default()), "ip"),
            (external("fd00::1", v4), "vtep"),
            (external("224.0.0.1", v4), "vtep"),
        ] {
            assert_eq!(create(bad.clone()).map_err(|error| error.field), Err(field), "{bad:?}");
        }
    }
}
