//! Subnets of networks, and the pools within them that addresses are given out of.

use super::Invalid;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Longest prefix that leaves room for a gateway and an endpoint.
const PREFIX_MAX: u8 = 30;
/// Shortest prefix: a network cannot have more endpoints than a larger subnet would have addresses for.
const PREFIX_MIN: u8 = 8;

fn parse_net(field: &'static str, text: &str) -> Result<Ipv4Net, Invalid> {
    let net: Ipv4Net =
        text.parse().map_err(|_| Invalid::new(field, text, "is not a CIDR like 172.16.16.0/24"))?;
    if net.addr() != net.network() {
        let why = format!("has host bits set; did you mean {}?", net.trunc());
        return Err(Invalid::new(field, text, why));
    }
    Ok(net)
}

/// The address space of a network: a unicast IPv4 prefix of /8 to /30.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet(Ipv4Net);

impl Subnet {
    /// The prefix.
    #[must_use]
    pub fn net(self) -> Ipv4Net {
        self.0
    }

    /// Its first host address, which no endpoint gets: it is kept for a gateway.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + 1)
    }

    /// Returns true if the two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0.network()) || other.0.contains(&self.0.network())
    }

    /// Returns true if an interface with this address has some of this subnet's addresses on its link. One with a prefix
    /// of 32 bits, as virtual addresses have, has none.
    #[must_use]
    pub fn meets(self, address: Ipv4Addr, prefix_len: u8) -> bool {
        let net = Ipv4Net::new(address, prefix_len).ok().filter(|_| prefix_len < 32);
        net.is_some_and(|net| self.0.contains(&net.network()) || net.contains(&self.0.network()))
    }

    /// Checks that an endpoint can have `address`.
    ///
    /// # Errors
    /// The address is outside the subnet, or is its network, broadcast or gateway address.
    pub fn check_endpoint(self, address: Ipv4Addr) -> Result<(), Invalid> {
        let why = if !self.0.contains(&address) {
            format!("is outside the subnet {}", self.0)
        } else if address == self.0.network() {
            format!("is the network address of {}", self.0)
        } else if address == self.0.broadcast() {
            format!("is the broadcast address of {}", self.0)
        } else if address == self.gateway() {
            format!("is kept for the gateway of {}", self.0)
        } else {
            return Ok(());
        };
        Err(Invalid::new("ip", address.to_string(), why))
    }
}

impl FromStr for Subnet {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let net = parse_net("subnet", text)?;
        let first = net.network();
        if net.prefix_len() > PREFIX_MAX {
            return Err(Invalid::new("subnet", text, "is too small: /30 is the smallest"));
        }
        if net.prefix_len() < PREFIX_MIN {
            return Err(Invalid::new("subnet", text, "is too large: /8 is the largest"));
        }
        if first.is_loopback()
            || first.is_multicast()
            || first.octets()[0] == 0
            || first.octets()[0] >= 240
        {
            return Err(Invalid::new("subnet", text, "is not a unicast prefix"));
        }
        Ok(Self(net))
    }
}

impl TryFrom<Ipv4Net> for Subnet {
    type Error = Invalid;

    fn try_from(net: Ipv4Net) -> Result<Self, Invalid> {
        net.to_string().parse()
    }
}

impl TryFrom<String> for Subnet {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A subnet and the part of it that addresses are given out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Pool {
    /// The subnet, which endpoints see as the prefix of their link.
    pub subnet: Subnet,
    /// Part from which addresses are given when none is asked for; `None` = the whole subnet.
    range: Option<Ipv4Net>,
}

/// The fields of a [`Pool`] as they were read, before they are checked.
#[derive(Deserialize)]
struct Unchecked {
    subnet: Subnet,
    range: Option<Ipv4Net>,
}

impl TryFrom<Unchecked> for Pool {
    type Error = Invalid;

    fn try_from(Unchecked { subnet, range }: Unchecked) -> Result<Self, Invalid> {
        Self::new(subnet, range.map(|range| range.to_string()).as_deref())
    }
}

impl Pool {
    /// A pool over all of `subnet`.
    #[must_use]
    pub fn whole(subnet: Subnet) -> Self {
        Self { subnet, range: None }
    }

