//! End to end: the real program, over S3 and through the mount.
//!
//! One binary, so that it links once. `harness` starts and stops the program; every other module is
//! one subject. Larger runs are asked for by variables, each named where it is read:
//! `FOREBAY_TEST_SEED`, `FOREBAY_TEST_CRASHES`, `FOREBAY_TEST_MEMORY_MIB`,
//! `FOREBAY_TEST_CROWD_MIB`.

// A lint lets tests unwrap where `cfg(test)` is written out; without tests there is nothing here.
#[cfg(test)]
mod both_faces;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod mounts;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod node;
#[cfg(test)]
mod node_mount;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod readme;
#[cfg(test)]
#[path = "../src/sign.rs"]
mod sign;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tier;
#[cfg(test)]
mod warm;
#[cfg(test)]
#[path = "../mount/tests/mount/xattr.rs"]
#[expect(dead_code, reason = "the mount's tests use all of it")]
mod xattr;
