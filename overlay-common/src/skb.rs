//! What the programs must be told about the kernel that runs them: where it keeps the state of a packet's unfinished
//! checksum, of its inner headers and of its connection, and what the kernel can do for them.
//!
//! A sender may leave its checksum to the device that sends the packet on (CHECKSUM_PARTIAL). The kernel notes
//! where the sum begins and where it goes, and writes it itself if the device can't. The sender chooses both
//! places. `struct __sk_buff` does not show them to programs, so they are read from the
//! kernel's own `struct sk_buff`, whose layout differs from kernel to kernel: user space finds it in the
//! kernel's type information and hands it to the programs.
//!
//! Kernels from 5.19 to 6.19 put a jumbo option (RFC 2675) into their own IPv6 super-packets above 64 KiB, and take it
//! out where they cut these. Kernels from 7.0 on do neither: an option that a program put in would stay in every
//! segment.
//!
//! A packet that came out of a tunnel still has the marks of one, and the places of its inner headers. An endpoint that forwards such a packet sends it with these marks. An
//! endpoint's own tunnel makes the same marks, with inner headers that lie deeper. So the programs compare the places.

/// Name of the programs' variable that holds a [`SkbLayout`].
pub const SKB_LAYOUT: &str = "SKB_LAYOUT";

/// Number of a helper that does not exist. The programs call it to get the kernel's own `struct sk_buff` of their
/// context. User space replaces the call by one of `bpf_cast_to_kern_ctx` (kernel 6.2) or, if the kernel has no
/// such function, by nothing.
pub const CAST_PLACEHOLDER: i32 = 0x5e_c0_57_b0;

/// Offsets within the kernel's `struct sk_buff`, and what else a program must know before it is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkbLayout {
    /// 1: the programs load the fields from the kernel's own `struct sk_buff`, to which they get a pointer.
    /// 0: the kernel gives no such pointer, and they read each field by `bpf_probe_read_kernel`.
    pub is_typed: u32,
    /// Offset of the byte that `ip_summed` lies in.
    pub ip_summed: u32,
    /// The two bits of that byte that are `ip_summed`. CHECKSUM_PARTIAL is both of them.
    pub ip_summed_mask: u32,
    /// Offset of `csum_start`, which is 16 bits long, and `csum_offset`, which follows it.
    pub csum_start: u32,
    /// Offset of `mac_header`, which is 16 bits long and counts from the same place as `csum_start`.
    pub mac_header: u32,
    /// 1: the kernel takes the jumbo option out of an IPv6 super-packet when it cuts it into segments, and takes a
    /// packet above 64 KiB without the option for an empty one. 0: it knows no such option.
    pub knows_jumbo: u32,
    /// Offset of `inner_mac_header`, which is 16 bits long and counts from the same place.
    pub inner_mac_header: u32,
    /// Offset of `inner_network_header`, likewise.
    pub inner_network_header: u32,
    /// Offset of `_nfct`, which is 64 bits long: the packet's entry in the table of connections. 0: the kernel has no
    /// such table.
    pub nfct: u32,
}

impl SkbLayout {
    /// The value in the object, before user space has written the kernel's.
    pub const UNKNOWN: Self = Self {
        is_typed: 0,
        ip_summed: 0,
        ip_summed_mask: 0,
        csum_start: 0,
        mac_header: 0,
        knows_jumbo: 0,
        inner_mac_header: 0,
        inner_network_header: 0,
        nfct: 0,
    };
}

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya's Pod is a promise about layout")]
// SAFETY: repr(C), Copy, u32 alone and so no padding, every bit pattern is a value.
unsafe impl aya::Pod for SkbLayout {}
