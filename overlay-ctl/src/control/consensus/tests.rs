//! Whole clusters, step by step: real logs on simulated disks, a network in memory, time by hand.

mod agents;
mod cluster;
mod commands;
mod driver;
mod faults;
mod forgetting;
mod harness;
mod hostile;
mod membership;
mod oracle;
mod random;
