//! Reads over a disk and an origin that do what the test says.

mod directives;
mod faults;
mod fills;
mod flights;
mod hung;
mod kit;
mod memory;
mod model;
mod on_disk;
mod windows;
