//! IPsec policies of the host (xfrm), which the programs cannot follow: they hand packets to a device, and the kernel
//! applies policies before that. So a way that a policy covers must not be taken.

use std::{
    io::{self, ErrorKind},
    net::Ipv4Addr,
};

use nix::errno::Errno;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};

use super::{Netlink, NetlinkError};

// linux/netlink.h and linux/xfrm.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRMA_TMPL: u16 = 5;
const XFRMA_MARK: u16 = 21;
const XFRMA_IF_ID: u16 = 31;
const POLICY_IN: u8 = 0;
const POLICY_OUT: u8 = 1;
const ACTION_BLOCK: u8 = 1;
const AF_INET: u16 = 2;
const UDP: u8 = 17;
/// Bytes of a netlink header, of `xfrm_userpolicy_id`, and of `xfrm_userpolicy_info`, behind which attributes lie.
const HEADER: usize = 16;
const POLICY_ID: usize = 64;
const POLICY_INFO: usize = 168;

/// The policies of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpsecPolicies(Vec<Policy>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    /// Of the packets that it is about: source, destination, each with its prefix length.
    from: (Ipv4Addr, u8),
    to: (Ipv4Addr, u8),
    /// The destination port, and which bits of it count.
    port: (u16, u16),
    /// 0: any.
    protocol: u8,
    direction: u8,
    /// The least one counts.
    priority: u32,
    /// It asks for a transformation, or blocks.
    forbids_clear_text: bool,
}

impl Netlink {
    /// The IPsec policies of the calling thread's namespace; none where the kernel has no IPsec.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn ipsec_policies() -> Result<IpsecPolicies, NetlinkError> {
        match dump() {
            Ok(policies) => Ok(IpsecPolicies(policies)),
            Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => {
                Ok(IpsecPolicies::default())
            }
            Err(error) => Err(NetlinkError::Open(error)),
        }
    }
}

impl IpsecPolicies {
    /// Returns true if a policy forbids VXLAN in clear text between these addresses, in either direction.
    #[must_use]
    pub fn cover(&self, own: Ipv4Addr, vtep: Ipv4Addr, port: u16) -> bool {
        let forbids = |direction, from, to| {
            let about = self.0.iter().filter(|policy| {
                policy.direction == direction
                    && is_in(from, policy.from)
                    && is_in(to, policy.to)
                    && matches!(policy.protocol, 0 | UDP)
                    && (policy.port.0 ^ port) & policy.port.1 == 0
            });
            about
                .min_by_key(|policy| policy.priority)
                .is_some_and(|policy| policy.forbids_clear_text)
        };
        forbids(POLICY_OUT, own, vtep) || forbids(POLICY_IN, vtep, own)
    }
}

fn is_in(address: Ipv4Addr, (network, length): (Ipv4Addr, u8)) -> bool {
    let host_bits = 32 - u32::from(length.min(32));
    let differ = u32::from(address) ^ u32::from(network);
    differ.checked_shr(host_bits).unwrap_or(0) == 0
}

fn dump() -> io::Result<Vec<Policy>> {
    let mut socket = Socket::new(NETLINK_XFRM)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let length = HEADER + POLICY_ID;
    let mut request = Vec::with_capacity(length);
    request.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    request.extend(XFRM_MSG_GETPOLICY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.resize(length, 0);
    socket.send(&request, 0)?;
    let mut policies = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if !read(&answer, &mut policies)? {
            return Ok(policies);
        }
    }
}

