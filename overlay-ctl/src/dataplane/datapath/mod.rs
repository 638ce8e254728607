//! The only door to BPF: loading, pinning, attaching, and typed views of the maps.
//!
//! Invariants:
//! - Maps and attachments live below one folder on a BPF file system, not in this process: when it
//!   dies, however it dies, packets flow on.
//! - A process that comes after it reuses the maps as they are and replaces each program atomically.
//! - Nothing that is not below that folder is ever detached or removed.

mod attach;
mod batch;
mod error;
mod events;
mod guard;
mod host;
#[cfg(debug_assertions)]
mod log;
mod maps;
mod programs;
mod reader;
mod table;
mod traffic;
mod whereabouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SchedClassifier},
};
use overlay_common::{
    CONFIG_FLOWS, CONFIG_MONITOR, Config, Counter, Direction, DropReason, KERNEL_BTF, Prepared,
    SKB_LAYOUT,
};

pub use attach::Hook;
pub use batch::Cursor;
pub use error::DatapathError;
pub use events::Events;
pub use guard::{Guard, GuardMode};
pub use maps::MapUsage;
pub use programs::{ProgramStatus, find_devices, run_time_is_counted};
pub use reader::TableReader;
pub use whereabouts::Whereabouts;

use attach::{Place, Role};
use host::Folders;
use maps::Maps;

use crate::dataplane::kernel::{Program, TableChange};

/// The programs, as the build left them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("OVERLAY_EBPF_OBJECT"));

/// What a data plane needs to know at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatapathConfig {
    /// This node's folder on a BPF file system, as /sys/fs/bpf/overlay.
    pub bpffs: PathBuf,
    /// Name of the underlay device; its index is in `config`.
    pub underlay: String,
    /// What the programs read.
    pub config: Config,
}

/// What the programs tell of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// Nothing.
    None,
    /// Each drop.
    Drops,
    /// Each drop, and one in so many forwarded packets.
    Flows(NonZeroU32),
}

/// The loaded programs and their maps.
///
/// Dropping it changes nothing: attached programs stay attached.
pub struct Datapath {
    folders: Folders,
    programs: Ebpf,
    maps: Maps,
    reader: TableReader,
    config: Config,
    hook: Hook,
    attached: BTreeMap<Program, BTreeSet<u32>>,
    guard: Guard,
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
    /// Loads the programs over the maps that are pinned (or makes these), writes CONFIG, replaces the
    /// programs of earlier processes wherever they are attached, and attaches to the underlay. Whether
    /// by TCX or by clsact is found by asking the kernel. Blocks for as long as the verifier takes.
    ///
    /// # Errors
    /// [`DatapathError`]; what was attached before is attached still.
    pub fn open(config: DatapathConfig) -> Result<Self, DatapathError> {
        let hook = Hook::probe(&config.underlay);
        Self::open_on(config, hook)
    }

