//! A store and nodes in network namespaces of their own, with delay, loss and everything that goes
//! wrong in a cluster: no wrong byte, no stale read after the bound, no hang.
//!
//! What a read may do while things are broken is fail. Needs root, `ip` and `nft`
//! (`.ci/setup` installs them).

mod net;
mod proxy;
mod world;

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::world::{Peering, World};

/// How long what an origin tells by its feed may be unknown to a mount, and to a node that answers
/// by itself, when the feed is cut.
const STALE_MAX: Duration = Duration::from_secs(12);

#[test]
fn two_nodes_with_delay_and_loss_survive_everything() {
    survive(2, Peering::ByProxies);
}

#[test]
fn five_nodes_with_delay_and_loss_survive_everything() {
    survive(5, Peering::ByName);
}

fn survive(count: usize, peering: Peering) {
    let mut world = World::new(count, peering);
    let traffic = world.traffic();
    let readers = traffic.start();
    let last = count - 1;
    let pause = |ms| std::thread::sleep(Duration::from_millis(ms));
    pause(1500);
    world.restart_store();
    pause(1500);
    world.kill_node(last);
    pause(1200);
    world.start_node(last);
    pause(800);
    // The feed goes with all other connections to the origin.
    world.origin.cut();
    pause(1000);
    world.origin.mend();
    pause(800);
    world.node(last).signal("STOP");
    pause(1500);
    world.node(last).signal("CONT");
    pause(500);
    world.part_peers();
    pause(1200);
    world.join_peers();
    pause(800);
    traffic.stop();
    for reader in readers {
        reader.join().unwrap();
    }
    let (right, failed) = (
        traffic.right.load(Ordering::Relaxed),
        traffic.failed.load(Ordering::Relaxed),
    );
    eprintln!("{count} nodes: {right} reads right, {failed} failed");
    assert!(right > 20 * count as u64, "{right} right, {failed} failed");

    // All is well again, and everybody sees what there is now.
    world.wait_for_peers();
    let version = traffic.publish();
    for n in 0..count {
        traffic.check_all(n);
    }
    let give_up_at = Instant::now() + STALE_MAX;
    for n in 0..count {
        while traffic.version_at(n) != Some(version) {
            assert!(Instant::now() < give_up_at, "node {n} shows what is old");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    while world.version_in_mount() != Some(version) {
        assert!(Instant::now() < give_up_at, "the mount shows what is old");
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in traffic.names() {
        let found = fs::read(world.mounted(&name)).unwrap();
        assert!(found == traffic.body(&name), "{name}");
    }
    world.stop();
}
