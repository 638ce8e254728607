//! Writes the files of namespaces that `ip netns` made: `ip netns exec NAME` mounts the files in /etc/netns/NAME over
//! those in /etc for the command that it runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{client_conf::RESOLVER, upstream::Stamp};

/// Beginning of the first line of every such file. The rest of the line names the node, because several
/// nodes may run on one machine.
const MARKER: &str = "# Written by overlay node ";
/// The second line where the folder of the file was there before the file: then it stays, even if it is empty.
const FOLDER_STAYS: &str = "# Its folder was there before, and stays.\n";
const NETNS_FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A file that a node writes for a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ResolvConf,
    Nsswitch,
}

impl Kind {
    const ALL: [Self; 2] = [Self::ResolvConf, Self::Nsswitch];

    fn name(self) -> &'static str {
        match self {
            Self::ResolvConf => "resolv.conf",
            Self::Nsswitch => "nsswitch.conf",
        }
    }
}

/// The files that a namespace is to have, and their contents without the marker.
pub(super) type Contents = BTreeMap<Kind, String>;

/// The files of one node.
#[derive(Debug, Clone)]
pub(super) struct Files {
    folder: PathBuf,
    /// The first line of every file.
    marker: String,
    /// The files that were right when they were last read or written, by namespace.
    seen: BTreeMap<(String, Kind), Seen>,
    /// The namespaces whose folder this process created.
    created: BTreeSet<String>,
    /// The files of an earlier run were removed.
    leftovers_removed: bool,
    /// The node created the folder of all.
    created_folder: bool,
}

/// A file, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    stamp: Stamp,
    content: String,
}

/// The owner of a file.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// There is no file.
    None,
    ThisNode,
    OtherNode,
    /// The file was not written by a node.
    Foreign,
}

/// The name under which `ip netns` lists a namespace.
pub(super) fn netns_name(path: &Path) -> Option<&str> {
    let folder = path.parent()?;
    let named = NETNS_FOLDERS.iter().any(|known| folder == Path::new(known));
    path.file_name().filter(|_| named)?.to_str()
}

impl Files {
    pub(super) fn new(folder: PathBuf, node: &str) -> Self {
        // The marker stays one line for every name of a node.
        let node: String = node.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let marker = format!(
            "{MARKER}{node}, which removes it with its endpoint. Without this line it is left alone.\n"
        );
        Self {
            folder,
            marker,
            seen: BTreeMap::new(),
            created: BTreeSet::new(),
            leftovers_removed: false,
            created_folder: false,
        }
    }

    /// Writes the files of the namespaces in `wanted` and removes all others. Returns the problems, a line
    /// each.
    pub(super) fn sync(&mut self, wanted: &BTreeMap<String, Contents>) -> Vec<String> {
        let mut trouble = Vec::new();
        let is_wanted = |(name, kind): &(String, Kind)| {
            wanted.get(name).is_some_and(|contents| contents.contains_key(kind))
        };
        let mut stale: BTreeSet<(String, Kind)> =
            self.seen.keys().filter(|file| !is_wanted(file)).cloned().collect();
        if !self.leftovers_removed {
            match self.leftovers() {
                Ok(found) => {
                    stale.extend(found.into_iter().filter(|file| !is_wanted(file)));
                    self.leftovers_removed = true;
                }
                Err(error) => trouble.push(format!("{}: {error}", self.folder.display())),
            }
        }
        for (name, kind) in stale {
            if let Err(error) = self.remove(&name, kind) {
                trouble.push(format!("{}: {error}", self.path(&name, kind).display()));
            }
        }
        for (name, contents) in wanted {
            for (kind, content) in contents {
                trouble.extend(self.write(name, *kind, content).err());
            }
        }
        if wanted.is_empty() && self.created_folder && remove_if_empty(&self.folder).is_ok() {
            self.created_folder = false;
        }
        trouble
    }

    fn path(&self, name: &str, kind: Kind) -> PathBuf {
        self.folder.join(name).join(kind.name())
    }

