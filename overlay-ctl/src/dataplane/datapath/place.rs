//! Places: a program's role on a device, and the entry below `links/` that remembers it.

use std::path::{Path, PathBuf};

use aya::programs::XdpMode;
use nix::net::if_::if_indextoname;

use super::DatapathError;
use crate::dataplane::kernel::{LinkLayer, Program, Uplink};

/// Where XDP runs while a packet is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardMode {
    /// In the device's driver, before there is an skb.
    Native,
    /// In the stack, on any device. It makes every packet one piece of memory first.
    Generic,
}

impl GuardMode {
    /// Its name in `--xdp` and in `overlay status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    pub(super) fn xdp(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// What a program is attached for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `from_underlay`.
    Underlay,
    /// `from_veth`: the same on a veth, whose packets no driver has merged.
    Veth,
    /// `from_bare_link`: the same on an uplink without Ethernet headers.
    BareLink,
    /// `from_endpoint`.
    Endpoint,
    /// `from_gateway`.
    Gateway,
    /// `guard_underlay` or `guard_generic`.
    Guard(GuardMode),
}

impl Role {
    /// The role of a program that runs on the host's side of devices.
    pub(super) fn of(program: Program) -> Self {
        match program {
            Program::FromEndpoint => Self::Endpoint,
            Program::FromGateway => Self::Gateway,
        }
    }

    /// The role of the program that runs on an uplink; `None` where no program knows its headers.
    pub(super) fn on_uplink(uplink: &Uplink) -> Option<Self> {
        match uplink.link_layer {
            LinkLayer::Ethernet if uplink.is_veth => Some(Self::Veth),
            LinkLayer::Ethernet => Some(Self::Underlay),
            LinkLayer::Bare | LinkLayer::Ppp => Some(Self::BareLink),
            LinkLayer::Foreign => None,
        }
    }

    /// The programs that are loaded at once. The others are loaded when a device needs them, so that a kernel which
    /// refuses one of them still forwards.
    pub(super) const NEEDED: [Self; 3] = [Self::Underlay, Self::Endpoint, Self::Gateway];
    /// Those that an uplink may have, one at a time.
    pub(super) const UPLINKS: [Self; 3] = [Self::Underlay, Self::Veth, Self::BareLink];
    pub(super) const ALL: [Self; 7] = [
        Self::Underlay,
        Self::Veth,
        Self::BareLink,
        Self::Endpoint,
        Self::Gateway,
        Self::Guard(GuardMode::Native),
        Self::Guard(GuardMode::Generic),
    ];

    /// The program's name in the object.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Underlay => "from_underlay",
            Self::Veth => "from_veth",
            Self::BareLink => "from_bare_link",
            Self::Endpoint => "from_endpoint",
            Self::Gateway => "from_gateway",
            Self::Guard(GuardMode::Native) => "guard_underlay",
            Self::Guard(GuardMode::Generic) => "guard_generic",
        }
    }

    /// What the name of an entry begins with. bpffs allows no dot in a name.
    fn prefix(self) -> &'static str {
        match self {
            Self::Underlay => "underlay-",
            Self::Veth => "veth-",
            Self::BareLink => "bare-link-",
            Self::Endpoint => "endpoint-",
            Self::Gateway => "gateway-",
            // The kernel does not tell the mode of a link.
            Self::Guard(GuardMode::Native) => "guard-native-",
            Self::Guard(GuardMode::Generic) => "guard-generic-",
        }
    }
}

/// A program's place: a role on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) role: Role,
    pub(super) ifindex: u32,
}

impl Place {
    /// The entry below `links/` that remembers the place.
    pub(super) fn entry(self, links: &Path) -> PathBuf {
        links.join(format!("{}{}", self.role.prefix(), self.ifindex))
    }

    /// The place that an entry of this name remembers.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Role::ALL.into_iter().find_map(|role| {
            let ifindex = name.strip_prefix(role.prefix())?.parse().ok()?;
            Some(Self { role, ifindex })
        })
    }

    /// The device's name now, or, if it is gone, its index in words.
    pub(super) fn device(self) -> Result<String, String> {
        let gone = || format!("with index {}", self.ifindex);
        let name = if_indextoname(self.ifindex).map_err(|_| gone())?;
        // nix 0.31 returns an empty name when the call fails.
        let name = name.into_string().map_err(|_| gone())?;
        if name.is_empty() { Err(gone()) } else { Ok(name) }
    }

    /// The error of an action on the device.
    pub(super) fn failed(
        self,
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> DatapathError {
        let ifname = self.device().unwrap_or_else(|index| index);
        DatapathError::Attach {
            program: self.role.program(),
            action,
            ifname,
            source: source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_leads_back_to_its_place() {
        for role in Role::ALL {
            let place = Place { role, ifindex: 4711 };
            let entry = place.entry(Path::new("/x"));
            assert_eq!(Place::parse(entry.file_name().unwrap().to_str().unwrap()), Some(place));
        }
        for foreign in ["endpoint-", "endpoint-x", "other-3", "endpoint-3-4", ""] {
            assert_eq!(Place::parse(foreign), None, "{foreign}");
        }
    }
}
