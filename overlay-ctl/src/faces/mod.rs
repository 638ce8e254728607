//! The faces of a node: how programs and people speak to it.

pub mod api;
pub mod cli;
mod disk;
mod health;
pub mod metrics;
mod served;
mod shared;

pub(crate) use disk::StateDisk;
pub use health::{Facts, Health, Service, health, troubles};
pub use served::{DatapathInfo, ServedDataPlane, ServedNode};
pub(crate) use shared::{NoAnswer, Shared};
