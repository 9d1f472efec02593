//! Where the daemon is: arguments, an instance's file and the environment become an ordered list of ways.
//!
//! Nothing is connected here and no token file is read: a token is looked up when a way over TCP is really
//! taken, so that somebody who may use the socket needs no right to read the token.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::args::Global;
use super::failure::Failure;
use crate::config::Secret;

/// The instance that is meant when none is named.
const DEFAULT_INSTANCE: &str = "default";

/// The admin prefix unless the instance's file says otherwise.
const DEFAULT_PREFIX: &str = "/__";

/// The port of a daemon that was told none.
const DEFAULT_PORT: u16 = 3000;

/// The longest instance or token file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What the process finds around it. A parameter, so that tests have surroundings of their own.
pub(crate) struct Surroundings {
    /// `PORTOK_CONFIG_DIR`, or `/etc/portok`.
    pub(crate) config_dir: PathBuf,
    /// The places in which an instance's socket may lie by default, the likeliest first; never empty.
    pub(crate) socket_places: SocketPlaces,
    /// `PORTOK_URL`.
    pub(crate) url: Option<String>,
    /// `PORTOK_TOKEN`.
    pub(crate) token: Option<Secret>,
}

/// From an instance's name to where its socket may lie.
pub(crate) type SocketPlaces = Box<dyn Fn(&str) -> Vec<PathBuf>>;

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let text = |key| std::env::var(key).ok().filter(|value| !value.is_empty());
        let uid = nix::unistd::geteuid().as_raw();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Self {
            config_dir: std::env::var_os("PORTOK_CONFIG_DIR")
                .filter(|dir| !dir.is_empty())
                .map_or_else(|| PathBuf::from("/etc/portok"), PathBuf::from),
            socket_places: Box::new(move |name| socket_places(name, uid, runtime.as_deref())),
            url: text("PORTOK_URL"),
            token: text("PORTOK_TOKEN").map(Secret::new),
        }
    }
}

/// A daemon, as far as it can be known without asking it.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// The ways to it, to be tried in order.
    pub(crate) ways: Vec<Way>,
    /// What every admin path starts with.
    pub(crate) prefix: String,
    /// The instance, where one is meant.
    pub(crate) instance: Option<String>,
    /// What stood in the way of knowing more, to be told when no way works.
    pub(crate) remark: Option<String>,
}

/// One way to a daemon.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Way {
    /// A unix socket: the peer's uid is its right.
    Socket(PathBuf),
    /// Plain HTTP: the token is its right.
    Tcp { host: String, port: u16, token: Token },
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// There is none.
    None,
    /// Given.
    Value(Secret),
    /// In this file, read when it is needed.
    File(PathBuf),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, .. } => write!(f, "http://{}", authority(host, *port)),
        }
    }
}

/// `host:port` as it stands in a URL.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Token {
    /// The token itself.
    ///
    /// # Errors
    /// Its file cannot be read: the reason, with the file's name and without its content.
    pub(crate) fn read(&self) -> Result<Option<Secret>, (String, ErrorKind)> {
        match self {
            Self::None => Ok(None),
            Self::Value(secret) => Ok(Some(secret.clone())),
            Self::File(path) => match read_limited(path) {
                Ok(text) => Ok(Some(Secret::new(text.trim().to_owned()))),
                Err(error) => {
                    Err((format!("cannot read the token file {}: {error}", path.display()), error.kind()))
                }
            },
        }
    }
}

/// Finds the daemon that `global` means; the order is the contract's.
///
/// # Errors
/// A URL that cannot be used; an instance's file that cannot be read, or is not TOML, where nothing else
/// leads to the instance.
pub(crate) fn locate(global: &Global, around: &Surroundings) -> Result<Daemon, Failure> {
    let given = global.token.clone().map(Secret::new);
    let plain = |ways, prefix| Daemon { ways, prefix, instance: None, remark: None };
    let outer_token = || given.clone().or_else(|| around.token.clone()).map_or(Token::None, Token::Value);
    if let Some(url) = &global.url {
        let (way, prefix) = parse_url("--url", url, outer_token())?;
        return Ok(plain(vec![way], prefix));
    }
    if let Some(socket) = &global.socket {
        return Ok(plain(vec![Way::Socket(socket.clone())], DEFAULT_PREFIX.to_owned()));
    }
    if let Some(name) = &global.instance {
        return instance(name, given, around, InstanceFile::read(&around.config_dir, name));
    }
    if let Some(url) = &around.url {
        let (way, prefix) = parse_url("PORTOK_URL", url, outer_token())?;
        return Ok(plain(vec![way], prefix));
    }
    let mut ways = default_ways(DEFAULT_INSTANCE, around);
    ways.push(Way::Tcp { host: Ipv4Addr::LOCALHOST.to_string(), port: DEFAULT_PORT, token: outer_token() });
    Ok(Daemon {
        ways,
        prefix: DEFAULT_PREFIX.to_owned(),
        instance: Some(DEFAULT_INSTANCE.to_owned()),
        remark: None,
    })
}

