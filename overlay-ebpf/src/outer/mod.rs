//! The outer headers: what VXLAN puts around a frame. One file a family of addresses, with its lengths, its
//! layout and its words, so that nothing outside has to know how long they are.

pub mod ipv4;