    /// Whether [`Datapath::open`] may work at all: the process may use BPF and `bpffs` is on a BPF file
    /// system. Makes nothing.
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
        let DatapathConfig { bpffs, underlay, config } = config;
        host::check_capabilities()?;
        let folders = Folders::new(&bpffs);
        folders.create()?;
        maps::check_shapes(&folders)?;
        let mut programs = load(&folders)?;
        let mut maps = Maps::take(&mut programs)?;
        // Before any program that reads it runs.
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
            events_taken,
        };
        datapath.take_over(&underlay)?;
        Ok(datapath)
    }

    fn take_over(&mut self, underlay: &str) -> Result<(), DatapathError> {
        let wanted = Place { role: Role::Underlay, ifindex: self.config.underlay_ifindex };
        for place in attach::places(&self.folders.links)? {
            // The guard has its own way, since its mode may have to change.
            if matches!(place.role, Role::Guard(_)) || !self.replace(place)? {
                continue;
            }
            match place.role {
                Role::Underlay | Role::Guard(_) => {}
                Role::Endpoint => self.note_attached(Program::FromEndpoint, place.ifindex),
                Role::Gateway => self.note_attached(Program::FromGateway, place.ifindex),
            }
        }
        self.ensure(wanted, underlay)?;
        // The old underlay last, so that there is one at every moment.
        for place in attach::places(&self.folders.links)? {
            if place.role == Role::Underlay && place != wanted {
                attach::detach(&self.folders.links, place)?;
            }
        }
        Ok(())
    }

    /// Makes sure that the underlay's program is attached to the device `underlay`, whose index is the
    /// one that CONFIG has.
    ///
    /// # Errors
    /// [`DatapathError::NoDevice`], [`DatapathError::Attach`].
    pub fn ensure_underlay(&mut self, underlay: &str) -> Result<(), DatapathError> {
        let place = Place { role: Role::Underlay, ifindex: self.config.underlay_ifindex };
        self.ensure(place, underlay)
    }

    /// What reads the tables, beside whatever else is done with them.
    #[must_use]
    pub fn reader(&self) -> TableReader {
        self.reader.clone()
    }

    /// Makes the changes, each atomic for the programs, in their order. Putting replaces, deleting
    /// what is not there is no error. Those before one that fails are made.
    ///
    /// # Errors
    /// [`DatapathError::TableFull`], [`DatapathError::Table`].
    pub fn write(&mut self, changes: &[TableChange]) -> Result<(), DatapathError> {
        self.maps.tables.write(changes)
    }

    /// Adds what was counted in these slots of TRAFFIC to what the node forwarded, and empties them. No
    /// entry may name them any more.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn free_slots(&mut self, slots: &BTreeSet<u32>) -> Result<(), DatapathError> {
        self.maps.free_slots(slots)
    }

    /// Attaches a program to the host's side of a device. Where it is attached already, it is replaced by this
    /// process' own.
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

    /// Detaches a program. No error where it is not attached, or where the device has gone. A gateway leg without its
    /// program is open to its neighbours: take the leg off the bridge first, or down.
    ///
    /// # Errors
    /// [`DatapathError::Attach`], [`DatapathError::Folder`].
    pub fn detach(&mut self, program: Program, ifindex: u32) -> Result<(), DatapathError> {
        attach::detach(&self.folders.links, Place { role: Role::of(program), ifindex })?;
        self.attached.entry(program).or_default().remove(&ifindex);
        Ok(())
    }

    /// The host-side devices that have the program: found at [`Datapath::open`], or attached since. A device that has
    /// gone since then is among them until its program is detached.
    #[must_use]
    pub fn attached(&self, program: Program) -> BTreeSet<u32> {
        self.attached.get(&program).cloned().unwrap_or_default()
    }

    fn note_attached(&mut self, program: Program, ifindex: u32) {
        self.attached.entry(program).or_default().insert(ifindex);
    }

    /// What was forwarded (None) and what was dropped, summed over the CPUs, since the maps were made.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn counters(&self) -> Result<Vec<(Option<DropReason>, Direction, Counter)>, DatapathError> {
        self.maps.counters()
    }

    /// Lets the programs write a record of each dropped packet and of some forwarded ones, or stops them.
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

    /// The reader of packets' records; [`Datapath::listen`] makes the programs write them. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`DatapathError::EventsTaken`] while there is another.
    pub fn events(&self) -> Result<Events, DatapathError> {
        Events::open(&self.folders.maps, &self.events_taken)
    }

    /// Who is where, to be asked without holding the data path.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn whereabouts(&self) -> Result<Whereabouts, DatapathError> {
        Whereabouts::open(&self.folders.maps)
    }

    /// What the kernel says of the programs.
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
                // The guard, where it does not run.
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

    /// Detaches and removes everything of ours below a node's folder, and the folder where nothing
    /// else is in it. No error where there is nothing.
    ///
    /// # Errors
    /// [`DatapathError`]; what could be removed is.
    pub fn remove_all(bpffs: &Path) -> Result<(), DatapathError> {
        let folders = Folders::new(bpffs);
        let mut outcome = Ok(());
        for place in attach::places(&folders.links)? {
            outcome = outcome.and(attach::detach(&folders.links, place));
        }
        outcome = outcome.and(maps::remove_pins(&folders.maps));
        for folder in [&folders.links, &folders.maps, &folders.root] {
            let removed = match fs::remove_dir(folder) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    Err(DatapathError::folder(folder, "removed")(error))
                }
                _ => Ok(()),
            };
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// This process' program is on the device.
    fn ensure(&mut self, place: Place, ifname: &str) -> Result<(), DatapathError> {
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

/// One task owns them, on whatever thread the runtime runs it.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Datapath>();
    is_send::<Events>();
};

/// Loads the programs in the first way that the kernel takes.
fn load(folders: &Folders) -> Result<Ebpf, DatapathError> {
    let btf = fs::read(KERNEL_BTF).map_err(DatapathError::NoTypes)?;
    let ways = overlay_common::prepare(OBJECT, &btf).map_err(DatapathError::Types)?;
    let mut first_refusal = None;
    for way in &ways {
        match load_prepared(folders, way) {
            Ok(programs) => return Ok(programs),
            Err(error) => {
                tracing::debug!(%error, "the kernel refuses one way of reading its sk_buff");
                first_refusal.get_or_insert(error);
            }
        }
    }
    Err(first_refusal.unwrap_or(DatapathError::Incomplete(SKB_LAYOUT)))
}

fn load_prepared(folders: &Folders, way: &Prepared) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    for name in maps::names() {
        loader.map_pin_path(name, folders.maps.join(name));
    }
    loader.override_global(SKB_LAYOUT, &way.layout, true);
    #[cfg(debug_assertions)]
    log::set_level(&mut loader);
    let loaded = loader.load(&way.object);
    let mut programs = loaded.map_err(|error| DatapathError::Load(Box::new(error)))?;
    for role in Role::TC {
        let program = program(&mut programs, role)?;
        load_patiently(|| program.load()).map_err(|source| DatapathError::Verify {
            program: role.program(),
            since: "5.13",
            source: Box::new(source),
        })?;
    }
    #[cfg(debug_assertions)]
    log::forward(&mut programs);
    Ok(programs)
}

fn load_patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let mut loaded = load();
    for _ in 0..LOAD_ATTEMPTS {
        match &loaded {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == io::ErrorKind::WouldBlock =>
            {
                loaded = load();
            }
            _ => break,
        }
    }
    loaded
}

/// The verifier gives up with EAGAIN when a signal comes in, and asks to be called again. aya does so a
/// few times; a busy machine was seen to interrupt more often than that.
const LOAD_ATTEMPTS: usize = 50;

fn program(programs: &mut Ebpf, role: Role) -> Result<&mut SchedClassifier, DatapathError> {
    let name = role.program();
    let program = programs.program_mut(name).ok_or(DatapathError::Incomplete(name))?;
    program.try_into().map_err(|_| DatapathError::Incomplete(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways round: a release whose programs log would pay for it packet by packet, and a debug build
    /// whose programs do not would keep silent.
    #[test]
    fn the_programs_log_in_debug_builds_alone() {
        let logs = OBJECT.windows(8).any(|name| name == b"AYA_LOGS");
        assert_eq!(logs, cfg!(debug_assertions));
    }
}
