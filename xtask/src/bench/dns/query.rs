//! Encodes DNS questions and checks answers (RFC 1035), as far as the benchmark needs it.

use anyhow::{Context as _, Result, bail};

const HEADER: usize = 12;
const RECURSION_DESIRED: u8 = 0x01;
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const RCODE_MASK: u8 = 0x0f;
const CLASS_IN: u16 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    A,
    Ptr,
}

/// The response code of the right answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rcode {
    NoError,
    NxDomain,
}

/// A question, encoded except for its id, and the response code of the right answer.
#[derive(Clone)]
pub(super) struct Query {
    name: String,
    record_type: Type,
    rcode: Rcode,
    bytes: Vec<u8>,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Ptr => "PTR",
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ptr => 12,
        }
    }
}

impl Query {
    /// A question that has an answer.
    pub(super) fn new(name: &str, record_type: Type) -> Result<Self> {
        let bytes = encode(name, record_type)?;
        Ok(Self { name: name.to_owned(), record_type, rcode: Rcode::NoError, bytes })
    }

    /// A question for the address of a name that does not exist.
    pub(super) fn nobody(name: &str) -> Result<Self> {
        Ok(Self { rcode: Rcode::NxDomain, ..Self::new(name, Type::A)? })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn record_type(&self) -> Type {
        self.record_type
    }

    pub(super) fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// The message with this id.
    pub(super) fn message(&self, id: u16) -> Vec<u8> {
        let mut message = self.bytes.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        message
    }

    /// The id of a right answer; an error if the answer is wrong.
    pub(super) fn check(&self, answer: &[u8]) -> Result<u16> {
        let header = answer.get(..HEADER).context("no header")?;
        let (flags, code) = (header[2], header[3] & RCODE_MASK);
        if flags & RESPONSE == 0 || flags & TRUNCATED != 0 {
            bail!("no whole answer: flags {flags:#04x}");
        }
        let answers = u16::from_be_bytes([header[6], header[7]]);
        let right = match self.rcode {
            Rcode::NoError => code == 0 && answers > 0,
            Rcode::NxDomain => code == 3 && answers == 0,
        };
        if !right {
            bail!("{}: rcode {code}, {answers} answers", self.name);
        }
        Ok(u16::from_be_bytes([header[0], header[1]]))
    }
}

/// RFC 1035, section 4.1: a header and one question.
fn encode(name: &str, record_type: Type) -> Result<Vec<u8>> {
    let mut bytes = vec![0, 0, RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        bytes.push(length.with_context(|| format!("{name}: no label of 1 to 63 octets"))?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&record_type.number().to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_as_in_the_rfc() {
        let query = Query::new("web2.myoverlay", Type::Ptr).unwrap();
        let bytes = query.message(0x1234);
        assert_eq!(bytes[..HEADER], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[HEADER..], *b"\x04web2\x09myoverlay\x00\x00\x0c\x00\x01");
        assert!(Query::new("", Type::A).is_err());
        assert!(Query::new(&"x".repeat(64), Type::A).is_err());
    }

    #[test]
    fn only_the_right_answer_counts() {
        let (known, nobody) =
            (Query::new("web2", Type::A).unwrap(), Query::nobody("web9").unwrap());
        let answer = |flags: u8, code: u8, answers: u8| {
            [0x12, 0x34, flags, code, 0, 1, 0, answers, 0, 0, 0, 0]
        };
        assert_eq!(known.check(&answer(0x81, 0x80, 1)).unwrap(), 0x1234);
        assert_eq!(nobody.check(&answer(0x81, 0x83, 0)).unwrap(), 0x1234);
        assert!(known.check(&answer(0x81, 0x82, 0)).is_err(), "SERVFAIL");
        assert!(known.check(&answer(0x81, 0x80, 0)).is_err(), "no record");
        assert!(known.check(&answer(0x83, 0x80, 1)).is_err(), "truncated");
        assert!(known.check(&answer(0x01, 0x00, 1)).is_err(), "a question");
        assert!(nobody.check(&answer(0x81, 0x80, 1)).is_err());
        assert!(known.check(b"short").is_err());
    }
}
