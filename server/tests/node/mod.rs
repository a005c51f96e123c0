//! A node in front of a real server, and what the server was asked for.

mod calls;
mod directives;
mod fleet;
mod foreign;
mod leases;
mod reads;
mod tap;
mod trouble;
