//! The verb `overlay node reset`: what it did, in print.

use super::{Format, OnHost, causes, error::Error, output::Output, view::View};
use crate::config::NodeResetArgs;
use serde::Serialize;

/// What became of a reset, a sentence each.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reset {
    /// What is gone or given back; empty: there was nothing to do.
    pub removed: Vec<String>,
    /// What was not known, what stays because it is somebody else's, and what is to be done elsewhere.
    pub remarks: Vec<String>,
    /// What could not be removed; empty: the host is as it was before the node.
    pub errors: Vec<String>,
}

impl View for Reset {
    fn text(&self) -> String {
        if self.removed.is_empty() && self.errors.is_empty() {
            return "there is nothing of a node here".to_owned();
        }
        self.removed.join("\n")
    }
}

/// Resets, and prints what was done. Fails if something could not be removed.
pub(super) async fn run(
    args: NodeResetArgs,
    host: &impl OnHost,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let reset = host.reset(args).await.map_err(|error| Error::OnHost(causes(&error)))?;
    if output.format() == Format::Json || !reset.text().is_empty() {
        output.print(&reset)?;
    }
    if output.format() == Format::Table {
        reset.remarks.iter().for_each(|remark| output.warn(remark));
    }
    for error in reset.errors {
        output.error(&Error::OnHost(error));
    }
    Ok(())
}
