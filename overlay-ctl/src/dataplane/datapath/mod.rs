//! The only door to BPF: loading, pinning, attaching, and typed views of the maps.
//!
//! Invariants:
//! - Maps and attachments live below one folder on a BPF file system, not in this process: when the process dies,
//!   packets flow on.
//! - The next process reuses the maps as they are, and replaces each program atomically.
//! - If the pinned maps are of another layout, the programs that use them stay until new maps are filled beside
//!   them (see `layout`). So a device that has a program never is without one.
//! - Nothing that is not below that folder is ever detached or removed.

mod attach;
mod batch;
mod error;
mod events;
mod guard;
mod host;
mod layout;
mod load;
#[cfg(debug_assertions)]
mod log;
mod maps;
mod place;
mod programs;
mod reader;
mod swap;
mod table;
mod tables;
mod traffic;
mod uplinks;
mod whereabouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use aya::{Ebpf, programs::ProgramError};
use overlay_common::{
    CONFIG_FLOWS, CONFIG_MONITOR, CONFIG_SHARED, Config, Counter, Direction, DropReason,
};

pub use attach::Hook;
pub use batch::Cursor;
pub use error::DatapathError;
pub use events::Events;
pub use guard::Guard;
pub use layout::maps_folder;
pub use place::GuardMode;
pub use programs::{ProgramStatus, find_devices, run_time_is_counted};
pub use reader::TableReader;
pub use table::MapUsage;
pub use whereabouts::Whereabouts;

use layout::Folders;
use load::program;
use maps::Maps;
use place::{Place, Role};
use uplinks::Uplinks;

use crate::dataplane::kernel::{Program, TableChange, Uplink};

/// What the data plane must know when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatapathConfig {
    /// This node's folder on a BPF file system, for example /sys/fs/bpf/overlay.
    pub bpffs: PathBuf,
    /// The device that carries the VTEP's address; its index is in `config`, too.
    pub underlay: Uplink,
    /// The configuration that the programs read.
    pub config: Config,
}

/// Of which packets the programs write records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// Of none.
    None,
    /// Of each that is dropped.
    Drops,
    /// Of each that is dropped, and of one in so many that are forwarded.
    Flows(NonZeroU32),
}

/// The loaded programs and their maps.
///
/// Dropping this value changes nothing: attached programs stay attached.
pub struct Datapath {
    folders: Folders,
    programs: Ebpf,
    maps: Maps,
    reader: TableReader,
    config: Config,
    hook: Hook,
    attached: BTreeMap<Program, BTreeSet<u32>>,
    guard: Guard,
    uplinks: Uplinks,
    /// Programs of another layout are attached, and stay until [`Datapath::swap_programs`].
    is_swap_due: bool,
    events_taken: Arc<AtomicBool>,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath")
            .field("bpffs", &self.folders.root)
            .field("hook", &self.hook)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

impl Datapath {
    /// Loads the programs over the pinned maps, or over new ones, and writes CONFIG. Then replaces the programs of
    /// earlier processes wherever they are attached, and attaches to the underlay, by TCX if the kernel has it, or
    /// by clsact. Other uplinks that have a program keep it until [`Datapath::set_uplinks`]. Blocks for as long as the verifier takes.
    ///
    /// If attached programs use maps of another layout, they are not replaced yet: see
    /// [`Datapath::is_swap_due`].
    ///
    /// # Errors
    /// [`DatapathError`]; what was attached before is still attached.
    pub fn open(config: DatapathConfig) -> Result<Self, DatapathError> {
        let hook = Hook::probe(&config.underlay.name);
        Self::open_on(config, hook)
    }

    /// Checks what [`Datapath::open`] needs: the process may use BPF, and `bpffs` is on a BPF file system. Makes
    /// nothing.
    ///
    /// # Errors
    /// [`DatapathError::NotRoot`], [`DatapathError::NoBpffs`].
    pub fn check(bpffs: &Path) -> Result<(), DatapathError> {
        host::check_capabilities()?;
        host::check_bpffs(bpffs)
    }

