//! The control plane: what the cluster has decided, how it is replicated, and how it reaches each node.

/// Whether a test has planted this bug. `false` in a build that is not for tests.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(test)]
        let is_planted = crate::control::plant::is_planted(crate::control::plant::Plant::$bug);
        #[cfg(not(test))]
        let is_planted = false;
        is_planted
    }};
}

pub mod backup;
pub mod consensus;
pub mod controller;
pub mod ipam;
pub mod peers;
#[cfg(test)]
pub(crate) mod plant;
#[cfg(test)]
mod sim;
pub mod state;
pub mod voter;
pub mod watch;
