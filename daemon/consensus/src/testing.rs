//! What the tests of this room share.

#[path = "../../../tests/sim/src/disk.rs"]
pub mod disk;
