//! Reads from an instance's files where its daemon is.
//!
//! Reading is lenient: what is understood is taken, the rest is ignored. Validating a file is the
//! daemon's task.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::way::{DEFAULT_PORT, Token};
use crate::config::Secret;
use crate::host::Places;
use crate::host::files::read_limited;
use crate::plain::describe_io;

/// Where an instance's daemon is, according to its files.
#[derive(Debug)]
pub(crate) struct InstanceFile {
    pub(crate) name: Option<String>,
    pub(crate) address: Option<(String, u16)>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) token: Token,
    pub(crate) prefix: Option<String>,
    pub(crate) public: bool,
}

/// The reason why an instance's file cannot be used.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) denied: bool,
}

impl InstanceFile {
    /// Reads `NAME.toml`, then `NAME.env`, which wins, as the daemon does; `None` when neither
    /// exists.
    pub(crate) fn read(places: &Places, name: &str) -> Result<Option<Self>, Unreadable> {
        let toml_path = places.file(name, "toml");
        let toml_text = read_optional(&toml_path)?;
        let env_text = read_optional(&places.file(name, "env"))?;
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
                message: not_toml(&toml_path, &text, &error),
                hint: Some(format!(
                    "`portokd --check --instance {name}` shows the place; a daemon with a socket of its own is \
                     reached with --socket PATH"
                )),
                denied: false,
            })?;
            // With several apps the public port has admin paths only where that is configured.
            let has_folder = || places.apps(name).is_dir();
            file.public = !(table.contains_key("apps") || !table.contains_key("app") && has_folder());
            file.apply_toml(&table, &places.config);
        }
        if let Some(text) = env_text {
            file.apply_env(&parse_env(&text));
        }
        Ok(Some(file))
    }

    /// Takes what is understood and ignores the rest.
    fn apply_toml(&mut self, table: &toml::Table, folder: &Path) {
        let text = |value: &toml::Value| value.as_str().map(str::to_owned);
        self.name = table.get("name").and_then(text);
        let listen =
            table.get("listen").map(|listen| listen.as_array().map_or(Some(listen), |all| all.first()));
        match listen.flatten() {
            Some(toml::Value::Integer(port)) => self.address = connectable(&port.to_string()),
            Some(toml::Value::String(address)) => self.address = connectable(address),
            _ => {}
        }
        let Some(admin) = table.get("admin").and_then(toml::Value::as_table) else { return };
        self.socket = admin.get("socket").and_then(text).map(PathBuf::from);
        self.prefix = admin.get("prefix").and_then(text);
        // A daemon that is not public passes admin paths, and the token with them, on to the app.
        self.public = admin.get("public").and_then(toml::Value::as_bool).unwrap_or(self.public);
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

/// The address to connect to for `listen`, a port or an address; `None` if there is none.
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

/// What is wrong with a file, and where; not its line, which may hold a secret.
fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
    format!("{}:{line}: not valid TOML: {}", path.display(), error.message())
}

/// The variables of a file in systemd's syntax: as much of it as names, paths and tokens need.
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
                message: format!("cannot read {}: {}", path.display(), describe_io(&error)),
                hint: denied.then(|| {
                    "use sudo, or become a member of the socket's group (admin.socket_group)".into()
                }),
                denied,
            })
        }
    }
}
