//! One client address that takes what it can get, and others that are served all the while.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, wait_until};

/// More than the connections to the app that one target may have.
const MANY: usize = 1_030;

/// Fewer than all, so that descriptors of a small limit are enough: the default's proportion is the same.
const MAX_CONNECTIONS: usize = 64;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn conf(world: &World) -> Conf {
    world.conf().app(&world.app("v1"))
}

fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until_serves("v1");
    daemon
}
