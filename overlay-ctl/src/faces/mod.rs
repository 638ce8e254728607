//! The faces of a node: how programs and people speak to it.

pub mod api;
pub mod cli;
pub mod metrics;
mod served;

pub use served::{DatapathInfo, ServedNode};
