//! Which addresses a list may name. Pure.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::takes;

/// A cloud's metadata service, which tells the host's secrets to whoever asks.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// What bounds the addresses of all lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// `redis.allow`: the ranges that an address has to lie in.
    pub allow: Vec<IpNet>,
    /// The file that has it, for whoever has to add a range.
    pub file: Option<PathBuf>,
    /// Where this portokd listens, with the ports that the kernel chose.
    pub listen: Vec<SocketAddr>,
    /// The addresses of this host's interfaces: what an unspecified address in `listen` stands for.
    pub local: Vec<IpAddr>,
}

impl Bounds {
    /// `target` in the form that it is connected to: an IPv4-mapped address as IPv4.
    ///
    /// # Errors
    /// What forbids it, to follow its name.
    pub(super) fn admit(&self, target: SocketAddr) -> Result<SocketAddr, Cow<'static, str>> {
        let address = target.ip().to_canonical();
        let target = SocketAddr::new(address, target.port());
        if let Some(never) = never(address) {
            Err(never.into())
        } else if !self.allows(address) {
            Err(self.outside().into())
        } else if self.listen.iter().any(|own| takes(*own, target, &self.local)) {
            Err("is an address that this portokd listens on".into())
        } else {
            Ok(target)
        }
    }

    /// What is said of an address that `redis.allow` does not have.
    fn outside(&self) -> String {
        let file = self.file.iter().map(|file| format!(" in {}", file.display())).collect::<String>();
        format!("lies outside redis.allow; if it is to be a target, add it to redis.allow{file}")
    }

    /// Whether `redis.allow` has the address. A wide range does not name the loopback addresses in
    /// it: what listens there trusts the host's own programs.
    fn allows(&self, address: IpAddr) -> bool {
        let mut ranges = self.allow.iter().filter(|range| range.contains(&address));
        if address.is_loopback() {
            ranges.any(|range| range.network().is_loopback())
        } else {
            ranges.next().is_some()
        }
    }
}

/// Why nothing may ever be sent there; `None` where something may.
fn never(address: IpAddr) -> Option<&'static str> {
    let (link_local, unspecified, broadcast) = match address {
        // All of 0.0.0.0/8 means this host on this network (RFC 1122, 3.2.1.3).
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[0] == 0, ip == Ipv4Addr::BROADCAST),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.is_unspecified(), false),
    };
    match () {
        () if link_local => Some("is a link-local address"),
        () if unspecified => Some("is an unspecified address"),
        () if broadcast => Some("is the broadcast address"),
        () if address.is_multicast() => Some("is a multicast address"),
        () if address == IpAddr::V6(METADATA) => Some("is the address of a cloud's metadata service"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(allow: &[&str], listen: &[&str], local: &[&str]) -> Bounds {
        Bounds {
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
            listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
            local: local.iter().map(|text| text.parse().unwrap()).collect(),
            file: Some("/etc/portok/edge.toml".into()),
        }
    }

    fn admitted(bounds: &Bounds, target: &str) -> bool {
        bounds.admit(target.parse().unwrap()).is_ok()
    }

    #[test]
    fn only_what_is_allowed_is_admitted() {
        let default = bounds(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"], &[], &[]);
        for target in
            ["10.0.0.1:80", "172.31.255.255:1", "192.168.0.42:80", "[fc00::1]:80", "[::ffff:10.0.0.1]:80"]
        {
            assert!(admitted(&default, target), "{target}");
        }
        for target in [
            "11.0.0.1:80",
            "172.32.0.0:80",
            "127.0.0.1:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:8.8.8.8]:80",
            "[2001:db8::1]:80",
        ] {
            assert!(!admitted(&default, target), "{target}");
        }
        let said = default.admit("11.0.0.1:80".parse().unwrap()).unwrap_err();
        assert!(said.ends_with("add it to redis.allow in /etc/portok/edge.toml"), "{said}");
        assert_eq!(
            default.admit("[::ffff:10.0.0.1]:80".parse().unwrap()).unwrap().to_string(),
            "10.0.0.1:80"
        );
    }

    #[test]
    fn loopback_has_to_be_named() {
        let wide = bounds(&["0.0.0.0/0", "::/0"], &[], &[]);
        assert!(admitted(&wide, "8.8.8.8:80") && admitted(&wide, "[2001:db8::1]:80"));
        assert!(!admitted(&wide, "127.0.0.1:80") && !admitted(&wide, "[::1]:80"));
        let named = bounds(&["127.0.0.0/8", "::1/128"], &[], &[]);
        assert!(admitted(&named, "127.0.0.1:80") && admitted(&named, "[::1]:80"));
        assert!(!admitted(&bounds(&["127.0.0.1/32"], &[], &[]), "127.0.0.2:80"));
    }

    #[test]
    fn some_addresses_are_never_admitted() {
        let wide = bounds(&["0.0.0.0/0", "::/0", "169.254.0.0/16", "fe80::/10", "fd00::/8"], &[], &[]);
        for (target, objection) in [
            ("169.254.169.254:80", "link-local"),
            ("[::ffff:169.254.169.254]:80", "link-local"),
            ("[fe80::1]:80", "link-local"),
            ("0.0.0.0:80", "unspecified"),
            ("0.1.2.3:80", "unspecified"),
            ("[::]:80", "unspecified"),
            ("224.0.0.1:80", "multicast"),
            ("[ff02::1]:80", "multicast"),
            ("255.255.255.255:80", "broadcast"),
            ("[fd00:ec2::254]:80", "metadata"),
        ] {
            let said = wide.admit(target.parse().unwrap()).unwrap_err();
            assert!(said.contains(objection), "{target}: {said}");
        }
        assert!(admitted(&wide, "[fd00:ec2::253]:80"));
    }

    #[test]
    fn portokd_is_never_its_own_target() {
        let allow = &["127.0.0.0/8", "::1/128", "10.0.0.0/8", "fc00::/7"];
        let local = &["10.0.0.5", "fc00::5", "127.0.0.1"];
        // Where it listens, a target, whether that is another one.
        for (listen, target, is_another) in [
            ("10.0.0.5:80", "10.0.0.5:80", false),
            ("10.0.0.5:80", "[::ffff:10.0.0.5]:80", false),
            ("[::ffff:10.0.0.5]:80", "10.0.0.5:80", false),
            ("10.0.0.5:80", "10.0.0.5:81", true),
            ("10.0.0.5:80", "10.0.0.6:80", true),
            ("10.0.0.5:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "10.0.0.5:80", false),
            ("0.0.0.0:80", "10.0.0.5:81", true),
            ("0.0.0.0:80", "10.0.0.6:80", true),
            ("0.0.0.0:80", "127.0.0.9:80", false),
            ("[::]:80", "127.0.0.1:80", false),
            ("[::]:80", "[::1]:80", false),
            ("[::]:80", "[fc00::5]:80", false),
            ("[::]:80", "[fc00::6]:80", true),
        ] {
            assert_eq!(admitted(&bounds(allow, &[listen], local), target), is_another, "{listen} {target}");
        }
    }
}
