//! The controller and the command line of the overlay.

pub mod cli;
pub mod proto;
