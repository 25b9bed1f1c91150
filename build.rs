//! Compiles `proto/` with a pure Rust compiler, so that building needs no protoc, and packs what the
//! loader reads.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const PROTOS: [&str; 3] = ["weft/v1/identity.proto", "weft/v1/mesh.proto", "weft/v1/registry.proto"];
/// Not described by reflection: a part of somebody else's API, on a listener of its own.
const ETCD_PROTOS: [&str; 2] = ["etcd/kv.proto", "etcd/rpc.proto"];
/// As above, on a socket of the sidecar.
const SPIFFE_PROTOS: [&str; 1] = ["spiffe/workload.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("weft_descriptor.bin");
    std::fs::write(&out, prost_bytes(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    let etcd = protox::compile(ETCD_PROTOS, ["proto"])?;
    // Values share the memory of the message they came in.
    tonic_prost_build::configure().bytes(".").compile_fds(etcd)?;
    tonic_prost_build::configure().compile_fds(protox::compile(SPIFFE_PROTOS, ["proto"])?)?;
    pack_relocations();
    gather_sidecar()
}

/// Relative relocations in their short form (DT_RELR): a loader that reads 20 KiB of them instead of
/// 650 leaves that much less of the program in the memory of every sidecar. The C library of the machine
/// that runs it has to know the form, so only builds for this machine have it, and only if it does.
fn pack_relocations() {
    let is_set = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    let native = std::env::var("HOST").is_ok_and(|host| is_set("TARGET", &host));
    if native && is_set("CARGO_CFG_TARGET_ENV", "gnu") && libc_version() >= Some((2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// What a sidecar runs is put next to each other (`link/record` finds out what that is). Each page that is
/// used brings its neighbours into memory: scattered over the program, a fifth of it brings most of it.
/// Only the linkers that come with the compiler and with binutils are known to read the file.
fn gather_sidecar() -> Result<(), Box<dyn Error>> {
    const ORDER: &str = "link/sidecar.ld";
    println!("cargo:rerun-if-changed={ORDER}");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let flags = var("CARGO_ENCODED_RUSTFLAGS");
    let other_linker = ["fuse-ld", "linker="].iter().any(|word| flags.contains(word))
        || !var("RUSTC_LINKER").is_empty();
    if var("PROFILE") == "release" && var("CARGO_CFG_TARGET_OS") == "linux" && !other_linker {
        let order = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join(ORDER);
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", order.display());
    }
    Ok(())
}

fn libc_version() -> Option<(u32, u32)> {
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?; // "glibc 2.36"
    let told = String::from_utf8(told.stdout).ok()?;
    let (major, minor) = told.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The descriptor set as gRPC reflection serves it.
fn prost_bytes(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
