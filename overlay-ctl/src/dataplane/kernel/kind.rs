//! The kinds of devices, and the table of what they differ in.
//!
//! A new kind of device (a WireGuard link, or a container's interface that Docker moves) is a variant of
//! [`DeviceKind`] and one row like [`PORT`]: its names, its bridge, its interface, its program, its super-packets.
//! The doors read the row and need no new code. Besides the row, `reconcile/desired.rs` has to want devices of that
//! kind, and to write the map entry that their program reads.

use super::{PairSizes, SuperPackets};

/// What a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The port of one endpoint on its network.
    Port,
    /// The leg of one namespace on the gateway bridge. All endpoints in the namespace share it.
    Leg,
}

/// What all devices of one kind have in common.
#[derive(Debug)]
pub struct Kind {
    /// The word for it in logs.
    pub name: &'static str,
    /// The name of the host's side begins with this. The device's number follows, in hexadecimal.
    pub prefix: &'static str,
    /// The number has at least so many digits; zeros fill them up.
    pub digits: usize,
    /// The alias of the host's side names the device by this word and the number in decimal.
    pub mark: &'static str,
    /// The word that stood before the number, written as an IPv4 address, in aliases of earlier versions. `None` =
    /// earlier versions wrote what this one writes.
    pub former_mark: Option<&'static str>,
    /// The bridge that the host's side is in.
    pub bridge: Bridge,
    /// The name of the side inside.
    pub interface: Interface,
    /// The program on the host's side.
    pub program: Program,
    /// The endpoint's side cuts the super-packets itself that cannot be carried to another node whole: those of tunnels
    /// inside the endpoint, of SCTP, and of UDP.
    ///
    /// A UDP super-packet that crosses the underlay whole, as from a veth to a veth, still carries the mark of a
    /// tunnel at its receiver: no program can take the mark off (`bpf_skb_adjust_room`) before kernel 7.3, and the
    /// sender's node does not know which kernel the receiver's node has. The receiver's kernel has
    /// to cut the packet for its receiver, looks for inner headers behind the only headers that are left, and drops
    /// it (`udp4_ufo_fragment`).
    pub cuts_inside: bool,
    /// Which side of the device may have large super-packets.
    pub large: Large,
}

/// A bridge of the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// The bridge that carries no packet. A device stays outside where it is full or missing: it works all the same.
    Barrier,
    /// The gateway bridge. The device is an isolated port of it, and the bridge knows the device's MAC. There is no
    /// device without it.
    Gateway,
}

/// The names that the side inside may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The first free of eth0, eth2, eth3 and so on. eth1 is reserved for [`GATEWAY_INTERFACE`].
    FirstFree,
    /// Exactly this name: a namespace has at most one device of that kind.
    Named(&'static str),
}

/// The name of the first interface of an endpoint in its namespace.
pub const FIRST_INTERFACE: &str = "eth0";
/// The name of a gateway leg's interface in its namespace.
pub const GATEWAY_INTERFACE: &str = "eth1";

impl Interface {
    /// Returns true if the side inside may have this name.
    #[must_use]
    pub fn allows(self, name: &str) -> bool {
        match self {
            Self::FirstFree => {
                let number = name.strip_prefix("eth").and_then(|number| number.parse::<u32>().ok());
                number.is_some_and(|number| format!("eth{number}") == name)
                    && name != GATEWAY_INTERFACE
            }
            Self::Named(only) => name == only,
        }
    }

    /// The name that must not belong to a foreign interface of the namespace.
    #[must_use]
    pub fn required(self) -> &'static str {
        match self {
            Self::FirstFree => FIRST_INTERFACE,
            Self::Named(only) => only,
        }
    }

    /// The name for a new device, where the namespace has the interfaces `taken`.
    #[must_use]
    pub fn choose(self, taken: &[&str]) -> String {
        match self {
            Self::FirstFree => {
                let names = (0u32..).map(|number| format!("eth{number}"));
                let mut free =
                    names.filter(|name| self.allows(name) && !taken.contains(&name.as_str()));
                // There are more numbers than interfaces.
                free.next().unwrap_or_default()
            }
            Self::Named(only) => only.to_owned(),
        }
    }
}

