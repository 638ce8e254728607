//! Virtual machines that run other kernels: Debian's own packages, booted by qemu's translator (TCG) on
//! this machine's file system.
//!
//! The guest's root is the host's, shared read-only by virtiofs, under an overlay in the guest's memory. The
//! guest sees all tools and binaries of the host under the same paths, and nothing that it writes reaches the
//! host. /dev/kvm is never used, because a machine that has it may still be unable to boot a stock kernel with
//! it, and because the instruction counter needs the translator.

mod archive;
mod fetch;
mod initrd;
mod machine;
mod share;

pub(crate) use self::{
    fetch::{Flavour, Kernel, SERIES, newest},
    machine::{Clock, Link, Machine},
    share::VIRTIOFSD,
};
