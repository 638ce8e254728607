//! Intruders stay outside: strangers on the underlay, and endpoints that would leave their own network.

mod forged;
mod guard;
mod inside;
mod legs;
mod packets;
mod scene;
mod underlay;
