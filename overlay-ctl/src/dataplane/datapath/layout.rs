//! The folders of pins, and how the maps of one layout follow those of another.
//!
//! The maps are pinned in a folder whose name has the version of their layout ([`LAYOUT_VERSION`]), so that a
//! version never takes the maps of another for its own. A version that finds attached programs, and not just all of
//! its own maps, has a swap before it: the programs that are attached stay, with the maps that they have, until
//! the new maps are filled; then all programs are replaced, and the pins of other layouts are removed.
//!
//! Invariant: while a swap is due there is the empty folder `swap`. It is made before any new map, and removed
//! after everything else: so the next process goes on, wherever this one died.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, Map, MapData, MapInfo, MapType};
use overlay_common::{FORMER_MAPS, LAYOUT_VERSION, MapKind, MapShape, map};

use super::{DatapathError, attach, host};

/// The folder of maps before their layout had a version.
const UNVERSIONED: &str = "maps";
/// The name of the map in which an endpoint's place stands, in all layouts so far.
const FDB: &str = map::FDB::NAME;
/// What the name of a layout's folder begins with; the version follows.
const VERSIONED: &str = "maps-";

/// The folder, below a node's folder on a BPF file system, in which this version pins its maps by name.
#[must_use]
pub fn maps_folder(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("{VERSIONED}{LAYOUT_VERSION}"))
}

/// The folders below a node's bpffs folder.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    /// The node's.
    pub(super) root: PathBuf,
    /// Pinned maps of this version's layout, by name.
    pub(super) maps: PathBuf,
    /// One entry for each attachment.
    pub(super) links: PathBuf,
    /// Exists while a swap is due.
    swap: PathBuf,
}

impl Folders {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            maps: maps_folder(root),
            links: root.join("links"),
            swap: root.join("swap"),
        }
    }

    /// Creates the folders that are missing.
    pub(super) fn create(&self) -> Result<(), DatapathError> {
        host::check_bpffs(&self.root)?;
        create(&self.maps)?;
        create(&self.links)
    }

    /// Prepares the pins for loading: a pin that is not of this version's shape is removed, so that a new map is
    /// made in its place. Returns true if a swap is due.
    pub(super) fn prepare(&self) -> Result<bool, DatapathError> {
        let mut unfit = Vec::new();
        let mut is_complete = true;
        for shape in map::ALL {
            let path = self.maps.join(shape.name);
            if !path.exists() {
                is_complete = false;
            } else if !is_of_shape(&path, shape)? {
                is_complete = false;
                unfit.push(path);
            }
        }
        // Beside the maps of another layout, own ones are of an earlier time: whoever came in between wrote the others.
        let is_alone = !self.others()?.iter().any(|folder| holds_maps(folder));
        let is_current = is_complete && is_alone;
        if !is_current && !attach::places(&self.links)?.is_empty() {
            create(&self.swap)?;
        }
        // The programs that use such a map keep it.
        unfit.iter().try_for_each(|path| remove_file(path))?;
        Ok(self.swap.exists())
    }

    /// Ends a swap: only the maps of this layout are pinned any more.
    pub(super) fn end_swap(&self) -> Result<(), DatapathError> {
        for folder in self.others()? {
            remove_maps(&folder)?;
        }
        remove_folder(&self.swap)
    }

    /// Removes the maps of all layouts and, where nothing else is in them, the folders. Goes on past a failure, and
    /// returns the first.
    pub(super) fn remove_all(&self) -> Result<(), DatapathError> {
        let mut outcome = Ok(());
        for folder in self.others()?.iter().chain([&self.maps]) {
            outcome = outcome.and(remove_maps(folder));
        }
        for folder in [&self.links, &self.swap, &self.root] {
            outcome = outcome.and(remove_folder(folder));
        }
        outcome
    }

    /// The newest endpoint in the FDBs of other layouts; 0 if there is none, or if none of them can be read.
    pub(super) fn newest_of_others(&self) -> Result<u64, DatapathError> {
        let mut newest = 0;
        for folder in self.others()? {
            let path = folder.join(FDB);
            if path.exists() {
                newest = newest.max(newest_endpoint(&path)?);
            }
        }
        Ok(newest)
    }

    /// The folders of maps of other layouts.
    fn others(&self) -> Result<Vec<PathBuf>, DatapathError> {
        let failed = || DatapathError::folder(&self.root, "read");
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed()(error)),
        };
        let mut others = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed())?.path();
            if path != self.maps
                && path.file_name().is_some_and(|name| is_layout(&name.to_string_lossy()))
            {
                others.push(path);
            }
        }
        Ok(others)
    }
}

