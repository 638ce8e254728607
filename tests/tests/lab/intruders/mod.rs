//! Intruders stay outside: strangers on the underlay, and endpoints that would leave their own network.
//!
//! What an endpoint can send, with a packet socket and the rights of a network administrator inside, is listed as
//! tables (`table`). Frames on its own network's leg are in `inside`, `within` and `virtio`, those on the leg that
//! leads out in `outward`, `destinations`, `virtio` and `through`, what it says of packets in `reports`, and what it can
//! do with its own devices in `devices`, `given_away` and `driver`. A further attack is one row of one of these.

mod destinations;
mod devices;
mod driver;
mod forged;
mod given_away;
mod guard;
mod inside;
mod legs;
mod outward;
mod packets;
mod reports;
mod scene;
mod table;
mod through;
mod underlay;
mod virtio;
mod within;
