//! Reads the kernel's type information (BTF, Documentation/bpf/btf.rst): where a struct's member lies, and
//! which number a function has.

use core::fmt;
use std::vec::Vec;

/// The kernel's type information could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BtfError {
    /// It does not begin as type information does, or is shorter than it claims.
    Malformed,
    /// A type is of a kind that this version does not know.
    Kind(u32),
    /// The kernel has no such struct or member, or this version does not know its shape.
    Missing(&'static str),
}

impl fmt::Display for BtfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("it is no type information"),
            Self::Kind(kind) => write!(f, "it has a type of the unknown kind {kind}"),
            Self::Missing(name) => write!(f, "it has no {name} that this version can read"),
        }
    }
}

impl core::error::Error for BtfError {}

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const ENUM_64: u32 = 19;
const FUNC: u32 = 12;

/// The types of a kernel.
pub(crate) struct Btf<'a> {
    /// Where each type begins in `bytes`; the index is the type's number less one.
    types: Vec<usize>,
    bytes: &'a [u8],
    strings: &'a [u8],
}

/// A member of a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Offset in bits from the start of the struct.
    pub(crate) bit: u32,
    /// Length in bits, if it is a bit-field; else 0.
    pub(crate) bits: u32,
}

impl<'a> Btf<'a> {
    pub(crate) fn parse(all: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at: usize| word(all, at);
        let half = all.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
        if half != Some(MAGIC) {
            return Err(BtfError::Malformed);
        }
        let header_len = word(4)? as usize;
        let part = |offset: usize, len: usize| {
            let start = header_len.checked_add(word(offset)? as usize);
            let end = start.zip(word(len).ok()).and_then(|(s, len)| s.checked_add(len as usize));
            let range = start.zip(end).map(|(start, end)| start..end);
            range.and_then(|range| all.get(range)).ok_or(BtfError::Malformed)
        };
        let (bytes, strings) = (part(8, 12)?, part(16, 20)?);
        let (mut types, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            types.push(at);
            at += 12 + Self::more(self::word(bytes, at + 4)?)?;
        }
        Ok(Self { types, bytes, strings })
    }

    /// How many bytes follow the twelve with which each type begins.
    fn more(info: u32) -> Result<usize, BtfError> {
        let entries = (info & 0xffff) as usize;
        Ok(match kind(info) {
            // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
            2 | 7..=11 | FUNC | 16 | 18 => 0,
            // Integer, variable, declaration tag.
            1 | 14 | 17 => 4,
            // Array.
            3 => 12,
            // And function prototype.
            ENUM | 13 => entries * 8,
            // And section.
            STRUCT | UNION | 15 | ENUM_64 => entries * 12,
            other => return Err(BtfError::Kind(other)),
        })
    }

    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let name = self.strings.get(offset as usize..)?;
        name.split(|byte| *byte == 0).next()
    }

    fn find(&self, wanted: u32, name: &str) -> Option<usize> {
        self.types.iter().position(|at| {
            word(self.bytes, at + 4).is_ok_and(|info| kind(info) == wanted)
                && word(self.bytes, *at).ok().and_then(|at| self.name(at)) == Some(name.as_bytes())
        })
    }

    /// The number of a function.
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        u32::try_from(self.find(FUNC, name)? + 1).ok()
    }

    /// Whether the kernel has a struct of this name.
    pub(crate) fn has_struct(&self, name: &str) -> bool {
        self.find(STRUCT, name).is_some()
    }

    /// A member of a struct, or of the unnamed structs and unions in it.
    pub(crate) fn member(&self, of: &str, name: &'static str) -> Result<Member, BtfError> {
        let found = self.find(STRUCT, of).and_then(|index| self.member_of(index, name, DEPTH));
        found.ok_or(BtfError::Missing(name))
    }

    fn member_of(&self, index: usize, name: &str, depth: u32) -> Option<Member> {
        let start = *self.types.get(index)?;
        let info = word(self.bytes, start + 4).ok()?;
        if !matches!(kind(info), STRUCT | UNION) {
            return None;
        }
        let has_bitfields = info >> 31 != 0;
        (0..info & 0xffff).find_map(|entry| {
            let at = start + 12 + entry as usize * 12;
            let field = |offset| word(self.bytes, at + offset).ok();
            let (offset, member) = (field(8)?, self.name(field(0)?)?);
            let (bits, bit) =
                if has_bitfields { (offset >> 24, offset & 0x00ff_ffff) } else { (0, offset) };
            if member == name.as_bytes() {
                return Some(Member { bit, bits });
            }
            let inner = (field(4)? as usize).checked_sub(1)?;
            if !member.is_empty() || depth == 0 {
                return None;
            }
            let found = self.member_of(inner, name, depth - 1)?;
            Some(Member { bit: bit + found.bit, ..found })
        })
    }
}

