//! Whole clusters, step by step: real logs on simulated disks, a network in memory, time by hand.

mod agents;
mod by_hand;
mod cluster;
mod commands;
mod differences;
mod disks;
mod driver;
mod faults;
mod forgetting;
mod handover;
mod harness;
mod hostile;
mod lives;
mod membership;
mod oracle;
mod random;
mod refusals;
mod room;
mod seats;
mod slow_disks;
mod stall;
mod unreadable;
