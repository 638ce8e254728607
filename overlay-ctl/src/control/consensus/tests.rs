//! Whole clusters, step by step: real logs on disk, a network in memory, time by hand.

mod cluster;
mod driver;
mod faults;
mod forgetting;
mod harness;
mod membership;
mod random;
