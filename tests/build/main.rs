//! Compiles the eBPF programs for the tests that run them, by the very code that compiles them for
//! the controller: both test and controller hold the same object.

#[path = "../../overlay-ctl/build/ebpf.rs"]
mod ebpf;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=build");
    ebpf::compile()
}
