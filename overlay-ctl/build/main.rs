mod ebpf;
mod proto;

fn main() -> anyhow::Result<()> {
    proto::compile()?;
    ebpf::compile()
}
