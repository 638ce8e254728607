//! What user space has said about the kernel that runs the programs.

use overlay_common::SkbLayout;

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
