//! What user space has said about the kernel that runs the programs, and the kernel's own view of a packet.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::TcContext};
use core::{ffi::c_void, mem};
use overlay_common::{CAST_PLACEHOLDER, SkbLayout};

/// User space writes it before the programs are loaded, and they see it as a constant.
#[unsafe(no_mangle)]
pub static SKB_LAYOUT: SkbLayout = SkbLayout::UNKNOWN;

/// A field of [`SKB_LAYOUT`], as user space has set it: the compiler must not know the value that it has here.
macro_rules! layout {
    ($field:ident) => {
        // SAFETY: the variable lives as long as the program.
        unsafe { (&raw const $crate::kernel::SKB_LAYOUT.$field).read_volatile() }
    };
}
pub(crate) use layout;

/// The field of the kernel's own `struct sk_buff` that lies `offset` bytes from its start. `None`: it cannot be read.
#[inline(always)]
pub fn field<T: Copy>(ctx: &TcContext, offset: u32) -> Option<T> {
    let at = offset as usize;
    if layout!(is_typed) == 0 {
        let skb = ctx.skb.skb.cast_const().cast::<u8>();
        // SAFETY: the helper refuses what is no address.
        return unsafe { bpf_probe_read_kernel(skb.wrapping_add(at).cast::<T>()) }.ok();
    }
    // SAFETY: the context is valid while the program runs, and is the kernel's own type's; a field of that type, by
    // its offset.
    Some(unsafe { kernels_own(ctx.skb.skb.cast()).add(at).cast::<T>().read_volatile() })
}

/// The kernel's own `struct sk_buff` of a program's context: `bpf_cast_to_kern_ctx`, which user space puts in
/// the place of a helper that does not exist.
///
/// # Safety
/// User space has done so.
#[inline(always)]
pub unsafe fn kernels_own(ctx: *mut c_void) -> *const u8 {
    // SAFETY: how a helper is called; the kernel's function takes and returns the same.
    unsafe {
        let cast: extern "C" fn(*mut c_void) -> *const u8 =
            mem::transmute(CAST_PLACEHOLDER as usize);
        cast(ctx)
    }
}
