//! What each program decided, packet by packet, for the controller's own log. Debug builds of it have this
//! (the feature `log`), and the level is theirs: it is set when the programs are loaded.

use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use overlay_common::Direction;

/// `reason` 0: it was forwarded.
#[inline(always)]
pub fn decided(ctx: &TcContext, direction: Direction, len: u32, vni: u32, reason: u32) {
    match direction {
        Direction::FromEndpoint => {
            write::<{ Direction::FromEndpoint as u32 }>(ctx, len, vni, reason)
        }
        Direction::FromUnderlay => {
            write::<{ Direction::FromUnderlay as u32 }>(ctx, len, vni, reason)
        }
        Direction::FromGateway => write::<{ Direction::FromGateway as u32 }>(ctx, len, vni, reason),
        // Another kind of program, which counts its drops and has no other decisions to tell.
        Direction::GuardUnderlay => {}
    }
}

/// One function a direction, so that its name is a constant: a table of names would be a table of
/// pointers, which no loader fills in.
#[cold]
#[inline(never)]
fn write<const DIRECTION: u32>(ctx: &TcContext, len: u32, vni: u32, reason: u32) {
    let name = const { Direction::ALL[DIRECTION as usize].name() };
    if reason == 0 {
        debug!(ctx, "{} forwarded {} bytes, VNI {}", name, len, vni);
    } else {
        debug!(ctx, "{} dropped {} bytes, VNI {}, drop reason {}", name, len, vni, reason);
    }
}