    /// A pool over `subnet`, restricted to the CIDR `range` if there is one.
    ///
    /// # Errors
    /// `range` is malformed, outside the subnet, or has no address to give.
    pub fn new(subnet: Subnet, range: Option<&str>) -> Result<Self, Invalid> {
        let range = range.map(|text| {
            let net = parse_net("ip_range", text)?;
            if !subnet.net().contains(&net) {
                let why = format!("is outside the subnet {subnet}");
                return Err(Invalid::new("ip_range", text, why));
            }
            let pool = Self { subnet, range: Some(net) };
            let (first, last) = pool.bounds();
            if net.prefix_len() == 32 || first > last {
                let why = "is too small: it has no address to give, since its first one stays free";
                return Err(Invalid::new("ip_range", text, why));
            }
            Ok(net)
        });
        Ok(Self { subnet, range: range.transpose()? })
    }

    /// The range; `None` if it is the whole subnet.
    #[must_use]
    pub fn range(&self) -> Option<Ipv4Net> {
        self.range
    }

    /// First and last address that may be given when none is asked for. The first address of a range
    /// stays free, as in Docker.
    #[must_use]
    pub fn bounds(&self) -> (Ipv4Addr, Ipv4Addr) {
        let net = self.range.unwrap_or(self.subnet.net());
        let first = (u32::from(net.network()) + 1).max(u32::from(self.subnet.gateway()) + 1);
        let last = u32::from(net.broadcast()).min(u32::from(self.subnet.net().broadcast()) - 1);
        (Ipv4Addr::from(first), Ipv4Addr::from(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_and_unfit_prefixes_are_refused() {
        for bad in [
            "",
            "172.16.16.0",
            "172.16.16.0/33",
            "172.16.16.1/24",
            "172.16.16.0/31",
            "172.16.16.0/32",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "fd00::/64",
            "x/24",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad:?}");
        }
        assert!("172.16.16.0/30".parse::<Subnet>().is_ok());
    }

    #[test]
    fn what_an_interface_has_on_its_link_meets_a_subnet_or_not() {
        let subnet: Subnet = "10.1.1.0/24".parse().unwrap();
        let meets = |address: &str, prefix_len| subnet.meets(address.parse().unwrap(), prefix_len);
        assert!(meets("10.1.1.2", 24) && meets("10.1.0.2", 16) && meets("10.1.1.200", 30));
        assert!(meets("192.0.2.1", 0));
        assert!(!meets("10.1.2.2", 24) && !meets("10.2.0.1", 16));
        assert!(!meets("10.1.1.2", 32), "an address without a link");
    }

    #[test]
    fn a_range_lies_inside_and_keeps_its_first_address() {
        let subnet: Subnet = "172.16.16.0/24".parse().unwrap();
        let bounds = |range| Pool::new(subnet, range).unwrap().bounds();
        let ip = |last| Ipv4Addr::new(172, 16, 16, last);
        assert_eq!(bounds(None), (ip(2), ip(254)));
        assert_eq!(bounds(Some("172.16.16.128/25")), (ip(129), ip(254)));
        assert_eq!(bounds(Some("172.16.16.64/26")), (ip(65), ip(127)));
        assert_eq!(bounds(Some("172.16.16.0/25")), (ip(2), ip(127)));
        for bad in [
            "172.16.17.0/25",
            "172.16.0.0/16",
            "172.16.16.128/32",
            "172.16.16.0/31",
            "172.16.16.254/31",
            "172.16.16.129/25",
            "y",
        ] {
            assert!(Pool::new(subnet, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pool_is_checked_when_it_is_read() {
        #[derive(Serialize)]
        struct Written {
            subnet: Subnet,
            range: Option<Ipv4Net>,
        }
        let read = |range: Option<&str>| {
            let subnet = "172.16.16.0/24".parse().unwrap();
            let written = Written { subnet, range: range.map(|range| range.parse().unwrap()) };
            rmp_serde::from_slice::<Pool>(&rmp_serde::to_vec_named(&written).unwrap())
        };
        for good in [None, Some("172.16.16.128/25")] {
            let pool = Pool::new("172.16.16.0/24".parse().unwrap(), good).unwrap();
            assert_eq!(read(good).unwrap(), pool);
            let written = rmp_serde::to_vec_named(&pool).unwrap();
            assert_eq!(rmp_serde::from_slice::<Pool>(&written).unwrap(), pool);
        }
        for bad in ["172.16.17.0/25", "255.255.255.255/32", "172.16.16.129/25"] {
            assert!(read(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn special_addresses_are_no_endpoints() {
        let subnet: Subnet = "172.16.16.0/24".parse().unwrap();
        for bad in ["172.16.16.0", "172.16.16.1", "172.16.16.255", "172.16.17.2"] {
            assert!(subnet.check_endpoint(bad.parse().unwrap()).is_err(), "{bad}");
        }
        assert!(subnet.check_endpoint("172.16.16.2".parse().unwrap()).is_ok());
    }
}
