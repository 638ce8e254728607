//! Removal of things by name.

use super::super::{Format, error::Error, output::Output};
use serde::Serialize;

/// What was removed, and the revision that no longer has it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(in super::super) struct Removal {
    pub(in super::super) name: String,
    pub(in super::super) revision: u64,
}

/// Removes each name, printing it once it is gone. One that is refused does not keep the others;
/// one that fails because of the node does, since they would fail likewise.
pub(in super::super) async fn remove_each(
    names: Vec<String>,
    output: &mut Output<'_>,
    remove: impl AsyncFn(String) -> Result<Removal, Error>,
) -> Result<(), Error> {
    let mut removed = Vec::new();
    for name in names {
        match remove(name).await {
            Ok(removal) => {
                if output.format() == Format::Table {
                    output.line(&removal.name)?;
                }
                removed.push(removal);
            }
            Err(error) => {
                output.error(&error);
                if error.is_about_node() {
                    break;
                }
            }
        }
    }
    match output.format() {
        Format::Table => Ok(()),
        Format::Json => output.print_json(&removed),
    }
}
