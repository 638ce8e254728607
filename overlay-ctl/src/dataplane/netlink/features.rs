//! Reads and switches the offloads of a device, by ethtool's netlink messages (linux/ethtool_netlink.h, kernel 5.6).
//! They have the names that `ethtool -k` gives to the kernel's features.

use std::collections::BTreeSet;

use ethtool::{EthtoolAttr, EthtoolError, EthtoolFeatureAttr, EthtoolHandle};
use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, ParseableParametrized,
};

use super::{OffloadsError, netns::Netns};

/// The offloads by which a device takes super-packets whole that cannot be carried to another node whole. Without
/// them, the sender's kernel cuts such packets before they leave the device.
///
/// - Packets of a tunnel: behind the outer headers of the overlay, GSO looks for the headers of one tunnel and not of
///   two.
/// - SCTP: `bpf_skb_adjust_room` makes no room in front of it (kernel 7.3), nor would GSO cut it behind a tunnel's
///   headers.
/// - Lists of packets (`tx-gso-list`): each has headers of its own, which would not be encapsulated.
/// - Datagrams (UDP_SEGMENT): see [`Kind::cuts_inside`](crate::dataplane::kernel::Kind::cuts_inside).
pub(super) const UNCARRIED: [&str; 9] = [
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-sctp-segmentation",
    "tx-gso-list",
];

const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// A connection to ethtool's family in one network namespace. When its socket breaks, every call fails: open another
/// one.
#[derive(Debug)]
pub struct Offloads(EthtoolHandle);

impl Offloads {
    /// Connects in the network namespace of the calling thread. Must be called within a tokio runtime, which then
    /// serves the socket.
    ///
    /// # Errors
    /// [`OffloadsError::Open`].
    pub fn open() -> Result<Self, OffloadsError> {
        let (connection, handle, _) = ethtool::new_connection().map_err(OffloadsError::Open)?;
        // It ends with the handle.
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Connects in another network namespace.
    pub(super) fn open_in(netns: &Netns) -> Result<Self, OffloadsError> {
        let runtime = tokio::runtime::Handle::current();
        let inside = move || {
            let _entered = runtime.enter();
            Self::open()
        };
        netns.run(inside).map_err(|error| OffloadsError::Refused(error.to_string()))?
    }

    /// The offloads that are in force on a device.
    ///
    /// # Errors
    /// [`OffloadsError`]: a kernel without ethtool's netlink family (before 5.6), or no such device.
    pub async fn in_force(&mut self, ifname: &str) -> Result<BTreeSet<String>, OffloadsError> {
        let read = async {
            let answers = self.0.feature().get(Some(ifname)).execute().await?;
            answers.try_collect::<Vec<_>>().await
        };
        let answers: Result<_, EthtoolError> = read.await;
        let answers = answers.map_err(|error| match error {
            EthtoolError::NetlinkError(error) if error.raw_code() == -(Errno::ENODEV as i32) => {
                OffloadsError::NoDevice(ifname.to_owned())
            }
            error => refused(&error),
        })?;
        let attributes = answers.into_iter().flat_map(|answer| answer.payload.nlas);
        let active = attributes.filter_map(|attribute| match attribute {
            EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => Some(bits),
            _ => None,
        });
        let active: BTreeSet<String> =
            active.flatten().filter(|bit| bit.value).map(|bit| bit.name).collect();
        // No device is without any: it would be an answer that was not understood.
        if active.is_empty() { Err(OffloadsError::Nothing) } else { Ok(active) }
    }

    /// Switches offloads of a device. One that the device cannot switch stays as it is, which is no error.
    ///
    /// # Errors
    /// [`OffloadsError`]: a kernel without ethtool's netlink family (before 5.6), or one that does not know one of the
    /// names. The others are switched all the same.
    pub async fn switch(
        &mut self,
        ifindex: u32,
        names: &[&str],
        on: bool,
    ) -> Result<(), OffloadsError> {
        let all = self.request(&Switch { ifindex, names, on }).await;
        if all.is_ok() || names.len() < 2 {
            return all;
        }
        // A kernel that does not know one of the names refuses all.
        let mut switched = Ok(());
        for name in names {
            let one = self.request(&Switch { ifindex, names: &[name], on }).await;
            switched = switched.and(one);
        }
        switched
    }

    async fn request(&mut self, switch: &Switch<'_>) -> Result<(), OffloadsError> {
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(switch.message()));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let answers = self.0.handle.request(message).await;
        let mut answers = answers.map_err(|error| refused(&error))?;
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|error| refused(&error))?;
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(refused(&error));
            }
        }
        Ok(())
    }
}

