//! Compiles the eBPF programs for the tests, with the same code that compiles them for the controller, so
//! that the tests contain the object of a released controller.

#[path = "../../overlay-ctl/build/ebpf.rs"]
mod ebpf;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=build");
    ebpf::compile(ebpf::Object::Release)
}
