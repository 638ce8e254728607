//! The removal of objects by name, and its printed form.

use super::super::{Format, error::Error, output::Output};
use serde::Serialize;

/// A removed object, and the first revision without it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(in super::super) struct Removal {
    pub(in super::super) name: String,
    pub(in super::super) revision: u64,
    /// The nodes that have not forgotten it yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in super::super) lagging_nodes: Vec<String>,
}

/// Removes each name, and prints it when it is removed. After a refusal the other names are still removed;
/// after an error of the node itself they are not, because they would fail in the same way.
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
                if !removal.lagging_nodes.is_empty() {
                    output.warn(&format!(
                        "{}: not forgotten yet by {}; its name and address are held back until they have",
                        removal.name,
                        removal.lagging_nodes.join(", ")
                    ));
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
