//! Preparing the programs' object for the running kernel: user space writes the kernel's layout of
//! `struct sk_buff` into it before it is loaded (see [`SkbLayout`]).

use std::{vec, vec::Vec};

use crate::{
    btf::{Btf, BtfError},
    skb::{CAST_PLACEHOLDER, SkbLayout},
};

/// The file with the kernel's type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's function that returns the `struct sk_buff` of a context (kernel 6.2). It works only where the
/// kernel compiles programs to machine code.
const CAST: &str = "bpf_cast_to_kern_ctx";

/// The kernel's type for the jumbo option. Kernel 5.19 got it with the code that puts the option in and takes it out,
/// and kernel 7.0 lost it with that code.
const JUMBO_OPTION: &str = "hop_jumbo_hdr";

/// An object that can be loaded, and the value that its variable [`crate::SKB_LAYOUT`] must get.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The object.
    pub object: Vec<u8>,
    /// The value.
    pub layout: SkbLayout,
}

/// Prepares the object for the kernel with this type information. There may be two ways: the first is faster,
/// the second is for a kernel that refuses the first.
///
/// # Errors
/// [`BtfError`].
pub fn prepare(object: &[u8], btf: &[u8]) -> Result<Vec<Prepared>, BtfError> {
    let btf = Btf::parse(btf)?;
    let layout = layout(&btf)?;
    let mut ways = vec![];
    if let Some(cast) = btf.function(CAST) {
        let layout = SkbLayout { is_typed: 1, ..layout };
        ways.push(Prepared { object: with_calls(object, call_of_kernel(cast)), layout });
    }
    ways.push(Prepared { object: with_calls(object, NOTHING), layout });
    Ok(ways)
}

fn layout(btf: &Btf<'_>) -> Result<SkbLayout, BtfError> {
    const SKB: &str = "sk_buff";
    let bytes = |name| {
        let member = btf.member(SKB, name)?;
        let is_whole = member.bit.is_multiple_of(8) && member.bits == 0;
        if is_whole { Ok(member.bit / 8) } else { Err(BtfError::Missing(name)) }
    };
    let summed = btf.member(SKB, "ip_summed")?;
    let bit = summed.bit % 8;
    if summed.bits != 2 || bit > 6 {
        return Err(BtfError::Missing("ip_summed"));
    }
    let csum_start = bytes("csum_start")?;
    if bytes("csum_offset")? != csum_start + 2 {
        return Err(BtfError::Missing("csum_offset"));
    }
    Ok(SkbLayout {
        is_typed: 0,
        ip_summed: summed.bit / 8,
        ip_summed_mask: 0b11 << bit,
        csum_start,
        mac_header: bytes("mac_header")?,
        knows_jumbo: u32::from(btf.has_struct(JUMBO_OPTION)),
        inner_mac_header: bytes("inner_mac_header")?,
        inner_network_header: bytes("inner_network_header")?,
        nfct: bytes("_nfct").unwrap_or(0),
    })
}

/// An instruction of BPF (RFC 9669, section 3).
type Instruction = [u8; 8];

/// The code of a call (BPF_JMP | BPF_CALL). The source register says what kind of function is called.
const CALL: u8 = 0x85;
const KERNEL_FUNCTION: u8 = 2;
/// `r0 = 0`: stands for a call that is never reached.
const NOTHING: Instruction = [0xb7, 0, 0, 0, 0, 0, 0, 0];

fn call(source: u8, number: i32) -> Instruction {
    let mut instruction = [CALL, source << 4, 0, 0, 0, 0, 0, 0];
    instruction[4..].copy_from_slice(&number.to_le_bytes());
    instruction
}

fn call_of_kernel(function: u32) -> Instruction {
    call(KERNEL_FUNCTION, function.cast_signed())
}

