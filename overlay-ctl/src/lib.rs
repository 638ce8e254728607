//! The controller of the overlay.

pub mod consensus;
