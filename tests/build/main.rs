//! Compiles the eBPF programs for the tests that run them, by the very code that compiles them for
//! the controller: both test and controller hold the same object.

use std::env;

#[path = "../../overlay-ctl/build/ebpf.rs"]
mod ebpf;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=build");
    if env::var_os("CARGO_FEATURE_PROGRAMS").is_none() {
        return Ok(());
    }
    ebpf::compile()
}