    /// As [`Datapath::open`], with the hook chosen by the caller.
    ///
    /// # Errors
    /// As [`Datapath::open`].
    pub fn open_on(config: DatapathConfig, hook: Hook) -> Result<Self, DatapathError> {
        let DatapathConfig { bpffs, underlay, mut config } = config;
        host::check_capabilities()?;
        let folders = Folders::new(&bpffs);
        folders.create()?;
        let is_swap_due = folders.prepare()?;
        let mut programs = load::load(&folders)?;
        let mut maps = Maps::take(&mut programs)?;
        // Before any program that reads it runs. Whether the port is shared can't be seen while the node's own socket
        // is open, so an earlier process' finding stands.
        config.flags |= maps.config()?.flags & CONFIG_SHARED;
        maps.set_config(&config)?;
        let events_taken = Arc::default();
        let mut datapath = Self {
            reader: TableReader::new(maps.tables.clone()),
            folders,
            programs,
            maps,
            config,
            hook,
            attached: BTreeMap::new(),
            guard: Guard::default(),
            uplinks: Uplinks::new(underlay),
            is_swap_due,
            events_taken,
        };
        datapath.take_over()?;
        if is_swap_due {
            tracing::info!("the programs of another version stay until new maps are filled");
        } else {
            datapath.folders.end_swap()?;
        }
        Ok(datapath)
    }

    /// A reader of the tables, which needs no lock on this value.
    #[must_use]
    pub fn reader(&self) -> TableReader {
        self.reader.clone()
    }

    /// Makes the changes in their order, each atomic for the programs. Putting replaces an entry; deleting what is
    /// not there is no error. The changes before one that fails are made.
    ///
    /// # Errors
    /// [`DatapathError::TableFull`], [`DatapathError::Table`].
    pub fn write(&mut self, changes: &[TableChange]) -> Result<(), DatapathError> {
        self.maps.tables.write(changes)
    }

    /// Adds what was counted in these slots of TRAFFIC to what the node forwarded, and empties the slots. No entry
    /// may name them any more.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn free_slots(&mut self, slots: &BTreeSet<u32>) -> Result<(), DatapathError> {
        self.maps.free_slots(slots)
    }

    /// Attaches a program to the host's side of a device. If it is attached already, it is replaced by this process'
    /// own, except while a swap is due.
    ///
    /// # Errors
    /// [`DatapathError::NoDevice`], [`DatapathError::Attach`].
    pub fn attach(
        &mut self,
        program: Program,
        ifname: &str,
        ifindex: u32,
    ) -> Result<(), DatapathError> {
        self.ensure(Place { role: Role::of(program), ifindex }, ifname)?;
        self.note_attached(program, ifindex);
        Ok(())
    }

    /// Detaches a program. No error if it is not attached, or if the device is gone. A gateway leg without its program
    /// is open to its neighbours: take the leg off the bridge first, or set it down.
    ///
    /// # Errors
    /// [`DatapathError::Attach`], [`DatapathError::Folder`].
    pub fn detach(&mut self, program: Program, ifindex: u32) -> Result<(), DatapathError> {
        attach::detach(&self.folders.links, Place { role: Role::of(program), ifindex })?;
        self.attached.entry(program).or_default().remove(&ifindex);
        Ok(())
    }

    /// The host-side devices that have the program, found at [`Datapath::open`] or attached since. A device that is gone
    /// is among them until its program is detached.
    #[must_use]
    pub fn attached(&self, program: Program) -> BTreeSet<u32> {
        self.attached.get(&program).cloned().unwrap_or_default()
    }

    fn note_attached(&mut self, program: Program, ifindex: u32) {
        self.attached.entry(program).or_default().insert(ifindex);
    }

