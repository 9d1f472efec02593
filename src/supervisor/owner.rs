//! Whose a listener is: the listening sockets of `/proc/net/tcp{,6}`, compared with the descriptors
//! of processes.
//!
//! The run's leader and its children are looked at first, which nearly always settles it. All other
//! processes are looked at only if those do not hold the socket. Blocks on `/proc`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::identity::Identity;
use super::proc;

/// Programs that hold a port for a container. Whose container it is cannot be seen, so they prove
/// nothing.
const RELAYS: [&str; 5] = ["docker-proxy", "rootlessport", "slirp4netns", "pasta", "rootlesskit"];

/// Whose the listener on a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A process of the run (its group, its descendants, its tag).
    Ours,
    /// Proven to be another process.
    Stranger {
        /// Its pid.
        pid: u32,
        /// Its command name.
        command: String,
    },
    /// A process listens, and whose it is cannot be seen.
    Unproven,
    /// No process listens on it.
    Nobody,
}

/// The leader of a run and its descendants, by the quick way; empty if the leader is gone.
fn near(run: &Identity) -> Vec<u32> {
    if proc::stat(run.pid).is_none_or(|stat| stat.start_time != run.start_time) {
        return Vec::new();
    }
    let mut found = vec![run.pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        found.extend(children(pid));
    }
    found
}

/// All processes of a run.
fn all(run: &Identity) -> HashSet<u32> {
    let table = proc::all();
    let holds = table.iter().any(|stat| stat.pid == run.pid && stat.start_time == run.start_time);
    let mut found = if holds { proc::descendants(&table, run.pid) } else { HashSet::new() };
    for stat in &table {
        if (holds && stat.group == run.pid) || proc::tag(stat).as_ref() == Some(&run.tag) {
            found.insert(stat.pid);
        }
    }
    found
}

/// The children of a process's main thread; empty on a kernel that does not list them.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whose the listeners on `port` are that a connection to `127.0.0.1` may reach. Of several
/// listeners (`SO_REUSEPORT`) one stranger's is enough: the kernel spreads connections over all.
pub(super) fn of_port(run: &Identity, port: u16) -> Owner {
    let mut open: HashSet<u64> = listening()
        .into_iter()
        .filter(|(_, addr)| addr.port() == port && may_be_reached(addr.ip()))
        .map(|(inode, _)| inode)
        .collect();
    if open.is_empty() {
        return Owner::Nobody;
    }
    for pid in near(run) {
        remove_held(&mut open, pid);
    }
    if open.is_empty() {
        return Owner::Ours;
    }
    let ours = all(run);
    for &pid in &ours {
        remove_held(&mut open, pid);
    }
    if open.is_empty() {
        return Owner::Ours;
    }
    let own = std::process::id();
    let others = proc::all().into_iter().map(|stat| stat.pid).filter(|pid| !ours.contains(pid));
    for pid in others {
        if sockets(pid).any(|inode| open.contains(&inode)) {
            let command = proc::name(pid);
            let relays = RELAYS.iter().any(|relay| command.starts_with(relay));
            if pid == own || !relays {
                return Owner::Stranger { pid, command };
            }
        }
    }
    Owner::Unproven
}

/// Where the run's processes listen.
pub(super) fn listeners(run: &Identity) -> Vec<SocketAddr> {
    let held: HashSet<u64> = all(run).into_iter().flat_map(sockets).collect();
    let addrs: BTreeSet<SocketAddr> =
        listening().into_iter().filter(|(inode, _)| held.contains(inode)).map(|(_, addr)| addr).collect();
    addrs.into_iter().collect()
}

/// Whether a connection to `127.0.0.1` may reach a listener on this address: that very address, and
/// the wildcards of both families. `::1` does not count: a listener there neither answers for the
/// app nor stands in its way.
fn may_be_reached(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip.is_unspecified()
}

