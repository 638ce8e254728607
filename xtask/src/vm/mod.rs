//! Virtual machines that run other kernels: Debian's own packages, booted by qemu's translator (TCG) on
//! this machine's file system.
//!
//! The guest's root is ours, shared read-only by virtiofs, under an overlay in its memory: every tool,
//! every binary that was built here is there under its own path, and nothing that the guest writes
//! reaches us. /dev/kvm is never used: a machine that has it may still be unable to boot a stock kernel
//! by it, and an instruction counter needs the translator.

mod fetch;
mod initrd;
mod machine;
mod share;

pub(crate) use self::{
    fetch::{Kernel, SERIES, newest},
    machine::{Clock, Machine},
    share::VIRTIOFSD,
};