/// The ways to the instance `name`, by what reading its files brought.
fn instance(
    name: &str,
    given: Option<Secret>,
    around: &Surroundings,
    file: Result<Option<InstanceFile>, Unreadable>,
) -> Result<Daemon, Failure> {
    let mut daemon = Daemon {
        ways: Vec::new(),
        prefix: DEFAULT_PREFIX.to_owned(),
        instance: Some(name.to_owned()),
        remark: None,
    };
    let file = match file {
        Ok(Some(file)) => file,
        Ok(None) => {
            daemon.ways = default_ways(name, around);
            daemon.remark =
                Some(format!("there is no {name}.toml or {name}.env in {}", around.config_dir.display()));
            return Ok(daemon);
        }
        Err(unreadable) => {
            // A member of the socket's group may use the socket without a right to the file.
            daemon.ways = existing(name, around);
            if daemon.ways.is_empty() || !unreadable.denied {
                return Err(Failure::Usage { message: unreadable.message, hint: unreadable.hint });
            }
            daemon.remark = Some(unreadable.message);
            return Ok(daemon);
        }
    };
    daemon.ways = match file.socket {
        Some(socket) => vec![Way::Socket(socket)],
        None => default_ways(file.name.as_deref().unwrap_or(name), around),
    };
    if let Some((host, port)) = file.address.filter(|_| file.public) {
        let token = match given {
            Some(token) => Token::Value(token),
            None if file.token == Token::None => around.token.clone().map_or(Token::None, Token::Value),
            None => file.token,
        };
        daemon.ways.push(Way::Tcp { host, port, token });
    }
    if let Some(prefix) = file.prefix {
        daemon.prefix = prefix;
    }
    Ok(daemon)
}

/// The default sockets of `name` that may be there; when none is, the likeliest, so that an error names it.
fn default_ways(name: &str, around: &Surroundings) -> Vec<Way> {
    let mut ways = existing(name, around);
    if ways.is_empty() {
        ways.extend((around.socket_places)(name).into_iter().next().map(Way::Socket));
    }
    ways
}

fn existing(name: &str, around: &Surroundings) -> Vec<Way> {
    let there = |path: &PathBuf| match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        // Its folder is closed to this user: connecting will say so.
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    };
    (around.socket_places)(name).into_iter().filter(there).map(Way::Socket).collect()
}

/// All places for the socket of `name` that this user can trust, the user's own first.
fn socket_places(name: &str, uid: u32, runtime: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let temporary = default_socket(name, uid, None);
    for place in [default_socket(name, uid, runtime), default_socket(name, 0, None), temporary.clone()] {
        if places.contains(&place) || (place == temporary && uid != 0 && !is_private(&temporary, uid)) {
            continue;
        }
        places.push(place);
    }
    places
}

/// Whether the folder of `socket` under the temporary folder, which everybody may write, is `uid`'s alone.
/// Somebody else's would be handed the environment of a deploy.
fn is_private(socket: &Path, uid: u32) -> bool {
    socket.parent().and_then(Path::parent).is_some_and(|folder| {
        std::fs::symlink_metadata(folder)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0)
    })
}

/// The default place of an instance's socket.
fn default_socket(name: &str, uid: u32, xdg_runtime_dir: Option<&Path>) -> PathBuf {
    let folder = match (uid, xdg_runtime_dir) {
        (0, _) => PathBuf::from("/run/portok"),
        (_, Some(runtime)) => runtime.join("portok"),
        (uid, None) => PathBuf::from(format!("/tmp/portok-{uid}")),
    };
    folder.join(name).join("admin.sock")
}

/// Takes a URL apart: where to connect, and the admin prefix when the URL has a path.
fn parse_url(source: &str, url: &str, token: Token) -> Result<(Way, String), Failure> {
    let refuse = |why: &str, hint: &str| {
        let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
        Err(Failure::usage(format!("{source} `{shown}`: {why}"), hint))
    };
    let example = "expected http://host:port, such as http://127.0.0.1:3000";
    let Ok(uri) = url.parse::<http::Uri>() else { return refuse("not a URL", example) };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            let hint = "use http:// on the daemon's host, or forward its port over ssh: ssh -L 3000:127.0.0.1:3000 HOST";
            return refuse("TLS is not spoken here", hint);
        }
        _ => return refuse("not an http URL", example),
    }
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return refuse("the host is missing", example);
    };
    if authority.as_str().contains('@') {
        return refuse("a user in a URL is not supported", "give the token with --token or PORTOK_TOKEN");
    }
    if uri.query().is_some() {
        return refuse("a query has no meaning here", example);
    }
    let port = match authority.port_u16() {
        Some(0) => return refuse("port 0 cannot be connected to", example),
        Some(port) => port,
        None if authority.as_str() == authority.host() => 80,
        None => return refuse("the port is not a number from 1 to 65535", example),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let prefix = match uri.path() {
        "" | "/" => DEFAULT_PREFIX.to_owned(),
        path => path.to_owned(),
    };
    Ok((Way::Tcp { host, port, token }, prefix))
}

