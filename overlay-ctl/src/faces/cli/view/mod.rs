//! The printed form of each noun.
//!
//! The JSON is a contract: a field is neither renamed nor removed, and a field that does not apply is
//! `null`. These types are separate from the API's messages, which have numbers for enums and empty
//! strings for "none".

mod endpoint;
mod event;
mod members;
mod network;
mod node;
mod port;
mod remove;
mod stale;
mod status;
#[cfg(test)]
mod tests;

pub(super) use endpoint::{CreatedEndpoint, Endpoint};
pub(super) use event::Event;
pub(super) use members::ClusterStatus;
pub(super) use network::{Network, NetworkDetail};
pub(super) use node::{Node, Voters};
pub(super) use port::PublishedPort;
pub(super) use remove::{Removal, remove_each};
pub(super) use stale::Stale;
pub(super) use status::Status;

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use std::borrow::Borrow;

/// An answer that can be printed as text and as JSON.
pub(super) trait View: Serialize {
    /// The text for people, without a newline at the end.
    fn text(&self) -> String;
}

/// Printed in place of a missing value.
const NONE: &str = "-";

/// The text, or `None` if it is empty, which is the API's form of "none".
fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn non_zero<N: Default + PartialEq>(number: N) -> Option<N> {
    (number != N::default()).then_some(number)
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| NONE.to_owned(), ToString::to_string)
}

/// The words with commas between them, or a dash if there are none.
fn or_none<W: Borrow<str>>(words: &[W]) -> String {
    if words.is_empty() { NONE.to_owned() } else { words.join(", ") }
}

/// A table with a header.
fn columns<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header).add_rows(rows);
    finish(table)
}

/// A list with one field on each line.
fn fields<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    finish(table)
}

fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt()
}
