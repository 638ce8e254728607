//! Compiles the project's own protos with a compiler written in Rust, so that protoc is not needed.

use prost::Message as _;
use std::path::PathBuf;

const PROTOS: [&str; 2] = ["overlay/v1/overlay.proto", "overlay/internal/v1/peers.proto"];

/// Writes the service and message code to OUT_DIR, the descriptors that reflection serves, and
/// those of the services between nodes, which a test compares with older ones.
pub(crate) fn compile() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let public = protox::compile([PROTOS[0]], ["proto"])?;
    std::fs::write(out.join("overlay_descriptor.bin"), public.encode_to_vec())?;
    let between_nodes = protox::compile([PROTOS[1]], ["proto"])?;
    std::fs::write(out.join("peers_descriptor.bin"), between_nodes.encode_to_vec())?;
    tonic_prost_build::configure()
        .type_attribute("overlay.v1", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