/// Greatest depth of unnamed structs in each other.
const DEPTH: u32 = 8;

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map(|bytes| u32::from_ne_bytes(*bytes)).ok_or(BtfError::Malformed)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::string::String;

    /// Type information that a test makes: its types, and its strings, of which the first is empty.
    pub(crate) struct Made {
        types: Vec<u8>,
        strings: String,
    }

    impl Made {
        pub(crate) fn new() -> Self {
            Self { types: Vec::new(), strings: String::from("\0") }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings += name;
            self.strings.push('\0');
            at
        }

        pub(crate) fn add(&mut self, name: &str, info: u32, more: &[u32]) -> &mut Self {
            let name = self.name(name);
            let words = [name, info, 0].into_iter().chain(more.iter().copied());
            self.types.extend(words.flat_map(u32::to_ne_bytes));
            self
        }

        /// Adds a struct or union. Each member is its name, its type, and the word that says where it lies.
        pub(crate) fn of(
            &mut self,
            name: &str,
            info: u32,
            members: &[(&str, u32, u32)],
        ) -> &mut Self {
            let fields: Vec<u32> = members
                .iter()
                .flat_map(|(name, of, offset)| [self.name(name), *of, *offset])
                .collect();
            self.add(name, info | members.len() as u32, &fields)
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let header = [u32::from(MAGIC) | 1 << 16, 24, 0, types, types, strings];
            let header = header.into_iter().flat_map(u32::to_ne_bytes);
            header.chain(self.types.iter().copied()).chain(self.strings.bytes()).collect()
        }
    }

    pub(crate) const BITFIELDS: u32 = 1 << 31;
    const NUMBER: u32 = 1 << 24;

    fn some() -> Vec<u8> {
        let mut made = Made::new();
        made.add("number", NUMBER, &[32])
            .add("", 3 << 24, &[1, 1, 8])
            .of("", UNION << 24, &[("a", 1, 0), ("", 4, 0)])
            .of("", STRUCT << 24 | BITFIELDS, &[("b", 1, 16), ("c", 1, 2 << 24 | 37)])
            .of("sk_buff", STRUCT << 24, &[("first", 1, 0), ("named", 4, 32), ("", 3, 64)])
            .add("of_kernel", FUNC << 24, &[]);
        made.bytes()
    }

    #[test]
    fn members_are_found_where_they_lie() {
        let bytes = some();
        let btf = Btf::parse(&bytes).unwrap();
        let member = |name| btf.member("sk_buff", name);
        assert_eq!(member("first"), Ok(Member { bit: 0, bits: 0 }));
        assert_eq!(member("a"), Ok(Member { bit: 64, bits: 0 }));
        assert_eq!(member("b"), Ok(Member { bit: 64 + 16, bits: 0 }));
        assert_eq!(member("c"), Ok(Member { bit: 64 + 37, bits: 2 }));
        assert_eq!(member("number"), Err(BtfError::Missing("number")), "a type is no member");
        assert_eq!(btf.member("other", "first"), Err(BtfError::Missing("first")));
        assert_eq!(btf.function("of_kernel"), Some(6));
        assert_eq!(btf.function("sk_buff"), None, "a struct is no function");
        assert!(btf.has_struct("sk_buff"));
        assert!(!btf.has_struct("of_kernel"), "a function is no struct");
    }

    #[test]
    fn what_can_t_be_read_is_refused() {
        let bytes = some();
        assert_eq!(Btf::parse(&[]).err(), Some(BtfError::Malformed));
        assert_eq!(Btf::parse(&bytes[1..]).err(), Some(BtfError::Malformed));
        assert_eq!(Btf::parse(&bytes[..bytes.len() - 1]).err(), Some(BtfError::Malformed));
        let unknown = Made::new().add("later", 31 << 24, &[]).bytes();
        assert_eq!(Btf::parse(&unknown).err(), Some(BtfError::Kind(31)));
    }
}
