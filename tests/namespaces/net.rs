//! Network namespaces joined by a bridge in the test's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Packets that are lost, in a hundred.
const LOSS: u32 = 2;

/// A bridge, and namespaces that are joined by it. All of it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Net {
    name: String,
    /// The first three numbers of all addresses.
    subnet: String,
    count: usize,
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|err| panic!("{program} can't be run ({err}); see .ci/setup"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\nNamespaces need root.",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Net {
    pub(super) fn new(count: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let place = process.wrapping_mul(7) + n;
        let net = Self {
            // With what is added below, an interface's name has at most 15 characters.
            name: format!("fb{:x}{}", process & 0xf_ffff, n % 10),
            subnet: format!("10.{}.{}", 200 + place / 250 % 50, place % 250),
            count,
        };
        net.make();
        net
    }

    fn make(&self) {
        let (bridge, subnet) = (self.bridge(), &self.subnet);
        run("ip", &["link", "add", &bridge, "type", "bridge"]);
        let address = format!("{subnet}.1/24");
        run("ip", &["addr", "add", &address, "dev", &bridge]);
        run("ip", &["link", "set", &bridge, "up"]);
        for n in 0..self.count {
            let (space, port) = (self.space(n), format!("{}v{n}", self.name));
            run("ip", &["netns", "add", &space]);
            let peer = ["peer", "name", "eth0", "netns", &space];
            let add = ["link", "add", &port, "type", "veth"];
            run("ip", &[&add[..], &peer].concat());
            run("ip", &["link", "set", &port, "master", &bridge, "up"]);
            let address = format!("{}/24", self.address(n));
            run(
                "ip",
                &["-n", &space, "addr", "add", &address, "dev", "eth0"],
            );
            run("ip", &["-n", &space, "link", "set", "eth0", "up"]);
            run("ip", &["-n", &space, "link", "set", "lo", "up"]);
            let rules = format!(
                "add table inet loss\n\
                 add chain inet loss in {{ type filter hook input priority 0; }}\n\
                 add rule inet loss in iifname eth0 numgen random mod 100 < {LOSS} drop"
            );
            run("ip", &["netns", "exec", &space, "nft", &rules]);
        }
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn space(&self, n: usize) -> String {
        format!("{}n{n}", self.name)
    }

    /// The address of a namespace.
    pub(super) fn address(&self, n: usize) -> String {
        format!("{}.{}", self.subnet, 10 + n)
    }

    /// The test's own address among them.
    pub(super) fn hub(&self) -> String {
        format!("{}.1", self.subnet)
    }

    fn etc(&self, n: usize) -> PathBuf {
        PathBuf::from("/etc/netns").join(self.space(n))
    }

    /// Has a name stand for these addresses in a namespace, from its next process on; later calls
    /// change it under those that run.
    pub(super) fn set_hosts(&self, n: usize, name: &str, addresses: &[String]) {
        let lines = addresses
            .iter()
            .map(|address| format!("{address} {name}\n"));
        let text: String = std::iter::once("127.0.0.1 localhost\n".to_owned())
            .chain(lines)
            .collect();
        fs::create_dir_all(self.etc(n)).unwrap();
        fs::write(self.etc(n).join("hosts"), text).unwrap();
    }

    /// The same command within a namespace.
    pub(super) fn within(&self, n: usize, command: &Command) -> Command {
        let mut within = Command::new("ip");
        within.args(["netns", "exec", &self.space(n)]);
        within.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            within.current_dir(dir);
        }
        within
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let remove = |args: &[&str]| {
            // What was not made can't be removed; the rest is.
            if let Ok(output) = Command::new("ip").args(args).output()
                && !output.status.success()
            {
                eprintln!("ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
        };
        for n in 0..self.count {
            remove(&["netns", "del", &self.space(n)]);
            if self.etc(n).exists()
                && let Err(err) = fs::remove_dir_all(self.etc(n))
            {
                eprintln!("{}: {err}", self.etc(n).display());
            }
        }
        remove(&["link", "del", &self.bridge()]);
    }
}
