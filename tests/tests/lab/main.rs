//! Scenarios: real nodes in a lab of namespaces, watched from outside. They run one after another
//! (`--test-threads=1`), as root.

mod support;
mod topology;
