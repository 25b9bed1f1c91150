//! The protobuf types of `proto`, and how values of `model` become messages.
//!
//! Only the gRPC services, their clients and the `convert.rs` files of `control` and `agent` see
//! them, and `etcd` and `workload`, which are about nothing but their messages; everyone else works with `model`. Encoding cannot fail and both ends need it, so it is
//! here; decoding checks what came from outside and is each end's own.

mod encode;

pub use generated::*;

/// The messages and services of etcd's API, under the names that they have on the wire.
pub mod etcd {
    #![allow(warnings, clippy::all, clippy::pedantic, reason = "generated code")]

    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }

    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
}

/// The SPIFFE Workload API, which has no package.
pub mod spiffe {
    #![allow(warnings, clippy::all, clippy::pedantic, reason = "generated code")]

    tonic::include_proto!("_");
}

mod generated {
    #![allow(warnings, clippy::all, clippy::pedantic, reason = "generated code")]

    tonic::include_proto!("weft.v1");
}

/// The descriptor set that gRPC reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weft_descriptor.bin"));
