//! XDP programs of two or four instructions, as somebody inside a namespace may load them.
#![expect(unsafe_code, reason = "the system call bpf: no safe wrapper loads single instructions")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, ensure};
use nix::{libc, net::if_::if_nametoindex};

use super::netns::Netns;

/// linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u64 = 6;
const BPF_XDP: u64 = 37;
const XDP_TX: u64 = 3;
const BPF_REDIRECT: u64 = 23;
/// Instructions, by the opcode alone.
const MOVE: u64 = 0xb7;
const CALL: u64 = 0x85;
const EXIT: u64 = 0x95;
/// linux/if_link.h: `XDP_FLAGS_SKB_MODE`, `XDP_FLAGS_DRV_MODE`.
const IN_STACK: u64 = 1 << 1;
const IN_DRIVER: u64 = 1 << 2;

/// What becomes of each frame that the device receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling<'a> {
    /// It goes back, unchanged, out of the device that it came by.
    SentBack,
    /// It leaves by this device.
    Redirected(&'a str),
}

/// A program on a device, until it is dropped.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

impl Attached {
    /// Attaches a program inside a namespace: in the device's driver, or in the stack.
    pub fn new(
        netns: &Netns,
        device: &str,
        handling: Handling<'_>,
        in_driver: bool,
    ) -> Result<Self> {
        netns.enter(|| {
            let program = load(&instructions(handling)?)?;
            let index = u64::from(if_nametoindex(device)?);
            let flags = if in_driver { IN_DRIVER } else { IN_STACK };
            let program = u64::try_from(program.as_raw_fd())?;
            let link = bpf(BPF_LINK_CREATE, &[program | index << 32, BPF_XDP | flags << 32])
                .with_context(|| format!("to attach it to {device}"))?;
            Ok(Self { _link: link })
        })
    }
}

/// An instruction that sets a register, or has only a number.
fn instruction(opcode: u64, register: u64, number: u64) -> u64 {
    opcode | register << 8 | number << 32
}

fn instructions(handling: Handling<'_>) -> Result<Vec<u64>> {
    Ok(match handling {
        Handling::SentBack => vec![instruction(MOVE, 0, XDP_TX), instruction(EXIT, 0, 0)],
        Handling::Redirected(device) => vec![
            instruction(MOVE, 1, if_nametoindex(device)?.into()),
            instruction(MOVE, 2, 0),
            instruction(CALL, 0, BPF_REDIRECT),
            instruction(EXIT, 0, 0),
        ],
    })
}

fn load(instructions: &[u64]) -> Result<OwnedFd> {
    let count = u64::try_from(instructions.len())?;
    let licence = c"GPL".as_ptr() as u64;
    let start = instructions.as_ptr() as u64;
    bpf(BPF_PROG_LOAD, &[BPF_PROG_TYPE_XDP | count << 32, start, licence]).context("to load it")
}

fn bpf(command: libc::c_long, start: &[u64]) -> Result<OwnedFd> {
    let mut attributes = [0; 16];
    attributes[..start.len()].copy_from_slice(start);
    let size = size_of_val(&attributes);
    // SAFETY: the attributes are as long as is said; what they point to lives in the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size) };
    ensure!(result >= 0, "bpf: {}", io::Error::last_os_error());
    // SAFETY: both commands return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(result)?) })
}
