mod ebpf;
mod proto;

fn main() -> anyhow::Result<()> {
    proto::compile()?;
    // The configuration of the crate that is built, not of this script.
    let is_debug = std::env::var_os("CARGO_CFG_DEBUG_ASSERTIONS").is_some();
    ebpf::compile(if is_debug { ebpf::Object::WithLog } else { ebpf::Object::Release })
}
