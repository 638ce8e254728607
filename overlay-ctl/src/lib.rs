//! The controller and the command line of the overlay.

pub mod consensus;
pub mod ipam;
pub mod model;
pub mod proto;
pub mod state;
