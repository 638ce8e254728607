//! Compiles the eBPF programs for the tests that run them, by the very code that compiles them for
//! the controller: the tests hold the object that a released controller holds.

#[path = "../../overlay-ctl/build/ebpf.rs"]
mod ebpf;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=build");
    ebpf::compile(ebpf::Object::Release)
}
