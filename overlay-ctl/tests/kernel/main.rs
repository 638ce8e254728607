//! The two doors to the kernel, against the real one. Needs root; says so and skips without.

mod lab;
mod netlink;
