//! The rungs of the ladder, and the number of tests that must pass in each.

/// One rung. All rungs are built by the same command, so that their common parts are built once.
pub(super) struct Rung {
    pub(super) name: &'static str,
    /// The tests of this rung, as one of nextest's filtersets.
    pub(super) filterset: &'static str,
    /// The least number of tests that must pass here if all run. A commit that removes a test lowers the
    /// number and gives the reason.
    pub(super) floor: u64,
    /// The rung under other kernels, if it runs there.
    pub(super) elsewhere: Option<Elsewhere>,
}

/// A rung under other kernels.
pub(super) struct Elsewhere {
    /// The name of the rung's binary in nextest.
    pub(super) binary: &'static str,
    pub(super) short: &'static str,
    /// The least number of tests that must pass if all run that use the kernel, and below, if only the chosen
    /// ones run.
    pub(super) floor: u64,
    pub(super) floor_of_chosen: u64,
}

/// The arguments of the build that all rungs share.
pub(super) const BUILT: [&str; 4] = ["--locked", "--workspace", "--exclude", "overlay-ebpf"];

pub(super) const FAST: &[Rung] = &[
    Rung {
        name: "unit and property tests: no root, no kernel",
        filterset: "not (package(overlay-tests) | binary_id(overlay-ctl::kernel) \
                    | binary_id(overlay-ctl::api))",
        floor: 1140,
        elsewhere: None,
    },
    Rung {
        name: "the API: a real node, called and scraped",
        filterset: "binary_id(overlay-ctl::api)",
        floor: 44,
        elsewhere: None,
    },
    Rung {
        name: "the doors: one door, the real kernel",
        filterset: "binary_id(overlay-ctl::kernel)",
        floor: 166,
        elsewhere: None,
    },
    Rung {
        name: "the programs: bytes in, bytes and maps out",
        filterset: "binary_id(overlay-tests::prog_run)",
        floor: 99,
        elsewhere: Some(Elsewhere {
            binary: "overlay-tests::prog_run",
            short: "the programs",
            floor: 98,
            floor_of_chosen: 98,
        }),
    },
];

pub(super) const LAB: Rung = Rung {
    name: "the lab: hosts, routers, containers, real nodes",
    filterset: "binary_id(overlay-tests::lab) & not test(/^upgrade::/)",
    floor: 226,
    elsewhere: Some(Elsewhere {
        binary: "overlay-tests::lab",
        short: "the lab",
        floor: 70,
        floor_of_chosen: 10,
    }),
};

/// Scenarios of the lab that need an earlier program, which `cargo xtask upgrade` builds.
pub(super) const UPGRADE: Rung = Rung {
    name: "upgrades: nodes of two programs in one cluster",
    filterset: "binary_id(overlay-tests::lab) & test(/^upgrade::/)",
    floor: 3,
    elsewhere: None,
};