/// What an instance's files say about where it is.
#[derive(Debug)]
struct InstanceFile {
    name: Option<String>,
    address: Option<(String, u16)>,
    socket: Option<PathBuf>,
    token: Token,
    prefix: Option<String>,
    public: bool,
}

/// Why an instance's file says nothing.
#[derive(Debug)]
struct Unreadable {
    message: String,
    hint: Option<String>,
    denied: bool,
}

impl InstanceFile {
    /// Reads `NAME.toml`, then lays `NAME.env` over it, as the daemon does; `None` when neither is there.
    fn read(folder: &Path, name: &str) -> Result<Option<Self>, Unreadable> {
        let toml_path = folder.join(format!("{name}.toml"));
        let toml_text = read_optional(&toml_path)?;
        let env_text = read_optional(&folder.join(format!("{name}.env")))?;
        if toml_text.is_none() && env_text.is_none() {
            return Ok(None);
        }
        let mut file = Self {
            name: None,
            address: Some((Ipv4Addr::LOCALHOST.to_string(), DEFAULT_PORT)),
            socket: None,
            token: Token::None,
            prefix: None,
            public: true,
        };
        if let Some(text) = toml_text {
            let table = text.parse::<toml::Table>().map_err(|error| Unreadable {
                message: format!("{}: not TOML: {}", toml_path.display(), error.message()),
                hint: Some(format!("`portokd --check --instance {name}` shows the place")),
                denied: false,
            })?;
            file.apply_toml(&table, folder);
        }
        if let Some(text) = env_text {
            file.apply_env(&parse_env(&text));
        }
        Ok(Some(file))
    }

    /// Takes what fits and passes over the rest: judging the file is the daemon's task.
    fn apply_toml(&mut self, table: &toml::Table, folder: &Path) {
        let text = |value: &toml::Value| value.as_str().map(str::to_owned);
        self.name = table.get("name").and_then(text);
        match table.get("listen") {
            Some(toml::Value::Integer(port)) => self.address = connectable(&port.to_string()),
            Some(toml::Value::String(address)) => self.address = connectable(address),
            _ => {}
        }
        let Some(admin) = table.get("admin").and_then(toml::Value::as_table) else { return };
        self.socket = admin.get("socket").and_then(text).map(PathBuf::from);
        self.prefix = admin.get("prefix").and_then(text);
        // Without it the admin paths, and a token with them, would go to the app.
        self.public = admin.get("public").and_then(toml::Value::as_bool).unwrap_or(true);
        if let Some(path) = admin.get("token_file").and_then(text) {
            self.token = Token::File(folder.join(path));
        }
        if let Some(token) = admin.get("token").and_then(text) {
            self.token = Token::Value(Secret::new(token));
        }
    }

    fn apply_env(&mut self, variables: &BTreeMap<String, String>) {
        let get = |key| variables.get(key).filter(|value| !value.is_empty());
        if let Some(name) = get("INSTANCE_NAME") {
            self.name = Some(name.clone());
        }
        if let Some(port) = get("LISTEN_PORT") {
            self.address = connectable(port);
        }
        if let Some(socket) = get("ADMIN_UNIX_SOCKET") {
            self.socket = Some(PathBuf::from(socket));
        }
        if let Some(token) = get("ADMIN_TOKEN") {
            self.token = Token::Value(Secret::new(token.clone()));
        }
    }
}

/// Where to connect to reach what listens on `listen` (a port or an address); `None` for what cannot be.
fn connectable(listen: &str) -> Option<(String, u16)> {
    let (ip, port) = match listen.parse::<u16>() {
        Ok(port) => (IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        Err(_) => {
            let address = listen.parse::<SocketAddr>().ok()?;
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            (ip, address.port())
        }
    };
    (port != 0).then(|| (ip.to_string(), port))
}

/// The variables of a file in systemd's syntax, as far as names, paths and tokens need it: comments, quotes.
fn parse_env(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let quoted = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        variables.insert(key.trim().to_owned(), value.to_owned());
    }
    variables
}

fn read_optional(path: &Path) -> Result<Option<String>, Unreadable> {
    match read_limited(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let denied = error.kind() == ErrorKind::PermissionDenied;
            Err(Unreadable {
                message: format!("cannot read {}: {error}", path.display()),
                hint: denied.then(|| {
                    "use sudo, or become a member of the socket's group (admin.socket_group)".into()
                }),
                denied,
            })
        }
    }
}

fn read_limited(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let n_bytes = std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if n_bytes as u64 > MAX_FILE {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, format!("longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
