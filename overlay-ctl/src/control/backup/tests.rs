//! Backups are read as they were written, and nothing else is read as one.

use super::*;
use crate::control::state::golden::snapshot_of_version_2;

const CLUSTER: Uuid = Uuid::from_u128(0x6f76_6572_6c61_7900_0000_0000_0000_0001);

fn state() -> State {
    State::from_snapshot(&snapshot_of_version_2()).unwrap()
}

fn backup() -> Vec<u8> {
    let mut bytes = Vec::new();
    write(CLUSTER, &state(), &mut bytes).unwrap();
    bytes
}

/// The same backup, with a right checksum, after `change` of what is before the checksum.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = backup();
    bytes.truncate(bytes.len() - SUM);
    change(&mut bytes);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

#[test]
fn a_backup_is_read_as_it_was_written_in_pieces_of_any_size() {
    let bytes = backup();
    let Backup { head, state: found } = read(&*bytes).unwrap();
    assert_eq!(found, state());
    assert_eq!((head.cluster, head.revision), (CLUSTER, found.revision()));
    assert_eq!((head.generation, head.version), (found.generation(), found.version()));
    for size in [1, 31, 32, 33, 1_000, bytes.len()] {
        let mut check = Check::default();
        bytes.chunks(size).for_each(|piece| check.push(piece));
        assert_eq!(check.finish().unwrap().0, head, "pieces of {size} bytes");
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("overlay backup 1"));
    assert!(
        lines.next().unwrap().contains(&CLUSTER.to_string()),
        "whoever opens it sees whose it is"
    );
}

#[test]
fn a_backup_that_lacks_a_byte_or_has_another_one_is_refused_wherever_that_is() {
    let bytes = backup();
    for length in 0..bytes.len() {
        let refused = read(&bytes[..length]).map(drop).unwrap_err();
        let is_none = length < MAGIC.len();
        let expected = |error: &BackupError| match error {
            BackupError::NoBackup => is_none,
            BackupError::Damaged => !is_none,
            _ => false,
        };
        assert!(expected(&refused), "{length} bytes: {refused}");
    }
    for place in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x10;
        let refused = read(&*bytes).map(drop).unwrap_err();
        let expected = matches!(refused, BackupError::NoBackup | BackupError::Damaged);
        assert!(expected, "byte {place}: {refused}");
    }
    let longer = [&bytes[..], b"\n"].concat();
    assert!(matches!(read(&*longer), Err(BackupError::Damaged)), "something came behind it");
}

#[test]
fn what_a_newer_program_wrote_is_refused_by_name() {
    let newer = changed(|bytes| bytes[MAGIC.len()] = b'2');
    let refused = read(&*newer).map(drop).unwrap_err();
    assert!(matches!(refused, BackupError::Newer(2)), "{refused}");
    // The format of the state in it.
    let newer = changed(|bytes| {
        let place = bytes.windows(7).position(|bytes| bytes == b"\xa6format").unwrap() + 7;
        assert_eq!(bytes[place], 5);
        bytes[place] = 99;
    });
    let refused = read(&*newer).map(drop).unwrap_err();
    assert!(matches!(refused, BackupError::State(SnapshotError::Newer(99), _)), "{refused}");
}

#[test]
fn a_head_that_says_something_else_than_the_state_is_refused() {
    for (is, says) in
        [("\"revision\":11", "\"revision\":12"), ("\"generation\":1", "\"generation\":7")]
    {
        let forged = changed(|bytes| {
            let place = bytes.windows(is.len()).position(|bytes| bytes == is.as_bytes()).unwrap();
            bytes[place..place + says.len()].copy_from_slice(says.as_bytes());
        });
        assert!(matches!(read(&*forged), Err(BackupError::Contradicts)), "{says}");
    }
    let no_head = changed(|bytes| bytes.truncate(MAGIC.len() + 2));
    assert!(matches!(read(&*no_head), Err(BackupError::Contradicts)));
}

/// A reader that is asked for more than the first bytes of what is no backup fails the test.
#[test]
fn what_is_no_backup_is_not_read_whole() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            assert!(self.0 < 1_000, "it is read on");
            bytes.fill(b'o');
            Ok(bytes.len())
        }
    }
    assert!(matches!(read(Endless(0)), Err(BackupError::NoBackup)));
}
