//! Rules about objects: pure functions of entry, request and time.

pub mod directive;
pub mod posix;
pub mod precondition;