/// Reads the messages of one answer. Returns false behind the last one.
fn read(mut answer: &[u8], policies: &mut Vec<Policy>) -> io::Result<bool> {
    while let Some(length) = number(answer, 0).map(|length| length as usize) {
        let message = answer.get(..length).filter(|message| message.len() >= HEADER);
        let message = message.ok_or(ErrorKind::UnexpectedEof)?;
        let body = &message[HEADER..];
        match half(message, 4) {
            Some(NLMSG_DONE) => return Ok(false),
            Some(NLMSG_ERROR) => {
                let code = number(body, 0).unwrap_or(0).cast_signed();
                return if code == 0 {
                    Ok(false)
                } else {
                    Err(io::Error::from_raw_os_error(-code))
                };
            }
            Some(XFRM_MSG_NEWPOLICY) => policies.extend(policy(body)),
            _ => {}
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// A policy of IPv4 that can be about VXLAN of this host: not one of a socket, of a mark or of an xfrm interface.
fn policy(body: &[u8]) -> Option<Policy> {
    // xfrm_selector is first: addresses of 16 bytes each, ports with their masks, family, lengths, protocol.
    let to = address(body, 0)?;
    let from = address(body, 16)?;
    let network = |at| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let port = (network(32)?, network(34)?);
    let family = half(body, 40)?;
    let (to_length, from_length, protocol) = (*body.get(42)?, *body.get(43)?, *body.get(44)?);
    // Behind the selector are the lifetimes.
    let priority = number(body, 152)?;
    let (direction, action) = (*body.get(160)?, *body.get(161)?);
    let mut transforms = false;
    let mut attributes = body.get(POLICY_INFO..)?;
    while let (Some(length), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let length = usize::from(length);
        let value = attributes.get(4..length)?;
        match kind {
            XFRMA_TMPL => transforms |= !value.is_empty(),
            // VXLAN has no mark: value and mask.
            XFRMA_MARK if number(value, 0)? != 0 => return None,
            XFRMA_IF_ID if number(value, 0)? != 0 => return None,
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let is_ours = family == AF_INET && matches!(direction, POLICY_IN | POLICY_OUT);
    is_ours.then_some(Policy {
        from: (from, from_length),
        to: (to, to_length),
        port,
        protocol,
        direction,
        priority,
        forbids_clear_text: transforms || action == ACTION_BLOCK,
    })
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const VTEP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn out(to: [u8; 4], length: u8) -> Policy {
        Policy {
            from: (OWN, 32),
            to: (to.into(), length),
            port: (0, 0),
            protocol: 0,
            direction: POLICY_OUT,
            priority: 100,
            forbids_clear_text: true,
        }
    }

    fn covered(policies: &[Policy]) -> bool {
        IpsecPolicies(policies.to_vec()).cover(OWN, VTEP, 4789)
    }

    #[test]
    fn a_policy_covers_what_its_selector_names() {
        assert!(!covered(&[]));
        for (to, length, is_covered) in [
            ([10, 0, 0, 2], 32, true),
            ([10, 0, 0, 0], 24, true),
            ([0; 4], 0, true),
            ([10, 0, 0, 3], 32, false),
            ([10, 1, 0, 0], 16, false),
        ] {
            assert_eq!(covered(&[out(to, length)]), is_covered, "{to:?}/{length}");
        }
        let all = out([0; 4], 0);
        assert!(covered(&[Policy { protocol: UDP, ..all }]));
        assert!(!covered(&[Policy { protocol: 6, ..all }]), "TCP's");
        assert!(covered(&[Policy { port: (4789, 0xffff), ..all }]));
        assert!(!covered(&[Policy { port: (53, 0xffff), ..all }]));
        assert!(!covered(&[Policy { direction: POLICY_IN, ..all }]), "from us is not to us");
        let back = Policy { from: (VTEP, 32), to: (OWN, 32), direction: POLICY_IN, ..all };
        assert!(covered(&[back]));
    }

    #[test]
    fn the_policy_with_the_least_priority_counts() {
        let all = out([0; 4], 0);
        let pass = Policy { priority: 10, forbids_clear_text: false, ..out([10, 0, 0, 0], 24) };
        assert!(!covered(&[all, pass]));
        assert!(covered(&[all, Policy { priority: 1000, ..pass }]));
    }

    /// What `ip xfrm policy add src 10.0.0.1/32 dst 10.0.0.2/32 proto udp dport 4789 dir out priority 7 tmpl …` makes.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; POLICY_INFO];
        body[..4].copy_from_slice(&VTEP.octets());
        body[16..20].copy_from_slice(&OWN.octets());
        body[32..34].copy_from_slice(&4789u16.to_be_bytes());
        body[34..36].copy_from_slice(&[0xff; 2]);
        body[40..42].copy_from_slice(&AF_INET.to_ne_bytes());
        body[42..45].copy_from_slice(&[32, 32, UDP]);
        body[152..156].copy_from_slice(&7u32.to_ne_bytes());
        body[160] = POLICY_OUT;
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            body.extend(length.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
        }
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(XFRM_MSG_NEWPOLICY.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend(body);
        message
    }

    #[test]
    fn a_message_is_read() {
        let read_all = |attributes: &[(u16, &[u8])]| {
            let mut policies = Vec::new();
            assert!(read(&message(attributes), &mut policies).unwrap());
            policies
        };
        let expected =
            Policy { port: (4789, 0xffff), protocol: UDP, priority: 7, ..out(VTEP.octets(), 32) };
        let template: (u16, &[u8]) = (XFRMA_TMPL, &[1; 64]);
        assert_eq!(read_all(&[template]), [expected]);
        assert_eq!(read_all(&[]), [Policy { forbids_clear_text: false, ..expected }]);
        let marked: (u16, &[u8]) = (XFRMA_MARK, &[1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(read_all(&[template, marked]), []);
        assert_eq!(read_all(&[template, (XFRMA_IF_ID, &[5, 0, 0, 0])]), []);
    }
}
