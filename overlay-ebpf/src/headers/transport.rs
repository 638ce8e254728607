//! UDP, TCP, and the ports that both begin with.

pub const IPPROTO_ICMP: u8 = 1;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
pub const IPPROTO_ICMPV6: u8 = 58;
pub const IPPROTO_SCTP: u8 = 132;

/// UDP (RFC 768).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Udp {
    src: u16,
    dst: u16,
    len: u16,
    check: u16,
}

impl Udp {
    #[inline(always)]
    pub fn destination(&self) -> u16 {
        u16::from_be(self.dst)
    }

    /// Header and payload in bytes, as the header says.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(u16::from_be(self.len))
    }
}

/// The first four bytes of UDP and TCP.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ports {
    src: u16,
    dst: u16,
}

impl Ports {
    /// Both ports as one number.
    #[inline(always)]
    pub fn word(&self) -> u32 {
        u32::from(self.src) | u32::from(self.dst) << 16
    }

    #[inline(always)]
    pub fn source(&self) -> u16 {
        u16::from_be(self.src)
    }

    /// Those of an answer.
    #[inline(always)]
    pub fn turned(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }

    #[inline(always)]
    pub fn destination(&self) -> u16 {
        u16::from_be(self.dst)
    }
}

/// TCP up to its flags (RFC 9293, section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct TcpStart {
    ports: Ports,
    sequence: u32,
    acknowledgment: u32,
    data_offset: u8,
    flags: u8,
}

impl TcpStart {
    /// Bytes of the header, as it says itself.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Returns true if the sender ends its side of the connection (FIN), or all of it (RST).
    #[inline(always)]
    pub fn is_last(&self) -> bool {
        const FIN: u8 = 1 << 0;
        const RST: u8 = 1 << 2;
        self.flags & (FIN | RST) != 0
    }
}

const _: () = assert!(size_of::<Udp>() == 8 && size_of::<TcpStart>() == 14);
