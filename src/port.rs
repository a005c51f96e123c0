//! Who listens on a port, for an error message that helps.
//!
//! Linux tells it in two steps: `/proc/net/tcp` has the inode of the listening socket, and one of
//! some process's descriptors links to that inode. What other users run can't be seen; then the
//! message does without.

use std::fs;
use std::path::Path;

/// `pid 4121 (minio)`, if it can be found out.
pub(crate) fn listener(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|table| socket_inode(&table, port).map(str::to_owned))?;
    let link = format!("socket:[{inode}]");
    let process = fs::read_dir("/proc")
        .ok()?
        .flatten()
        // Not `self`, which is the same process under another name.
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .find(|process| holds(&process.path(), &link))?;
    let name = fs::read_to_string(process.path().join("comm")).ok()?;
    Some(format!(
        "pid {} ({})",
        process.file_name().display(),
        name.trim_end()
    ))
}

/// The inode of the socket that listens on `port`, from the text of `/proc/net/tcp`.
///
/// <https://docs.kernel.org/networking/proc_net_tcp.html>
fn socket_inode(table: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let found = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTEN;
        if found { fields.get(9).copied() } else { None }
    })
}

fn holds(process: &Path, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.as_os_str() == link)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_our_own_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listener(socket.local_addr().unwrap().port()).unwrap();
        assert!(
            found.starts_with(&format!("pid {} (", std::process::id())),
            "{found}"
        );
    }

    #[test]
    fn a_connection_to_the_port_is_not_its_listener() {
        let table = "  sl  local_address rem_address   st tx rx tr tm retr uid timeout inode\n   \
            0: 0100007F:2328 0100007F:9999 01 0:0 00:0 0 0 0 11 1\n   \
            1: 00000000:2328 00000000:0000 0A 0:0 00:0 0 0 0 12 1\n";
        assert_eq!(socket_inode(table, 0x2328), Some("12"));
        assert_eq!(socket_inode(table, 0x9999), None);
    }
}