    /// The counters of forwarded packets (`None`) and of drops, summed over the CPUs, since the maps were made.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn counters(&self) -> Result<Vec<(Option<DropReason>, Direction, Counter)>, DatapathError> {
        self.maps.counters()
    }

    /// Chooses the packets of which the programs write records.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn listen(&mut self, to: Listening) -> Result<(), DatapathError> {
        let (flags, sample) = match to {
            Listening::None => (0, 0),
            Listening::Drops => (CONFIG_MONITOR, 0),
            Listening::Flows(sample) => (CONFIG_MONITOR | CONFIG_FLOWS, sample.get()),
        };
        self.config.flags = self.config.flags & !(CONFIG_MONITOR | CONFIG_FLOWS) | flags;
        self.config.sample = sample;
        self.maps.set_config(&self.config)
    }

    /// Lets VXLAN that is not of this overlay go up the stack from now on, for another program that receives VXLAN on
    /// the same UDP port. It stays so, also for later processes, until the maps are gone.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn share_port(&mut self) -> Result<(), DatapathError> {
        self.config.flags |= CONFIG_SHARED;
        self.maps.set_config(&self.config)
    }

    /// Returns true if VXLAN that is not of this overlay goes up the stack.
    #[must_use]
    pub fn shares_port(&self) -> bool {
        self.config.flags & CONFIG_SHARED != 0
    }

    /// The reader of the records of packets; [`Datapath::listen`] makes the programs write them. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`DatapathError::EventsTaken`] while there is another reader.
    pub fn events(&self) -> Result<Events, DatapathError> {
        Events::open(&self.folders.maps, &self.events_taken)
    }

    /// Look-ups of single entries, which need no lock on this value.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn whereabouts(&self) -> Result<Whereabouts, DatapathError> {
        Whereabouts::open(&self.folders.maps)
    }

    /// What the kernel tells about the programs.
    ///
    /// # Errors
    /// [`DatapathError::Program`].
    pub fn programs(&self) -> Result<Vec<ProgramStatus>, DatapathError> {
        let mut statuses = Vec::new();
        for (name, program) in self.programs.programs() {
            let Some(role) = Role::ALL.into_iter().find(|role| role.program() == name) else {
                continue;
            };
            let name = role.program();
            let info = match program.info() {
                // The guard, if it does not run.
                Err(ProgramError::NotLoaded) => continue,
                info => info.map_err(|source| DatapathError::Program {
                    program: name,
                    source: Box::new(source),
                })?,
            };
            statuses.push(ProgramStatus::new(name, &info));
        }
        statuses.sort_unstable_by_key(|status| status.name);
        Ok(statuses)
    }

    /// How the programs are attached.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Detaches and removes everything of ours below a node's folder, and the folder if nothing else is in it. No
    /// error if there is nothing.
    ///
    /// # Errors
    /// [`DatapathError`]; everything that could be removed is removed.
    pub fn remove_all(bpffs: &Path) -> Result<(), DatapathError> {
        let folders = Folders::new(bpffs);
        let mut outcome = Ok(());
        for place in attach::places(&folders.links)? {
            outcome = outcome.and(attach::detach(&folders.links, place));
        }
        // The maps are removed even if a program could not be detached.
        let removed = folders.remove_all();
        outcome.and(removed)
    }

    /// Makes sure that this process' program is on the device or, while a swap is due, that some program is.
    fn ensure(&mut self, place: Place, ifname: &str) -> Result<(), DatapathError> {
        if self.is_swap_due {
            let program = program(&mut self.programs, place.role)?;
            return attach::hold(&self.folders.links, program, place, ifname, self.hook);
        }
        if self.replace(place)? {
            return Ok(());
        }
        let program = program(&mut self.programs, place.role)?;
        attach::attach(&self.folders.links, program, place, ifname, self.hook)
    }

    fn replace(&mut self, place: Place) -> Result<bool, DatapathError> {
        let program = program(&mut self.programs, place.role)?;
        attach::replace(&self.folders.links, program, place)
    }
}

// They are moved to a task, which the runtime runs on any thread.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Datapath>();
    is_send::<Events>();
};
