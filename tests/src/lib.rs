//! An empty library. The scenarios in `tests/` only share the lab, which is a package of its own.
