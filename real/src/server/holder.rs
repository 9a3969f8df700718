//! Who holds a busy port, as far as the kernel tells this user.

use std::{fs, net::SocketAddr, path::Path};

/// The process that listens on the port of `address`: its name and id. `None` where it is another user's or cannot be told.
#[must_use]
pub fn of(transport: &str, address: SocketAddr) -> Option<String> {
    let tables = if transport.eq_ignore_ascii_case("udp") { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
    let sockets: Vec<_> = tables.iter().flat_map(|table| sockets(table, address.port())).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files.flatten().any(|file| {
            let target = fs::read_link(file.path()).unwrap_or_default();
            sockets.iter().any(|inode| target == Path::new(&format!("socket:[{inode}]")))
        });
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", command.trim()));
        }
    }
    None
}

/// The inodes of the sockets that are bound to a port, without those of established connections.
fn sockets(table: &str, port: u16) -> Vec<String> {
    const ESTABLISHED: &str = "01";
    let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let socket = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let bound = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let listens = table.starts_with("udp") || *state != ESTABLISHED;
        (bound == port && listens).then(|| (*inode).to_owned())
    };
    text.lines().skip(1).filter_map(socket).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_port_of_this_process_is_found_to_be_its_own() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let own = format!("(process {})", std::process::id());
        for (transport, address) in [("TCP", tcp.local_addr()), ("UDP", udp.local_addr())] {
            let holder = super::of(transport, address.expect("bound")).expect("this process may read its own");
            assert!(holder.ends_with(&own), "{holder}");
        }
    }
}
