//! Ports of endpoints: as they are exposed, as they are wished to be published, and as they are
//! published.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, num::NonZeroU16, str::FromStr};

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// The name as it is written after a port: `tcp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Transport {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Invalid::new("protocol", text, "is none of tcp, udp, sctp")),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn port_number(field: &'static str, text: &str) -> Result<NonZeroU16, Invalid> {
    text.parse().map_err(|_| Invalid::new(field, text, "is not a port from 1 to 65535"))
}

/// A port of an endpoint: `80/tcp`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EndpointPort {
    /// The port.
    pub port: NonZeroU16,
    /// Its protocol.
    pub transport: Transport,
}

impl FromStr for EndpointPort {
    type Err = Invalid;

    /// Parses `80`, `80/tcp`, `53/udp`, `99/sctp`; the protocol is TCP if none is named.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (port, transport) = match text.split_once('/') {
            Some((port, transport)) => (port, transport.parse()?),
            None => (text, Transport::Tcp),
        };
        Ok(Self { port: port_number("port", port)?, transport })
    }
}

impl TryFrom<String> for EndpointPort {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<EndpointPort> for String {
    fn from(port: EndpointPort) -> Self {
        port.to_string()
    }
}

impl fmt::Display for EndpointPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.transport)
    }
}

impl fmt::Debug for EndpointPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first port of a node that is given when none is asked for: the start of the range from which
/// Linux chooses ports itself. Docker does the same. The node binds what it publishes, so that Linux chooses another.
pub const FIRST_FREE_PORT: u16 = 32_768;

/// A request to publish a port: `8080:80`, `127.0.0.1:8080:80/tcp`, `127.0.0.1::80`, `53/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Publish {
    /// Address of the host; unspecified = all its addresses.
    pub host: Ipv4Addr,
    /// Port of the host; `None` = any free port.
    pub host_port: Option<NonZeroU16>,
    /// Port of the endpoint.
    pub port: EndpointPort,
}

/// The fields of a [`Publish`] as they were read, before they are checked.
#[derive(Deserialize)]
struct Unchecked {
    host: Ipv4Addr,
    host_port: Option<NonZeroU16>,
    port: EndpointPort,
}

impl TryFrom<Unchecked> for Publish {
    type Error = Invalid;

    fn try_from(Unchecked { host, host_port, port }: Unchecked) -> Result<Self, Invalid> {
        Self::new(host, host_port, port)
    }
}

impl Publish {
    /// A request for `host`, which must be an address that a host can have.
    ///
    /// # Errors
    /// `host` is a multicast or broadcast address.
    pub fn new(
        host: Ipv4Addr,
        host_port: Option<NonZeroU16>,
        port: EndpointPort,
    ) -> Result<Self, Invalid> {
        if host.is_multicast() || host.is_broadcast() {
            return Err(Invalid::new(
                "host address",
                host.to_string(),
                "is not the address of one host",
            ));
        }
        Ok(Self { host, host_port, port })
    }
}

impl FromStr for Publish {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.rsplitn(3, ':');
        let port = parts.next().unwrap_or_default().parse()?;
        let host_port = match parts.next() {
            None | Some("") => None,
            Some(text) => Some(port_number("host port", text)?),
        };
        let host = match parts.next() {
            None | Some("") => Ipv4Addr::UNSPECIFIED,
            Some(text) => text.parse().map_err(|_| {
                Invalid::new("host address", text, "is not an IPv4 address like 127.0.0.1")
            })?,
        };
        Self::new(host, host_port, port)
    }
}

/// A published port: a port of an endpoint that is reached at a port of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// Address of the host; unspecified = all its addresses.
    pub host: Ipv4Addr,
    /// Port of the host.
    pub host_port: NonZeroU16,
    /// Port of the endpoint, and the protocol of both.
    pub port: EndpointPort,
}

impl Published {
    /// Returns true if one packet could be for both.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.host_port == other.host_port
            && self.port.transport == other.port.transport
            && (self.host == other.host
                || self.host.is_unspecified()
                || other.host.is_unspecified())
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}:{}", self.port, self.host, self.host_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_written_as_dockers() {
        let parsed = |text: &str| {
            let Publish { host, host_port, port } = text.parse().unwrap();
            (host.to_string(), host_port.map(NonZeroU16::get), port.to_string())
        };
        let any = || "0.0.0.0".to_owned();
        assert_eq!(parsed("8080:80"), (any(), Some(8080), "80/tcp".into()));
        assert_eq!(parsed("53:53/udp"), (any(), Some(53), "53/udp".into()));
        assert_eq!(parsed("80"), (any(), None, "80/tcp".into()));
        assert_eq!(
            parsed("127.0.0.1:8080:80/sctp"),
            ("127.0.0.1".into(), Some(8080), "80/sctp".into())
        );
        assert_eq!(parsed("127.0.0.1::80"), ("127.0.0.1".into(), None, "80/tcp".into()));
        for bad in [
            "",
            ":",
            "a",
            "0",
            "65536",
            "80/icmp",
            "80/",
            "8080:",
            "x:80",
            "0:80",
            "8080:80:90",
            "1.2.3:80:80",
            "1.2.3.4:5:6:7",
            "[::1]:80:80",
            "224.0.0.1:80:80",
            "80/TCP",
        ] {
            assert!(bad.parse::<Publish>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wish_is_checked_when_it_is_read() {
        let wish: Publish = "127.0.0.1:8080:80".parse().unwrap();
        let read = |wish: &Publish| {
            rmp_serde::from_slice::<Publish>(&rmp_serde::to_vec_named(wish).unwrap())
        };
        assert_eq!(read(&wish).unwrap(), wish);
        for bad in [Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST] {
            assert!(read(&Publish { host: bad, ..wish }).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_addresses_conflict_with_each() {
        let published = |host: &str, host_port, port: &str| Published {
            host: host.parse().unwrap(),
            host_port: NonZeroU16::new(host_port).unwrap(),
            port: port.parse().unwrap(),
        };
        let any = published("0.0.0.0", 8080, "80");
        assert!(any.conflicts(&published("127.0.0.1", 8080, "81")));
        assert!(published("127.0.0.1", 8080, "81").conflicts(&any));
        assert!(!any.conflicts(&published("0.0.0.0", 8080, "80/udp")));
        assert!(!any.conflicts(&published("0.0.0.0", 8081, "80")));
        assert!(!published("10.0.0.1", 1, "1").conflicts(&published("10.0.0.2", 1, "1")));
    }
}
