//! Logs each program's decision, packet by packet, to the controller's own log. Only debug builds of the
//! controller have this (the feature `log`); they set the level when they load the programs.

use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use overlay_common::{Direction, FORWARDED};

/// Logs one decision; `reason` is [`FORWARDED`] or the number of a drop reason.
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
        // At XDP: it only counts its drops.
        Direction::GuardUnderlay => {}
    }
}

/// One function a direction, so that its name is a constant: a table of names would be a table of
/// pointers, which no loader fills in.
#[cold]
#[inline(never)]
fn write<const DIRECTION: u32>(ctx: &TcContext, len: u32, vni: u32, reason: u32) {
    let name = const { Direction::ALL[DIRECTION as usize].name() };
    if reason == FORWARDED {
        debug!(ctx, "{} forwarded {} bytes, VNI {}", name, len, vni);
    } else {
        debug!(ctx, "{} dropped {} bytes, VNI {}, drop reason {}", name, len, vni, reason);
    }
}
