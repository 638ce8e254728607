//! The folders of a node that are not its state folder: they last as long as the machine runs, or are the system's.

use crate::{config::NodeRunArgs, dataplane::netlink::HeldNamespaces};
use std::path::Path;

/// Where `ip netns` looks for files that take the place of the host's in a namespace.
pub(super) const NETNS_FOLDER: &str = "/etc/netns";

/// The folder of what a node needs as long as the machine runs: that of its socket.
pub(super) fn run_folder(args: &NodeRunArgs) -> &Path {
    match args.socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// In the node's runtime folder, beside its socket.
pub(super) fn held_namespaces(args: &NodeRunArgs) -> HeldNamespaces {
    HeldNamespaces::new(args.socket.with_extension("netns"))
}
