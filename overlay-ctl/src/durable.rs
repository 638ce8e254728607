//! The files of a state folder, and when what was written to them survives a power cut.
//!
//! [`Folder`] is the only way by which the log, the identity, the mark and the node's own records reach
//! the disk. It exists so that a test can put a simulated folder in its place and cut the power between
//! any two operations: a `sync` that is forgotten has no effect that can be seen in any other way.
//!
//! What a caller may rely on is what POSIX promises: a file's content is durable after
//! [`DurableFile::sync`], a name after [`Folder::sync`], and neither before.

mod json;
#[cfg(test)]
pub(crate) mod simulated;
mod space;

pub use self::{
    json::{FileError, boot_id, read_json, write_json},
    space::Space,
};

use std::{
    fmt::Debug,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use redb::{DatabaseError, StorageBackend, StorageError, backends::FileBackend};

/// A folder, and the files in it by name. A clone is the same folder.
pub trait Folder: Clone + Send + 'static {
    /// What a database in it is kept in.
    type Database: StorageBackend;

    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Makes the folder where there is none.
    ///
    /// # Errors
    /// What the system says.
    fn make(&self) -> io::Result<()>;

    /// The content of a file.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] where there is no such file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// The length of a file in bytes.
    ///
    /// # Errors
    /// As [`Folder::read`].
    fn len(&self, name: &str) -> io::Result<u64>;

    /// Opens a file; an empty one is made where there is none.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn DurableFile>>;

    /// Makes an empty file, whatever had the name before.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn DurableFile>>;

    /// Opens a database's file.
    ///
    /// # Errors
    /// What the system says, [`io::ErrorKind::AlreadyExists`] and [`io::ErrorKind::NotFound`] among it.
    fn database(&self, name: &str, which: Which) -> Result<Self::Database, DatabaseError>;

    /// Gives a file another name, which no longer names the file that had it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As [`Folder::read`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names as they are now durable.
    ///
    /// # Errors
    /// What the system says. The names on the disk are unknown then.
    fn sync(&self) -> io::Result<()>;

    /// How many more bytes the folder's disk takes.
    ///
    /// # Errors
    /// What the system says; the folder must exist.
    fn space(&self) -> io::Result<Space>;

    /// Replaces a file whole: a power cut leaves the old or the new content. The new content is durable
    /// when this returns.
    ///
    /// # Errors
    /// What the system says.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.new");
        let file = self.create(&temporary)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        self.rename(&temporary, name)?;
        self.sync()
    }
}

/// Which file a database is opened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// One that must not exist yet.
    New,
    /// One that must exist.
    Existing,
}

/// An open file that is not a database.
pub trait DurableFile: Debug + Send {
    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] where the file is too short.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says. Some of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the content and the length durable.
    ///
    /// # Errors
    /// What the system says. What the disk holds is unknown then.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct DiskFolder(PathBuf);

impl DiskFolder {
    /// The folder at `path`, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Folder for DiskFolder {
    type Database = FileBackend;

