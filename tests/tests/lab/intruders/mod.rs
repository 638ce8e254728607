//! Nobody comes in: strangers on the underlay, and endpoints that want to be where they do not belong.

mod forged;
mod guard;
mod inside;
mod legs;
mod packets;
mod scene;
mod underlay;
