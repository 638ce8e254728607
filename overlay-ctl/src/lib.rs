//! The controller and the command line of the overlay.

pub mod netlink;
pub mod proto;
