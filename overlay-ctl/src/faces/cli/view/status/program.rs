//! A program, as a node's status shows it.

use super::super::{NONE, non_zero, or_dash, or_none};
use crate::proto::v1;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Program {
    pub(super) name: String,
    id: u32,
    /// Digest of its instructions.
    tag: String,
    /// Seconds since 1970; None = not known.
    loaded_at: Option<u64>,
    verified_instructions: Option<u32>,
    pub(super) jited: bool,
    devices: Vec<String>,
    /// Devices where another version of the program still runs, or a foreign program in its place.
    pub(super) other_devices: Vec<String>,
    run_time_ns: u64,
    run_count: u64,
}

impl From<v1::ProgramStatus> for Program {
    fn from(program: v1::ProgramStatus) -> Self {
        let v1::ProgramStatus {
            name,
            id,
            tag,
            loaded_at,
            verified_instructions,
            jited,
            devices,
            other_devices,
            run_time_ns,
            run_count,
        } = program;
        Self {
            name,
            id,
            tag,
            loaded_at: non_zero(loaded_at),
            verified_instructions: non_zero(verified_instructions),
            jited,
            devices,
            other_devices,
            run_time_ns,
            run_count,
        }
    }
}

/// Greatest number of devices that are shown by name; of more only the number is shown.
const DEVICES_NAMED: usize = 4;

impl Program {
    pub(super) fn row(&self, is_counted: bool) -> [String; 7] {
        // The numbers stay valid when the kernel has stopped counting.
        let (runs, each) = match self.run_time_ns.checked_div(self.run_count) {
            Some(each) => (self.run_count.to_string(), each.to_string()),
            None if is_counted => ("0".to_owned(), NONE.to_owned()),
            None => ("not counted".to_owned(), NONE.to_owned()),
        };
        let devices = match self.devices.len() {
            0..=DEVICES_NAMED => or_none(&self.devices),
            many => many.to_string(),
        };
        let verified = or_dash(self.verified_instructions.as_ref());
        [self.name.clone(), self.id.to_string(), self.tag.clone(), verified, runs, each, devices]
    }
}
