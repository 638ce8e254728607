mod proto;

fn main() -> anyhow::Result<()> {
    proto::compile()
}
