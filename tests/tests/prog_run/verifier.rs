//! What the verifier thinks of the programs.

use overlay_common::Direction;

use super::bench::{GUARDS, OBJECT, on_bench};

/// The kernel gives up at a million; a quarter leaves room for kernels that prune less.
const BOUND: u32 = 250_000;

#[test]
fn the_verifier_is_done_in_good_time() {
    on_bench(|bench| {
        for guard in GUARDS {
            bench.guard(guard).load().expect("the verifier takes the program");
        }
        for direction in Direction::ALL {
            let info = match direction {
                Direction::GuardUnderlay => bench.guard(GUARDS[0]).info(),
                _ => bench.program(direction).info(),
            };
            let info = info.expect("a loaded program has info");
            // None before Linux 5.16.
            let Some(count) = info.verified_instruction_count() else { continue };
            println!("{}: {count} instructions verified", direction.name());
            assert!(count <= BOUND, "{}: {count} > {BOUND}", direction.name());
        }
    });
}

/// All that is proved of the programs here is of those that are released.
#[test]
fn the_released_programs_log_nothing() {
    assert!(!OBJECT.windows(7).any(|name| name == b"AYA_LOG"), "they have a log's map or level");
}
