//! The MAC address of an endpoint, which by default is derived from its IPv4 address.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A unicast Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// The default MAC of an endpoint: 02:42 (locally administered) and its IPv4 address, as Docker
    /// makes it. It is unique on a network because the address is.
    #[must_use]
    pub fn of_endpoint(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The IPv4 address from which [`Self::of_endpoint`] makes this MAC, if there is one.
    #[must_use]
    pub fn endpoint_address(self) -> Option<Ipv4Addr> {
        let [0x02, 0x42, a, b, c, d] = self.0 else { return None };
        Some(Ipv4Addr::new(a, b, c, d))
    }

    /// The six bytes in transmission order.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed =
            || Invalid::new("mac", text, "is not six bytes in hex, like 02:42:ac:10:10:81");
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(malformed)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        if octets[0] & 1 == 1 {
            return Err(Invalid::new("mac", text, "is a group address; an endpoint has its own"));
        }
        if octets == [0; 6] {
            return Err(Invalid::new("mac", text, "is no address"));
        }
        Ok(Self(octets))
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_macs_carry_the_address() {
        let mac = Mac::of_endpoint(Ipv4Addr::new(172, 16, 16, 129));
        assert_eq!(mac.to_string(), "02:42:ac:10:10:81");
        assert_eq!("02:42:ac:10:10:81".parse::<Mac>().unwrap(), mac);
    }

    #[test]
    fn what_is_no_unicast_mac_is_refused() {
        for text in [
            "",
            "02:42:ac:10:10",
            "02:42:ac:10:10:81:00",
            "02:42:ac:10:10:8g",
            "2:42:ac:10:10:81",
            "+2:42:ac:10:10:81",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
    }
}
