//! IPv6, and the jumbo option of super-packets.

/// IPv6 (RFC 8200, section 3).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    start: [u8; 4],
    payload_len: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub src: [u8; 16],
    pub dst: [u8; 16],
}

impl Ipv6 {
    #[inline(always)]
    pub fn new(next_header: u8, payload_len: u16, src: [u8; 16], dst: [u8; 16]) -> Self {
        let (start, payload_len) = ([0x60, 0, 0, 0], payload_len.to_be());
        Self { start, payload_len, next_header, hop_limit: 64, src, dst }
    }

    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        self.start[0] << 4 | self.start[1] >> 4
    }

    /// The 16-bit word that holds the class, as a checksum adds it up.
    #[inline(always)]
    pub fn class_word(&self) -> u16 {
        u16::from_ne_bytes([self.start[0], self.start[1]])
    }

    #[inline(always)]
    pub fn set_traffic_class(&mut self, class: u8) {
        self.start[0] = self.start[0] & 0xf0 | class >> 4;
        self.start[1] = self.start[1] & 0x0f | class << 4;
    }

    /// Bytes behind this header, as it says itself.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        usize::from(u16::from_be(self.payload_len))
    }

    /// Returns true if the length stands in a jumbo option, or nowhere (RFC 2675, section 3).
    #[inline(always)]
    pub fn is_without_length(&self) -> bool {
        self.payload_len == 0
    }

    /// Whether the source is a link-local address (RFC 4291, section 2.5.6).
    #[inline(always)]
    pub fn is_from_link(&self) -> bool {
        is_link_local(&self.src)
    }

    /// Whether the destination is a link-local address.
    #[inline(always)]
    pub fn is_to_link(&self) -> bool {
        is_link_local(&self.dst)
    }
}

/// A hop-by-hop header with the jumbo option alone (RFC 2675, section 2).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct JumboOption {
    next_header: u8,
    header_len: u8,
    option: u8,
    option_len: u8,
    payload_len: u32,
}

const JUMBO: u8 = 194;

impl JumboOption {
    /// The option before a header of `next_header`, in a packet with `payload_len` bytes behind its IPv6 header.
    #[inline(always)]
    pub fn new(next_header: u8, payload_len: u32) -> Self {
        Self {
            next_header,
            header_len: 0,
            option: JUMBO,
            option_len: 4,
            payload_len: payload_len.to_be(),
        }
    }

    /// Whether this is such a header, and `next_header` is behind it.
    #[inline(always)]
    pub fn is_before(&self, next_header: u8) -> bool {
        self.next_header == next_header && self.header_len == 0 && self.option == JUMBO
    }
}

#[inline(always)]
fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

const _: () = assert!(size_of::<Ipv6>() == 40 && size_of::<JumboOption>() == 8);
