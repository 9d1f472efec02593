//! The last moments of listening sockets that end: nobody new comes in, and who is about to come in
//! does.
//!
//! The kernel resets a connection that is established between the last accept(2), which found the
//! queue empty, and close(2), although its client may have sent a request. So a socket filter first
//! drops what begins a connection; such a client tries again after a second, and then hears that
//! nobody listens. Connections of which the kernel has answered the first segment already are
//! waited for: their clients believe that somebody listens. Accepting goes on meanwhile, and once
//! nothing is left half-open, an empty queue stays empty.
//!
//! A filter belongs to the socket, so whoever has it too is silenced: this is only for sockets that
//! nobody else goes on with. What is accepted under the filter inherits it, and never gets a
//! segment that it drops.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};

/// Instructions of a filter (linux/filter.h): `BPF_LD | BPF_B | BPF_ABS` and so on.
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_UNLESS_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Where the flags are in a TCP segment, which is what a TCP socket's filter sees.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// Between two looks for half-open connections, and before the first one: what has just passed is
/// among them by then.
const LOOK: Duration = Duration::from_millis(10);

/// How long half-open connections are waited for: a round trip, and once more the second after
/// which the kernel repeats its answer.
const LONGEST: Duration = Duration::from_millis(1500);

/// How much of the kernel's table is looked at: more than it has where every port has a line.
const MOST: u64 = 64 * 1024 * 1024;

/// The state of a half-open connection in it (`SYN_RECV`, 3), between two blanks.
const HALF_OPEN: &[u8] = b" 03 ";

/// Lets nobody new in at `listeners`, which nobody else goes on with, and waits for those who are
/// coming in. Cancel safe; the filter stays.
pub async fn last_call(listeners: &[&TcpListener]) {
    let ports: BTreeSet<u16> = listeners
        .iter()
        .filter(|listener| match turn_away(listener) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a listening socket that ends takes no filter");
                false
            }
        })
        .filter_map(|listener| Some(listener.local_addr().ok()?.port()))
        .collect();
    let began = Instant::now();
    let mut is_left = !ports.is_empty();
    while is_left && began.elapsed() < LONGEST {
        tokio::time::sleep(LOOK).await;
        let ports = ports.clone();
        let look = tokio::task::spawn_blocking(move || has_half_open(&ports));
        // What cannot be looked for is not waited for.
        is_left = look.await.is_ok_and(|found| found.unwrap_or(false));
    }
}

/// Drops segments that begin a connection: with SYN, and without ACK.
fn turn_away(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_UNLESS_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Whether a connection to one of `ports` has begun and is not established.
fn has_half_open(ports: &BTreeSet<u16>) -> io::Result<bool> {
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let file = match File::open(table) {
            Ok(file) => file,
            // Without IPv6 there is no second one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut table = Vec::new();
        file.take(MOST).read_to_end(&mut table)?;
        if half_open_ports(&table).any(|port| ports.contains(&port)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The own ports of the half-open connections in the kernel's table. It may have a hundred thousand
/// lines: only those that have the state's digits somewhere are read.
fn half_open_ports(table: &[u8]) -> impl Iterator<Item = u16> {
    memchr::memmem::find_iter(table, HALF_OPEN).filter_map(|at| {
        let begin = memchr::memrchr(b'\n', &table[..at]).map_or(0, |end| end + 1);
        let end = memchr::memchr(b'\n', &table[at..]).map_or(table.len(), |length| at + length);
        half_open_port(str::from_utf8(&table[begin..end]).ok()?)
    })
}

/// The own port of a line of the kernel's table, where it is of a half-open connection.
fn half_open_port(line: &str) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let own = fields.next()?;
    let state = fields.nth(1)?;
    let (_, port) = own.rsplit_once(':')?;
    if state == "03" { u16::from_str_radix(port, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_half_open_connection_is_found_in_the_kernels_table() {
        let line = |state| {
            format!(
                "   2: 0100007F:1F90 0200007F:C350 {state} 00000000:00000000 01:00000063 00000000     0 0 0 1"
            )
        };
        let title = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        let table = [title, &line("01"), &line("03"), &line("0A"), &line("03"), &line("06")].join("\n");
        assert_eq!(half_open_ports(table.as_bytes()).collect::<Vec<_>>(), [8080, 8080]);
        assert_eq!(half_open_port(title), None);
        // The digits elsewhere in a line are no state.
        assert_eq!(half_open_ports(line("01").replace(" 0 0 0 1", " 0 03 0 1").as_bytes()).count(), 0);
    }

    /// A client that hears no answer: its connection stays half-open.
    fn deaf(to: &TcpListener) -> Socket {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]).unwrap();
        client.set_nonblocking(true).unwrap();
        client.connect(&to.local_addr().unwrap().into()).unwrap_err();
        client
    }

    #[tokio::test]
    async fn nobody_new_comes_in_and_who_was_coming_in_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = BTreeSet::from([listener.local_addr().unwrap().port()]);
        let coming = deaf(&listener);
        assert!(has_half_open(&ports).unwrap());
        let hears = async {
            tokio::time::sleep(LOOK).await;
            // The kernel's next answer comes after a second.
            coming.detach_filter().unwrap();
        };
        let ending = [&listener];
        tokio::join!(last_call(&ending), hears);
        assert!(!has_half_open(&ports).unwrap(), "it is established");
        let new = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        new.set_nonblocking(true).unwrap();
        new.connect(&listener.local_addr().unwrap().into()).unwrap_err();
        let (mut accepted, _) = listener.accept().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody else");
        drop(listener);
        coming.set_nonblocking(false).unwrap();
        (&coming).write_all(b"x").unwrap();
        let mut got = [0];
        accepted.read_exact(&mut got).unwrap();
        assert_eq!(got, *b"x");
    }
}
