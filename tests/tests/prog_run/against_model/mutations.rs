//! Ways to spoil a packet.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

/// One way to spoil a packet.
#[derive(Clone, Debug)]
enum Mutation {
    /// A byte of the headers is set. No program looks far into the payload.
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    /// The packet ends within its headers.
    CutShort(Index),
    Insert(Index, Vec<u8>),
    /// One part is copied over another, so that a field gets the value of a different field.
    Copy(Index, Index, usize),
    /// Two bytes are set to this value, which may be a length, a type or a port.
    Word(Index, u16),
}

/// The number of bytes in which all headers lie that a program reads: VXLAN's, and IPv6 with extensions
/// inside.
const HEADERS: usize = 140;

impl Mutation {
    fn apply(&self, packet: &mut Vec<u8>) {
        let headers = packet.len().min(HEADERS);
        if headers == 0 {
            return;
        }
        match self {
            Self::Set(at, byte) => packet[at.index(headers)] = *byte,
            Self::Flip(at, bit) => packet[at.index(headers)] ^= 1 << bit,
            Self::Cut(at) => packet.truncate(at.index(packet.len()) + 1),
            Self::CutShort(at) => packet.truncate(at.index(headers) + 1),
            Self::Insert(at, bytes) => {
                let at = at.index(headers);
                packet.splice(at..at, bytes.iter().copied());
            }
            Self::Copy(from, to, len) => {
                let (from, to) = (from.index(headers), to.index(headers));
                let len = (*len).min(packet.len() - from).min(packet.len() - to);
                packet.copy_within(from..from + len, to);
            }
            Self::Word(at, word) => {
                let at = at.index(headers);
                let len = 2.min(packet.len() - at);
                packet[at..at + len].copy_from_slice(&word.to_be_bytes()[..len]);
            }
        }
    }
}

fn mutation() -> BoxedStrategy<Mutation> {
    let index = any::<Index>;
    let words = vec![0, 1, 0xffff, 0x8000, 0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 4789, 67, 68];
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        4 => (index(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => index().prop_map(Mutation::Cut),
        2 => index().prop_map(Mutation::CutShort),
        1 => (index(), vec(any::<u8>(), 1..60)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (index(), index(), select(vec![2usize, 4, 6, 12]))
            .prop_map(|(from, to, len)| Mutation::Copy(from, to, len)),
        2 => (index(), select(words)).prop_map(|(at, word)| Mutation::Word(at, word)),
    ]
    .boxed()
}

/// The packets, some of which are spoiled.
pub(super) fn mutated(packets: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Vec<u8>> {
    let spoiled = prop_oneof![3 => Just(Vec::new()), 1 => vec(mutation(), 1..5)];
    (packets, spoiled)
        .prop_map(|(mut packet, mutations)| {
            mutations.iter().for_each(|mutation| mutation.apply(&mut packet));
            packet
        })
        .boxed()
}
