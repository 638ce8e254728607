//! The rungs of the ladder, and how many tests each must pass.

/// One rung. All are built by the same command, so that what they share is built once.
pub(super) struct Rung {
    pub(super) name: &'static str,
    /// Which tests of the workspace it is, as nextest's filtersets say.
    pub(super) filterset: &'static str,
    /// At least so many pass here where all of them run. A test that goes takes one off, and says so in a
    /// commit.
    pub(super) floor: u64,
    /// Where other kernels meet it too.
    pub(super) elsewhere: Option<Elsewhere>,
}

/// A rung under other kernels.
pub(super) struct Elsewhere {
    /// Its binary, as nextest names it.
    pub(super) binary: &'static str,
    pub(super) short: &'static str,
    /// At least so many pass where all run that meet the kernel, and where some are chosen.
    pub(super) floor: u64,
    pub(super) floor_of_chosen: u64,
}

/// What is built for all of them.
pub(super) const BUILT: [&str; 4] = ["--locked", "--workspace", "--exclude", "overlay-ebpf"];

pub(super) const FAST: &[Rung] = &[
    Rung {
        name: "unit and property tests: no root, no kernel",
        filterset: "not (package(overlay-tests) | binary_id(overlay-ctl::kernel) \
                    | binary_id(overlay-ctl::api))",
        floor: 458,
        elsewhere: None,
    },
    Rung {
        name: "the API: a real node, called and scraped",
        filterset: "binary_id(overlay-ctl::api)",
        floor: 34,
        elsewhere: None,
    },
    Rung {
        name: "the doors: one door, the real kernel",
        filterset: "binary_id(overlay-ctl::kernel)",
        floor: 117,
        elsewhere: None,
    },
    Rung {
        name: "the programs: bytes in, bytes and maps out",
        filterset: "binary_id(overlay-tests::prog_run)",
        floor: 78,
        elsewhere: Some(Elsewhere {
            binary: "overlay-tests::prog_run",
            short: "the programs",
            floor: 78,
            floor_of_chosen: 78,
        }),
    },
];

pub(super) const LAB: Rung = Rung {
    name: "the lab: hosts, routers, containers, real nodes",
    filterset: "binary_id(overlay-tests::lab)",
    floor: 128,
    elsewhere: Some(Elsewhere {
        binary: "overlay-tests::lab",
        short: "the lab",
        floor: 70,
        floor_of_chosen: 10,
    }),
};
