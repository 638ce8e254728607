//! The text of an error.

use std::error::Error;

/// An error and its sources in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::consensus::{FatalError, storage::StoreError};

    #[test]
    fn an_error_is_said_with_all_its_causes() {
        let cause = std::io::Error::other("no space left");
        let error = FatalError::Store(StoreError::Mark(cause));
        let said = "the consensus log failed: high-water mark: no space left";
        assert_eq!(chain(&error), said);
    }
}
