//! Switches off features of a device, by ethtool's netlink messages (linux/ethtool_netlink.h, kernel 5.6).

use futures::StreamExt as _;
use genetlink::GenetlinkHandle;
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, ParseableParametrized,
};

use super::{OffloadsError, netns::Netns};

/// A super-packet of UDP datagrams (UDP_SEGMENT; NETIF_F_GSO_UDP_L4) is cut before it leaves the device.
pub(super) const UDP_SEGMENTATION: &str = "tx-udp-segmentation";

const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// Switches off a feature of a device in the namespace. It is no error where the device never had it.
///
/// # Errors
/// [`OffloadsError`]: a kernel without ethtool's netlink family (before 5.6), or one that does not know
/// the feature.
pub(super) async fn switch_off(
    netns: &Netns,
    index: u32,
    feature: &str,
) -> Result<(), OffloadsError> {
    let refused = |error: &dyn std::fmt::Display| OffloadsError::Refused(error.to_string());
    let mut handle = connect(netns)?;
    let mut message =
        NetlinkMessage::from(GenlMessage::from_payload(SwitchOff { index, feature }.message()));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut answers = handle.request(message).await.map_err(|error| refused(&error))?;
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

/// A connection whose socket lives in the namespace, served by the current runtime.
fn connect(netns: &Netns) -> Result<GenetlinkHandle, OffloadsError> {
    let runtime = tokio::runtime::Handle::current();
    let inside = move || {
        let _entered = runtime.enter();
        let (connection, handle, _) = genetlink::new_connection()?;
        // It ends with the handle.
        tokio::spawn(connection);
        Ok(handle)
    };
    let connected = netns.run(inside).map_err(|error| OffloadsError::Refused(error.to_string()))?;
    connected.map_err(OffloadsError::Open)
}

/// A request to switch a feature off.
struct SwitchOff<'a> {
    index: u32,
    feature: &'a str,
}

impl SwitchOff<'_> {
    fn message(&self) -> Features {
        let header = [
            DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, self.index.to_ne_bytes().to_vec()),
            DefaultNla::new(ETHTOOL_A_HEADER_FLAGS, ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes().to_vec()),
        ];
        let name = [self.feature.as_bytes(), &[0]].concat();
        // A bit that is named without a value is switched off.
        let bit =
            nest(ETHTOOL_A_BITSET_BITS_BIT, &[DefaultNla::new(ETHTOOL_A_BITSET_BIT_NAME, name)]);
        let bits = nest(ETHTOOL_A_BITSET_BITS, &[bit]);
        Features(vec![
            nest(ETHTOOL_A_FEATURES_HEADER, &header),
            nest(ETHTOOL_A_FEATURES_WANTED, &[bits]),
        ])
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

    #[test]
    fn a_feature_is_named_and_given_no_value() {
        let message = SwitchOff { index: 0x0102, feature: "abc" }.message();
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let nested = |kind: u16, len: u16| -> Vec<u8> {
            [len.to_ne_bytes(), (kind | NLA_F_NESTED).to_ne_bytes()].concat()
        };
        let expected = [
            nested(1, 20),
            [8u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat(),
            0x0102u32.to_ne_bytes().to_vec(),
            [8u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat(),
            2u32.to_ne_bytes().to_vec(),
            nested(3, 20),
            nested(3, 16),
            nested(1, 12),
            [8u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat(),
            b"abc\0".to_vec(),
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}