fn remove_held(open: &mut HashSet<u64>, pid: u32) {
    for inode in sockets(pid) {
        open.remove(&inode);
    }
}

/// The inodes of the sockets that a process holds; none if it may not be looked at.
fn sockets(pid: u32) -> impl Iterator<Item = u64> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
}

/// All listening TCP sockets of this network namespace, by inode.
///
/// The kernel lists them before all connections. A busy host has tens of thousands of those;
/// reading them too would keep a deploy waiting for 100 ms and more.
fn listening() -> HashMap<u64, SocketAddr> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .into_iter()
        .filter_map(|table| File::open(table).ok())
        .flat_map(|file| {
            let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1);
            lines.take_while(|line| line.split_ascii_whitespace().nth(3) == Some(LISTEN))
        })
        .filter_map(|line| parse(&line))
        .collect()
}

/// The state of a listening socket.
const LISTEN: &str = "0A";

/// Parses a line of the table, if its socket listens:
/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode`.
fn parse(line: &str) -> Option<(u64, SocketAddr)> {
    let mut fields = line.split_ascii_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    if state != LISTEN {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    Some((inode, SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?)))
}

/// The kernel prints addresses as 32-bit words in the machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        assert_eq!(parse(line), Some((4711, "127.0.0.1:8080".parse().unwrap())));
        let mapped = "  1: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7 1";
        let (_, addr) = parse(mapped).unwrap();
        assert_eq!(addr, "[::ffff:127.0.0.1]:80".parse().unwrap());
        assert!(may_be_reached(addr.ip()));
        assert_eq!(parse(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when"), None);
        for torn in [
            "",
            "0:",
            "0: 01:1 0:0 0A 0 0 0 0 0 1",
            "0: zzzzzzzz:1F90 0:0 0A 0 0 0 0 0 1",
            "0: ä:1 0 0A 0 0 0 0 0 1",
        ] {
            assert_eq!(parse(torn), None, "{torn}");
        }
    }

    #[test]
    fn only_addresses_that_answer_for_loopback_count() {
        for (ip, counts) in
            [("127.0.0.1", true), ("0.0.0.0", true), ("::", true), ("::1", false), ("10.0.0.1", false)]
        {
            assert_eq!(may_be_reached(ip.parse().unwrap()), counts, "{ip}");
        }
    }

    #[test]
    fn a_listener_of_this_process_is_found_and_is_a_stranger_to_a_run() {
        let lease = super::super::port::Ports::default().lease(true).unwrap();
        let run = Identity { boot_id: String::new(), pid: u32::MAX, start_time: 0, tag: "0".repeat(32) };
        // The placeholder is bound and does not listen.
        assert_eq!(of_port(&run, lease.port()), Owner::Nobody);
        let _listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, lease.port())).unwrap();
        let Owner::Stranger { pid, .. } = of_port(&run, lease.port()) else {
            panic!("not seen as a stranger")
        };
        assert_eq!(pid, std::process::id());
    }

    /// `listening` relies on it: the kernel lists connections behind all listeners.
    #[test]
    fn listeners_are_found_before_connections_wherever_these_come_from() {
        let first = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let held: Vec<_> = (0..50)
            .map(|_| {
                (std::net::TcpStream::connect(first.local_addr().unwrap()).unwrap(), first.accept().unwrap())
            })
            .collect();
        let last = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let six = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok();
        let found: HashSet<SocketAddr> = listening().into_values().collect();
        let own = [Some(&first), Some(&last), six.as_ref()];
        for addr in own.into_iter().flatten().map(|listener| listener.local_addr().unwrap()) {
            assert!(found.contains(&addr), "{addr}");
        }
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let states: Vec<bool> =
            table.lines().skip(1).map(|line| line.split_ascii_whitespace().nth(3) == Some(LISTEN)).collect();
        assert!(states.len() > held.len() && states.is_sorted_by(|one, next| one >= next), "{table}");
    }
}
