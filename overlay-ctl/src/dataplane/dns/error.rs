//! What can go wrong, in words for the person who reads it.

use std::io;

use crate::dataplane::netlink::PortError;

/// A namespace has no resolver.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Somebody else answers there.
    #[error(
        "port 53 of 127.0.0.11 is taken inside (by Docker's resolver, or a server bound to all addresses: see `ss -lnptu` there); free it, or bind that server to other addresses"
    )]
    Taken,
    /// There are no loopback addresses.
    #[error("the loopback device inside is down: `ip link set lo up`")]
    LoopbackDown,
    /// The namespace is gone, or can't be entered.
    #[error(transparent)]
    Namespace(#[from] PortError),
    /// Anything else the kernel says.
    #[error("no socket could be opened inside")]
    Socket(#[source] io::Error),
}
