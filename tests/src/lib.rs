//! What the scenarios in `tests/` share beside the lab, which is a package of its own.
