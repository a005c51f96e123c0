//! The store from outside: what it keeps over power cuts, faults and restarts.
//!
//! One binary, so that the simulated disk is built and linked once.

#[cfg(test)]
mod basics;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod care;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod fault;
#[cfg(test)]
mod feed;
#[cfg(test)]
mod model;
#[cfg(test)]
mod part_copy;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod workload;

/// A number from the environment.
#[cfg(test)]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}