    fn path(&self) -> &Path {
        &self.0
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.at(name))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.at(name))?.len())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DurableFile>> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        Ok(Box::new(DiskFile(options.open(self.at(name))?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DurableFile>> {
        Ok(Box::new(DiskFile(File::create(self.at(name))?)))
    }

    fn database(&self, name: &str, which: Which) -> Result<FileBackend, DatabaseError> {
        let mut options = File::options();
        options.read(true).write(true).create_new(which == Which::New);
        let file = options.open(self.at(name)).map_err(StorageError::Io)?;
        FileBackend::new(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        Space::of(&self.0)
    }
}

/// A file of the file system.
#[derive(Debug)]
struct DiskFile(File);

impl DurableFile for DiskFile {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::{simulated::SimulatedFolder, *};
    use crate::seeded::Rng;

    /// The kernel refuses to sync what has no way to be synced. So an error proves that it was asked,
    /// which nothing else shows short of cutting the power.
    #[test]
    fn a_sync_reaches_the_kernel() {
        let file = DiskFile(File::options().write(true).open("/dev/null").unwrap());
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let folder = DiskFolder::new(Path::new("/proc"));
        assert_eq!(folder.sync().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn both_folders_do_the_same() {
        fn exercise(folder: &impl Folder) {
            let missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
            folder.make().unwrap();
            assert!(missing(folder.read("a").unwrap_err()));
            assert!(missing(folder.len("a").unwrap_err()));
            assert!(missing(folder.remove("a").unwrap_err()));
            assert!(missing(folder.rename("a", "b").unwrap_err()));
            assert!(folder.space().unwrap().common > 0);
            let file = folder.open("a").unwrap();
            file.write_all_at(b"overlay", 1_000).unwrap();
            file.sync().unwrap();
            assert_eq!(folder.len("a").unwrap(), 1_007);
            let mut bytes = [1; 9];
            file.read_exact_at(&mut bytes, 998).unwrap();
            assert_eq!(&bytes, b"\0\0overlay");
            let end = file.read_exact_at(&mut bytes, 999).unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
            folder.rename("a", "b").unwrap();
            // An open file goes on under its new name.
            file.write_all_at(b"O", 1_000).unwrap();
            assert!(missing(folder.len("a").unwrap_err()));
            assert!(folder.read("b").unwrap().ends_with(b"Overlay"));
            drop(folder.create("b").unwrap());
            assert_eq!(folder.read("b").unwrap(), b"");
            folder.replace("b", b"whole").unwrap();
            assert_eq!(folder.read("b").unwrap(), b"whole");
            folder.sync().unwrap();
            folder.remove("b").unwrap();
            assert!(missing(folder.read("b").unwrap_err()));

            assert!(folder.database("db", Which::Existing).is_err());
            let database = folder.database("db", Which::New).unwrap();
            database.set_len(8_192).unwrap();
            database.write(4_000, &[7; 200]).unwrap();
            database.sync_data().unwrap();
            database.close().unwrap();
            assert!(folder.database("db", Which::New).is_err());
            let database = folder.database("db", Which::Existing).unwrap();
            assert_eq!(database.len().unwrap(), 8_192);
            let mut bytes = [1; 202];
            database.read(3_999, &mut bytes).unwrap();
            assert_eq!((bytes[0], bytes[1], bytes[200], bytes[201]), (0, 7, 7, 0));
            assert!(database.read(8_000, &mut bytes).is_err());
            database.set_len(4_100).unwrap();
            database.set_len(8_192).unwrap();
            database.read(3_999, &mut bytes).unwrap();
            assert_eq!((bytes[100], bytes[101], bytes[102]), (7, 0, 0));
        }
        let dir = tempfile::tempdir().unwrap();
        let made = DiskFolder::new(&dir.path().join("made"));
        assert_eq!(made.space().unwrap_err().kind(), io::ErrorKind::NotFound);
        exercise(&made);
        exercise(&SimulatedFolder::default());
    }

    /// At whatever operation the power goes, and whatever of the unsynced reached the disk.
    #[test]
    fn a_replaced_file_is_whole_and_then_durable() {
        let (old, new) = (vec![b'o'; 3_000], vec![b'n'; 2_000]);
        let mut seen = std::collections::BTreeSet::new();
        let mut rng = Rng::fresh();
        for operation in 0.. {
            let mut durable = false;
            for _ in 0..50 {
                let folder = SimulatedFolder::default();
                folder.replace("f", &old).unwrap();
                folder.fail_at(operation, simulated::Fault::any(&mut rng));
                durable = folder.replace("f", &new).is_ok();
                let left = folder.after_power_cut(&mut rng).read("f").unwrap();
                assert!(left == new || !durable && left == old, "operation {operation}");
                seen.insert(left);
            }
            if durable {
                assert!(operation > 3, "it took {operation} operations only");
                break;
            }
        }
        assert_eq!(seen.len(), 2, "the power cuts came at all times");
    }
}
