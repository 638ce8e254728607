//! The generated code of `proto/`.
#![allow(missing_docs, reason = "generated; the .proto files carry the words")]
#![allow(
    clippy::all,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    unreachable_pub,
    reason = "generated"
)]

/// The public API.
pub mod v1 {
    tonic::include_proto!("overlay.v1");
    /// The descriptors that gRPC reflection serves.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/overlay_descriptor.bin"));
}

/// What nodes say to each other.
pub mod internal {
    tonic::include_proto!("overlay.internal.v1");
    /// The descriptors, to be compared with those of older versions.
    #[cfg(test)]
    pub(crate) const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/peers_descriptor.bin"));
}
