//! The build script: generates the gRPC code and compiles the eBPF programs, both of which the crate
//! embeds.

mod ebpf;
mod proto;

fn main() -> anyhow::Result<()> {
    proto::compile()?;
    // The script itself may be built in another configuration than the crate.
    let is_debug = std::env::var_os("CARGO_CFG_DEBUG_ASSERTIONS").is_some();
    ebpf::compile(if is_debug { ebpf::Object::WithLog } else { ebpf::Object::Release })
}
