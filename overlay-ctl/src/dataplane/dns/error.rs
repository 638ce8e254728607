//! The reasons why a namespace has no resolver, in words for the person who operates the node.

use std::io;

use crate::dataplane::netlink::DeviceError;

/// A namespace has no resolver.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Another server has the port.
    #[error(
        "port 53 of 127.0.0.11 is taken inside (by Docker's resolver, or a server bound to all addresses: see `ss -lnptu` there); free it, or bind that server to other addresses"
    )]
    Taken,
    /// The namespace has no loopback addresses.
    #[error("the loopback device inside is down: `ip link set lo up`")]
    LoopbackDown,
    /// The namespace is gone, or cannot be entered.
    #[error(transparent)]
    Namespace(#[from] DeviceError),
    /// The kernel refused for another reason.
    #[error("no socket could be opened inside")]
    Socket(#[source] io::Error),
}
