//! The folders of a node that are not its state folder: they last as long as the machine runs, or are the system's.

use crate::{config::NodeRunArgs, dataplane::netlink::HeldNamespaces};
use std::path::Path;

/// Where `ip netns` looks for files that take the place of the host's in a namespace.
pub(super) const NETNS_FOLDER: &str = "/etc/netns";

/// The run folder of a node with these arguments.
pub(super) fn run_folder(args: &NodeRunArgs) -> &Path {
    folder_of(&args.socket)
}

/// The folder of what a node needs as long as the machine runs: that of its socket.
pub(super) fn folder_of(socket: &Path) -> &Path {
    match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The namespaces that are held by a node with these arguments.
pub(super) fn held_namespaces(args: &NodeRunArgs) -> HeldNamespaces {
    held_beside(&args.socket)
}

/// The namespaces that are held in the node's run folder, beside its socket.
pub(super) fn held_beside(socket: &Path) -> HeldNamespaces {
    HeldNamespaces::new(socket.with_extension("netns"))
}