    fn write(&mut self, name: &str, kind: Kind, content: &str) -> Result<(), String> {
        let path = self.path(name, kind);
        let stamp = fs::metadata(&path).map(|meta| Stamp::of(&meta)).ok();
        let file = (name.to_owned(), kind);
        let is_right = |seen: &Seen| Some(seen.stamp) == stamp && seen.content == content;
        if self.seen.get(&file).is_some_and(is_right) {
            return Ok(());
        }
        let failed = |error: io::Error| format!("{} could not be written: {error}", path.display());
        match (self.owner(&path).map_err(failed)?, kind) {
            (Owner::Foreign, Kind::ResolvConf) => Err(format!(
                "{} was not written by this node and is left alone: names of endpoints are resolved at {RESOLVER}; add that as its nameserver, or remove the file",
                path.display()
            )),
            // Whoever wrote it has decided who is asked for names.
            (Owner::Foreign, Kind::Nsswitch) => Ok(()),
            // A file of another node, or of this node under an earlier name, is replaced, because this node
            // serves the namespace now.
            (Owner::None | Owner::OtherNode | Owner::ThisNode, _) => {
                let stamp = self.replace(name, &path, content).map_err(failed)?;
                self.seen.insert(file, Seen { stamp, content: content.to_owned() });
                Ok(())
            }
        }
    }

    fn replace(&mut self, name: &str, path: &Path, content: &str) -> io::Result<Stamp> {
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder)?;
            self.created_folder = true;
        }
        match fs::create_dir(self.folder.join(name)) {
            Ok(()) => {
                self.created.insert(name.to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let stays = if self.folder_stays(name)? { FOLDER_STAYS } else { "" };
        let text = [&self.marker, stays, content].concat();
        // The temporary file is not in the namespace's own folder, because `ip netns exec` would try to
        // use it there.
        let new = self.folder.join(format!(".{name}.new"));
        let written = (|| {
            let mut file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&new)?;
            // The mode does not depend on the umask, because every user inside resolves names.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(text.as_bytes())?;
            // Without this, the file could be empty after a crash, and would count as foreign for ever.
            file.sync_data()?;
            fs::rename(&new, path)
        })();
        if written.is_err() {
            // Best effort: the error of the write is the one that is reported.
            drop(fs::remove_file(&new));
        }
        written?;
        Ok(Stamp::of(&fs::metadata(path)?))
    }

    /// Returns true if the folder of a namespace was there before a node wrote into it. This process may have created
    /// it; otherwise the files in it say so.
    fn folder_stays(&self, name: &str) -> io::Result<bool> {
        if self.created.contains(name) {
            return Ok(false);
        }
        for kind in Kind::ALL {
            if let Some(text) = read(&self.path(name, kind))?
                && text.starts_with(MARKER)
            {
                return Ok(text.lines().nth(1) == Some(FOLDER_STAYS.trim_end()));
            }
        }
        Ok(true)
    }

    /// Removes a file if a node wrote it, and its folder if a node created that and it is then empty. A file of another
    /// node stays as long as the namespace exists.
    fn remove(&mut self, name: &str, kind: Kind) -> io::Result<()> {
        let path = self.path(name, kind);
        let stays = self.folder_stays(name)?;
        let is_ours = match self.owner(&path)? {
            Owner::ThisNode => true,
            Owner::OtherNode => !netns_exists(name),
            Owner::None | Owner::Foreign => false,
        };
        if is_ours {
            fs::remove_file(&path)?;
        }
        if !stays {
            remove_if_empty(&self.folder.join(name))?;
        }
        if !self.folder.join(name).exists() {
            self.created.remove(name);
        }
        self.seen.remove(&(name.to_owned(), kind));
        Ok(())
    }

    /// The files of an earlier run. A file of another node counts when its namespace is gone.
    fn leftovers(&self) -> io::Result<Vec<(String, Kind)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            for kind in Kind::ALL {
                match self.owner(&self.path(&name, kind)) {
                    Ok(Owner::ThisNode) => found.push((name.clone(), kind)),
                    Ok(Owner::OtherNode) if !netns_exists(&name) => {
                        found.push((name.clone(), kind))
                    }
                    // A file that cannot be read is not known to be the node's.
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(found)
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        Ok(match read(path)? {
            None => Owner::None,
            Some(text) if text.starts_with(&self.marker) => Owner::ThisNode,
            Some(text) if text.starts_with(MARKER) => Owner::OtherNode,
            Some(_) => Owner::Foreign,
        })
    }
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(octets) => Ok(Some(String::from_utf8_lossy(&octets).into_owned())),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

fn netns_exists(name: &str) -> bool {
    NETNS_FOLDERS.iter().any(|folder| Path::new(folder).join(name).exists())
}

fn remove_if_empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
