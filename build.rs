//! Compiles `proto/` with a pure Rust compiler, so that building needs no protoc.

use std::error::Error;
use std::path::PathBuf;

const PROTOS: [&str; 3] = ["weft/v1/identity.proto", "weft/v1/mesh.proto", "weft/v1/registry.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("weft_descriptor.bin");
    std::fs::write(&out, prost_bytes(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

/// The descriptor set as gRPC reflection serves it.
fn prost_bytes(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