/// A program of the data path that runs on the host's side of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `from_endpoint`.
    FromEndpoint,
    /// `from_gateway`.
    FromGateway,
}

/// Which sides of a device may have large super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large {
    /// Both: packets go from one endpoint to another.
    BothSides,
    /// Only the host's side. What the endpoint sends leaves by any device of the host, which may take none above
    /// 64 KiB.
    HostSide,
}

const PORT: Kind = Kind {
    name: "port",
    prefix: "ovp",
    digits: 1,
    mark: "endpoint",
    former_mark: None,
    bridge: Bridge::Barrier,
    interface: Interface::FirstFree,
    program: Program::FromEndpoint,
    cuts_inside: true,
    large: Large::BothSides,
};

const LEG: Kind = Kind {
    name: "leg",
    prefix: "ovgw",
    digits: 8,
    mark: "leg",
    former_mark: Some("gateway"),
    bridge: Bridge::Gateway,
    interface: Interface::Named(GATEWAY_INTERFACE),
    program: Program::FromGateway,
    cuts_inside: false,
    large: Large::HostSide,
};

impl DeviceKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Port, Self::Leg];

    /// The kind's row of the table.
    #[must_use]
    pub const fn row(self) -> &'static Kind {
        match self {
            Self::Port => &PORT,
            Self::Leg => &LEG,
        }
    }
}

/// The sizes of super-packets that devices get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargePackets {
    /// Both sides of devices between endpoints.
    pub endpoints: SuperPackets,
    /// The host's side of devices that lead to the gateway, and the gateway bridge.
    pub gateway: SuperPackets,
}

impl LargePackets {
    /// The sizes of a device of this kind that gets this MTU.
    #[must_use]
    pub fn sizes(&self, kind: DeviceKind, mtu: u32) -> PairSizes {
        match kind.row().large {
            Large::BothSides => PairSizes { mtu, outside: self.endpoints, inside: self.endpoints },
            Large::HostSide => {
                PairSizes { mtu, outside: self.gateway, inside: SuperPackets::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eth1_is_kept_for_the_gateway() {
        let choose = |taken: &[&str]| Interface::FirstFree.choose(taken);
        assert_eq!(choose(&["lo"]), "eth0");
        assert_eq!(choose(&["lo", "eth0"]), "eth2");
        assert_eq!(choose(&["lo", "eth0", "eth1", "eth2", "eth4"]), "eth3");
        assert_eq!(choose(&["eth2"]), "eth0");
        assert_eq!(Interface::Named("eth1").choose(&["eth1"]), "eth1");
        for (name, holds) in
            [("eth0", true), ("eth1", false), ("eth2", true), ("eth02", false), ("eth", false)]
        {
            assert_eq!(Interface::FirstFree.allows(name), holds, "{name}");
        }
        assert!(LEG.interface.allows("eth1") && !LEG.interface.allows("eth0"));
    }

    #[test]
    fn no_kind_is_taken_for_another_one() {
        for kind in DeviceKind::ALL {
            for other in DeviceKind::ALL.into_iter().filter(|other| *other != kind) {
                let (row, other) = (kind.row(), other.row());
                assert!(!row.prefix.starts_with(other.prefix), "{} {}", row.prefix, other.prefix);
                assert_ne!(row.mark, other.mark);
            }
        }
    }

    #[test]
    fn endpoints_send_by_their_legs_what_any_device_takes() {
        let big = SuperPackets { gso_ipv4: Some(1 << 18), ..SuperPackets::default() };
        let large = LargePackets { endpoints: big, gateway: big };
        let nothing = SuperPackets::default();
        let port = large.sizes(DeviceKind::Port, 1450);
        assert_eq!(port, PairSizes { mtu: 1450, outside: big, inside: big });
        let leg = large.sizes(DeviceKind::Leg, 1500);
        assert_eq!(leg, PairSizes { mtu: 1500, outside: big, inside: nothing });
    }
}
