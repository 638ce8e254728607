//! `overlay node run`: puts the parts together, in an order in which a refusal leaves nothing behind. `overlay node reset`:
//! takes away what is left of a node that has ended.
//!
//! Checks first (root, ports, state folder). A node that is new then needs the kernel (bpffs, underlay, programs, the
//! devices that only exist), and after that the cluster (bootstrap or join). A member comes back to its cluster first, and
//! gets its data plane as soon as the host lets it. The node says that it is ready when its kernel holds what the cluster
//! desires.

mod addresses;
mod asked;
mod begin;
mod cluster;
mod dataplane;
mod ending;
mod error;
#[cfg(test)]
pub(crate) mod fake_voter;
mod finding;
mod folders;
mod gate;
#[cfg(test)]
pub(crate) mod golden;
mod home;
mod leave;
pub(crate) mod lives;
mod lock;
pub(crate) mod machine;
mod named;
mod part;
pub(crate) mod probing;
mod raft_thread;
pub(crate) mod recover;
mod registration;
mod remove;
mod reset;
pub(crate) mod restore;
mod retry;
mod run_file;
mod running;
mod serve;
mod start;
mod state_files;
mod tasks;

pub use asked::Answering;
pub use begin::{ClockError, FirstError};
pub use error::{ClusterError, StartError};
pub use home::{Home, HomeError, Member, Record};
pub use leave::{LeaveError, left};
pub use recover::{RecoverError, recover};
pub use reset::{ResetError, reset};
pub use restore::{RestoreError, restore};
pub use start::run;
