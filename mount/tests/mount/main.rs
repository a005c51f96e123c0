//! The mount as programs see it, and the same objects as S3 sees them. Needs root and `/dev/fuse`.

mod common;
mod directives;
mod faces;
mod files;
mod names;
mod publish;
mod session;
mod xattr;