/// Whether a folder of this name has the maps of some layout.
fn is_layout(name: &str) -> bool {
    let version = name.strip_prefix(VERSIONED);
    name == UNVERSIONED || version.is_some_and(|version| version.parse::<u32>().is_ok())
}

/// The newest endpoint in a pinned FDB of another layout: an endpoint's id is the revision that created it. All
/// layouts so far have the id at the same place; a map of other sizes has no answer.
fn newest_endpoint(path: &Path) -> Result<u64, DatapathError> {
    const KEY: usize = 12;
    const VALUE: usize = 56;
    const ID: usize = 40;
    let failed = |action| DatapathError::table(FDB, action);
    let data = MapData::from_pin(path).map_err(failed("opened"))?;
    let info = data.info().map_err(failed("read"))?;
    if (info.key_size(), info.value_size()) != (KEY as u32, VALUE as u32) {
        return Ok(0);
    }
    let fdb: HashMap<_, [u8; KEY], [u8; VALUE]> =
        HashMap::try_from(Map::HashMap(data)).map_err(failed("opened"))?;
    let mut newest = 0;
    for entry in fdb.iter() {
        let (_, value) = entry.map_err(failed("read"))?;
        let id = value[ID..].first_chunk().map_or(0, |id| u64::from_ne_bytes(*id));
        newest = newest.max(id);
    }
    Ok(newest)
}

fn is_of_shape(path: &Path, shape: &MapShape) -> Result<bool, DatapathError> {
    let &MapShape { name, kind, key_size, value_size, capacity } = shape;
    let info = MapInfo::from_pin(path).map_err(DatapathError::table(name, "opened"))?;
    let kind = match kind {
        MapKind::Hash => MapType::Hash,
        MapKind::LruHash => MapType::LruHash,
        MapKind::Array => MapType::Array,
        MapKind::PerCpuArray => MapType::PerCpuArray,
        MapKind::RingBuf => MapType::RingBuf,
    };
    Ok(info.map_type().ok() == Some(kind)
        && (info.key_size(), info.value_size()) == (key_size, value_size)
        && info.max_entries() == capacity)
}

/// The names that maps of this or of a former layout have.
fn names() -> impl Iterator<Item = &'static str> {
    map::ALL.iter().map(|shape| shape.name).chain(FORMER_MAPS.iter().copied())
}

fn holds_maps(folder: &Path) -> bool {
    names().any(|name| folder.join(name).exists())
}

/// Removes the pins of maps from a layout's folder, and the folder if nothing else is in it. A map itself goes with
/// the last program that uses it.
fn remove_maps(folder: &Path) -> Result<(), DatapathError> {
    for name in names() {
        remove_file(&folder.join(name))?;
    }
    remove_folder(folder)
}

fn create(folder: &Path) -> Result<(), DatapathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(DatapathError::folder(folder, "created"))
}

fn remove_file(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::folder(path, "removed")(error))
        }
        _ => Ok(()),
    }
}

fn remove_folder(folder: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir(folder) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(DatapathError::folder(folder, "removed")(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_told_by_the_name_of_its_folder() {
        let own = maps_folder(Path::new("/x"));
        for layout in ["maps", "maps-1", "maps-4711", own.file_name().unwrap().to_str().unwrap()] {
            assert!(is_layout(layout), "{layout}");
        }
        for foreign in ["maps-", "maps-x", "maps2", "links", "swap"] {
            assert!(!is_layout(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_folder_elsewhere_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error = Folders::new(&folder.path().join("node")).create().unwrap_err();
        assert!(matches!(error, DatapathError::NoBpffs(_)));
        assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
    }
}