fn refused(error: &dyn std::fmt::Display) -> OffloadsError {
    OffloadsError::Refused(error.to_string())
}

/// A request to switch offloads.
struct Switch<'a> {
    ifindex: u32,
    names: &'a [&'a str],
    on: bool,
}

impl Switch<'_> {
    fn message(&self) -> Features {
        let header = [
            DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, self.ifindex.to_ne_bytes().to_vec()),
            DefaultNla::new(ETHTOOL_A_HEADER_FLAGS, ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes().to_vec()),
        ];
        let bits: Vec<DefaultNla> = self.names.iter().map(|name| self.bit(name)).collect();
        let bits = nest(ETHTOOL_A_BITSET_BITS, &bits);
        Features(vec![
            nest(ETHTOOL_A_FEATURES_HEADER, &header),
            nest(ETHTOOL_A_FEATURES_WANTED, &[bits]),
        ])
    }

    /// A bit that is named without a value is switched off.
    fn bit(&self, name: &str) -> DefaultNla {
        let name = [name.as_bytes(), &[0]].concat();
        let mut bit = vec![DefaultNla::new(ETHTOOL_A_BITSET_BIT_NAME, name)];
        if self.on {
            bit.push(DefaultNla::new(ETHTOOL_A_BITSET_BIT_VALUE, Vec::new()));
        }
        nest(ETHTOOL_A_BITSET_BITS_BIT, &bit)
    }
}

fn nest(kind: u16, inside: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; inside.buffer_len()];
    inside.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// Attributes of a message about a device's features.
#[derive(Debug, Clone)]
struct Features(Vec<DefaultNla>);

impl GenlFamily for Features {
    fn family_name() -> &'static str {
        "ethtool"
    }

    fn command(&self) -> u8 {
        ETHTOOL_MSG_FEATURES_SET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Features {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Features {
    fn parse_with_param(_: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        // No answer but the kernel's acknowledgement was asked for.
        Ok(Self(Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(names: &[&str], on: bool) -> Vec<u8> {
        let message = Switch { ifindex: 0x0102, names, on }.message();
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn attribute(kind: u16, len: u16) -> Vec<u8> {
        [len.to_ne_bytes(), kind.to_ne_bytes()].concat()
    }

    fn nested(kind: u16, len: u16) -> Vec<u8> {
        attribute(kind | NLA_F_NESTED, len)
    }

    fn header() -> Vec<u8> {
        [
            nested(1, 20),
            attribute(1, 8),
            0x0102u32.to_ne_bytes().to_vec(),
            attribute(3, 8),
            2u32.to_ne_bytes().to_vec(),
        ]
        .concat()
    }

    #[test]
    fn an_offload_is_named_and_given_a_value_if_it_is_switched_on() {
        let off = [nested(3, 20), nested(3, 16), nested(1, 12), attribute(2, 8), b"abc\0".to_vec()];
        assert_eq!(bytes(&["abc"], false), [header(), off.concat()].concat());
        let on = [
            nested(3, 24),
            nested(3, 20),
            nested(1, 16),
            attribute(2, 8),
            b"abc\0".to_vec(),
            attribute(3, 4),
        ];
        assert_eq!(bytes(&["abc"], true), [header(), on.concat()].concat());
    }

    #[test]
    fn several_offloads_are_switched_by_one_message() {
        let bit = |name: &[u8]| [nested(1, 12), attribute(2, 8), name.to_vec()].concat();
        let both = [nested(3, 32), nested(3, 28), bit(b"abc\0"), bit(b"def\0")];
        assert_eq!(bytes(&["abc", "def"], false), [header(), both.concat()].concat());
    }
}
