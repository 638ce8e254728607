//! The names and aliases of the devices that the node makes.
//!
//! A device belongs to the overlay by its name's prefix and its alias. All are made from these constants and recognised by
//! them (`marks.rs`), and nowhere else. One that somebody renamed is known by alias and group (`renamed.rs`).

/// The names of all devices that the node makes begin with this.
pub(super) const PREFIX: &str = "ov";

/// The gateway bridge's name. There is one node in a namespace, and so one of these.
pub const GATEWAY_BRIDGE: &str = "ov_gwbridge";
pub(super) const GATEWAY_BRIDGE_ALIAS: &str = "overlay:gateway";

/// The name of the bridge that carries no packet. There is one node in a namespace, and so one of these.
pub(super) const BARRIER: &str = "ovbarrier";
pub(super) const BARRIER_ALIAS: &str = "overlay:barrier";

/// The name of the GRO device is this and the VXLAN port.
pub(super) const GRO_PREFIX: &str = "ovg";
pub(super) const GRO_ALIAS: &str = "overlay:gro";

/// The names of the merge pair's ends: what is sent by the first comes in by the second. There is one node in a namespace,
/// and so one pair.
pub(super) const MERGE_OUT: &str = "ovm-out";
pub(super) const MERGE_IN: &str = "ovm-in";
pub(super) const MERGE_OUT_ALIAS: &str = "overlay:merge-out";
pub(super) const MERGE_IN_ALIAS: &str = "overlay:merge-in";

/// First half of the alias of every device in an endpoint's namespace.
pub(super) const ALIAS_PREFIX: &str = "overlay:";
/// Link group of every device of the overlay. The kernel takes it at creation, unlike the alias: it distinguishes a
/// device that a killed controller left between creation and naming from a foreign one.
pub(super) const GROUP: u32 = u32::from_be_bytes(*b"ovly");
/// IFNAMSIZ less the terminating zero.
pub(super) const NAME_MAX: usize = 15;
