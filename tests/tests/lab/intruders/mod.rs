//! Intruders stay outside: strangers on the underlay, and endpoints that would leave their own network.
//!
//! What an endpoint can send, with a packet socket and the rights of a network administrator inside, is listed as
//! tables (`table`). Frames on its own network's leg are in `inside`, `within` and `virtio`, those on the leg that
//! leads out in `outward`, `destinations`, `virtio` and `through`, and what it can do with its own devices in
//! `devices`. A further attack is one row of one of these.

mod destinations;
mod devices;
mod forged;
mod guard;
mod inside;
mod legs;
mod outward;
mod packets;
mod scene;
mod table;
mod through;
mod underlay;
mod virtio;
mod within;