/// The object, with `replacement` instead of each call of the placeholder.
fn with_calls(object: &[u8], replacement: Instruction) -> Vec<u8> {
    let placeholder = call(0, CAST_PLACEHOLDER);
    let mut object = object.to_vec();
    // Sections of code are aligned to their instructions.
    for instruction in object.chunks_exact_mut(size_of::<Instruction>()) {
        if *instruction == placeholder {
            instruction.copy_from_slice(&replacement);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::tests::{BITFIELDS, Made};

    const STRUCT: u32 = 4 << 24;
    const UNION: u32 = 5 << 24;
    const FUNCTION: u32 = 12 << 24;

    /// The types of a kernel in which the fields of a packet lie where these words say.
    fn kernel(summed: u32, offset: u32, has_cast: bool) -> Vec<u8> {
        made(summed, offset, has_cast).bytes()
    }

    fn made(summed: u32, offset: u32, has_cast: bool) -> Made {
        let mut made = Made::new();
        made.add("u16", 1 << 24, &[16])
            .of("", STRUCT, &[("csum_start", 1, 0), ("csum_offset", 1, offset)])
            .of("", UNION, &[("csum", 1, 0), ("", 2, 0)])
            .of(
                "sk_buff",
                STRUCT | BITFIELDS,
                &[
                    ("ip_summed", 1, summed),
                    ("", 3, 128),
                    ("mac_header", 1, 256),
                    ("inner_mac_header", 1, 272),
                    ("inner_network_header", 1, 288),
                ],
            );
        if has_cast {
            made.add(CAST, FUNCTION, &[]);
        }
        made
    }

    const SUMMED: u32 = 2 << 24 | (64 + 5);

    fn object() -> Vec<u8> {
        [call(0, 51), call(0, CAST_PLACEHOLDER), NOTHING, call(0, CAST_PLACEHOLDER)].concat()
    }

    #[test]
    fn a_kernel_with_the_cast_is_offered_both_ways() {
        let ways = prepare(&object(), &kernel(SUMMED, 16, true)).unwrap();
        let [typed, probed] = &ways[..] else { panic!("{ways:?}") };
        let layout = SkbLayout {
            is_typed: 0,
            ip_summed: 8,
            ip_summed_mask: 0x60,
            csum_start: 16,
            mac_header: 32,
            knows_jumbo: 0,
            inner_mac_header: 34,
            inner_network_header: 36,
            nfct: 0,
        };
        assert_eq!(probed.layout, layout);
        assert_eq!(typed.layout, SkbLayout { is_typed: 1, ..layout });
        let cast = call_of_kernel(5);
        assert_eq!(typed.object, [call(0, 51), cast, NOTHING, cast].concat());
        assert_eq!(probed.object, [call(0, 51), NOTHING, NOTHING, NOTHING].concat());
    }

    #[test]
    fn a_kernel_without_it_is_offered_one() {
        let ways = prepare(&object(), &kernel(SUMMED, 16, false)).unwrap();
        let [probed] = &ways[..] else { panic!("{ways:?}") };
        assert_eq!(probed.layout.is_typed, 0);
    }

    #[test]
    fn a_kernel_with_the_type_of_the_jumbo_option_knows_the_option() {
        let mut of_6_18 = made(SUMMED, 16, true);
        of_6_18.of("hop_jumbo_hdr", STRUCT, &[("nexthdr", 1, 0), ("jumbo_payload_len", 1, 32)]);
        for (kernel, knows_jumbo) in [(of_6_18.bytes(), 1), (kernel(SUMMED, 16, true), 0)] {
            let ways = prepare(&object(), &kernel).unwrap();
            assert_eq!(ways.len(), 2);
            assert!(ways.iter().all(|way| way.layout.knows_jumbo == knows_jumbo), "{ways:?}");
        }
    }

    #[test]
    fn a_packet_of_another_shape_is_refused() {
        let refused = |summed, offset| prepare(&object(), &kernel(summed, offset, true)).err();
        let missing = |name| Some(BtfError::Missing(name));
        assert_eq!(refused(3 << 24 | 64, 16), missing("ip_summed"), "of three bits");
        assert_eq!(refused(2 << 24 | 71, 16), missing("ip_summed"), "in two bytes");
        assert_eq!(refused(SUMMED, 32), missing("csum_offset"), "it does not follow");
        assert_eq!(refused(SUMMED, 17), missing("csum_offset"), "in no whole byte");
    }

    /// Skipped on a kernel without the file, where no node can start.
    #[test]
    fn this_kernel_is_read() {
        let Ok(btf) = std::fs::read(KERNEL_BTF) else { return };
        let ways = prepare(&object(), &btf).unwrap();
        for Prepared { layout, .. } in ways {
            assert!(layout.ip_summed < layout.csum_start, "{layout:?}");
            assert!(layout.csum_start < layout.mac_header, "{layout:?}");
            assert!(layout.inner_network_header < layout.inner_mac_header, "{layout:?}");
        }
    }
}
