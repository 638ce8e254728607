//! A flood of frames from one CPU, as many as the CPU can send, or a given number per second.
#![expect(
    unsafe_code,
    reason = "packet sockets, and many packets in one call: no safe wrapper has them"
)]

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    errno::Errno,
    libc,
    sched::{CpuSet, sched_setaffinity},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::Pid,
};

use super::netns::Netns;

/// Frames for each system call.
const BATCH: usize = 64;

/// A running flood, which ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sent>>>,
}

/// The result of a flood.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Number of frames that the device accepted.
    pub frames: u64,
    /// Duration of the flood.
    pub time: Duration,
}

impl Flood {
    /// Sends `frames` in turn out of a device, from the given CPU, past the device's queueing discipline.
    /// `rate` is in frames per second; `None` means as many as possible.
    pub fn start(
        netns: &Netns,
        device: &str,
        frames: Vec<Vec<u8>>,
        cpu: usize,
        rate: Option<u32>,
    ) -> Result<Self> {
        ensure!(!frames.is_empty(), "a flood of nothing");
        let socket = netns.enter(|| open(device))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut cpus = CpuSet::new();
            cpus.set(cpu)?;
            sched_setaffinity(Pid::from_raw(0), &cpus)?;
            send_until(&told, &socket, &frames, rate)
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the flood, and returns its result.
    pub fn stop(mut self) -> Result<Sent> {
        self.end()
    }

    fn end(&mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended already")?;
        thread.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if self.thread.is_some() {
            drop(self.end());
        }
    }
}

fn open(device: &str) -> Result<OwnedFd> {
    let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
    // Without a protocol the socket receives nothing.
    let socket = socket(AddressFamily::Packet, kind, flags, None)?;
    let bypass: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const bypass).cast(),
            size_of_val(&bypass) as libc::socklen_t,
        )
    };
    Errno::result(set).context("past the queueing discipline")?;
    // SAFETY: all zeros is a value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = i32::try_from(nix::net::if_::if_nametoindex(device)?)?;
    // SAFETY: the address is valid for the length given.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    Errno::result(bound).with_context(|| format!("bound to {device}"))?;
    Ok(socket)
}

fn send_until(
    stop: &AtomicBool,
    socket: &OwnedFd,
    frames: &[Vec<u8>],
    rate: Option<u32>,
) -> Result<Sent> {
    let mut parts: Vec<libc::iovec> = frames
        .iter()
        .cycle()
        .take(BATCH)
        .map(|frame| libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        })
        .collect();
    let mut batch: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all zeros is a value of this plain C structure.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let interval = rate.map(|rate| Duration::from_secs_f64(BATCH as f64 / f64::from(rate)));
    let begun = Instant::now();
    let (mut sent, mut next) = (0, begun);
    while !stop.load(Ordering::Relaxed) {
        if let Some(interval) = interval {
            let now = Instant::now();
            if now < next {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "it keeps the rate that was asked for"
                )]
                thread::sleep(next - now);
                continue;
            }
            // Frames that could not be sent in time are not sent later.
            next = (next + interval).max(now - interval);
        }
        // SAFETY: each message has one part, a frame that outlives the call and is only read.
        let taken = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), batch.len() as libc::c_uint, 0)
        };
        match Errno::result(taken) {
            Ok(taken) => sent += u64::try_from(taken)?,
            // The device's queue is full, or the device is down for a moment: the frames are lost, as on a
            // wire.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(error) => return Err(error).context("cannot send a batch of frames"),
        }
    }
    Ok(Sent { frames: sent, time: begun.elapsed() })
}
