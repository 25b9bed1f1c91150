//! The generated protobuf types of `proto/weft/v1`.
//!
//! Only the gRPC services, their clients and the two `convert.rs` files see them; everyone else works
//! with `model`.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("weft.v1");

/// The descriptor set that gRPC reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weft_descriptor.bin"));
