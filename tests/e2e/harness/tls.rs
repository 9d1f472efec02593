//! Certificates that a test makes, and clients that trust who vouches for them.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use super::http::Conn;
use super::wait::DEADLINE;

/// Vouches for the certificates of a test.
pub(crate) struct Authority {
    own: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// How a client speaks TLS. Its sessions are taken up again by all connections with it.
#[derive(Debug, Clone)]
pub(crate) struct Terms(Arc<ClientConfig>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than those it vouches for have.
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        Self { own: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A certificate for these hosts.
    pub(crate) fn issue(&self, hosts: &[&str]) -> Pair {
        self.made(hosts, |_| {})
    }

    /// One that holds until then.
    pub(crate) fn issue_until(&self, hosts: &[&str], end: SystemTime) -> Pair {
        let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.made(hosts, |params| params.not_after = date_time_ymd(1970, 1, 1) + since_1970)
    }

    fn made(&self, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.own).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// A client of either version.
    pub(crate) fn terms(&self) -> Terms {
        self.terms_of(&[&TLS13, &TLS12])
    }

    /// A client of these versions alone.
    pub(crate) fn terms_of(&self, versions: &[&'static SupportedProtocolVersion]) -> Terms {
        Terms::of(self.own.der().clone(), versions)
    }

    /// Its own certificate as a file, for other programs.
    pub(crate) fn save(&self, folder: &Path) -> PathBuf {
        let path = folder.join("authority.pem");
        fs::write(&path, self.own.pem()).unwrap();
        path
    }
}

impl Pair {
    /// Puts the pair into a folder, each file in one step.
    pub(crate) fn put(&self, folder: &Path, name: &str) {
        put(folder, &format!("{name}.key"), &self.key);
        put(folder, &format!("{name}.crt"), &self.certificate);
    }
}

/// Serves whoever connects to `listener`, each by a thread of its own, with the handshake done.
pub(crate) fn serve(listener: TcpListener, pair: &Pair, each: impl Fn(&mut Conn) + Send + Sync + 'static) {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let terms = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (terms, each) = (Arc::new(terms), Arc::new(each));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let server = ServerConnection::new(Arc::clone(&terms)).unwrap();
            let stream = StreamOwned::new(server, stream.unwrap());
            let each = Arc::clone(&each);
            thread::spawn(move || each(&mut Conn::from_tls_server(stream)));
        }
    });
}

/// Puts a file into a folder in one step.
pub(crate) fn put(folder: &Path, name: &str, text: &str) {
    let new = folder.join(".new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, folder.join(name)).unwrap();
}

fn first_message(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

impl Terms {
    /// The same, for a client that speaks these protocols.
    pub(crate) fn speaking(&self, protocols: &[&[u8]]) -> Self {
        let mut terms = ClientConfig::clone(&self.0);
        terms.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self(Arc::new(terms))
    }

    fn of(root: CertificateDer<'static>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let terms = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(terms))
    }

    /// A client that trusts whom this certificate in PEM is of.
    pub(crate) fn trusting(root: &[u8]) -> Self {
        Self::of(CertificateDer::from_pem_slice(root).unwrap(), &[&TLS13, &TLS12])
    }

    /// A connection to `addr` that means `host`, with the handshake done.
    pub(crate) fn connect(&self, addr: SocketAddr, host: &str) -> io::Result<Conn> {
        let mut stream = self.begin(addr, host)?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Conn::from_tls(stream))
    }

    /// The same, with the client's first message in pieces of one byte.
    pub(crate) fn connect_in_pieces(&self, addr: SocketAddr, host: &str) -> io::Result<Conn> {
        let mut stream = self.begin(addr, host)?;
        for byte in first_message(&mut stream.conn) {
            stream.sock.write_all(&[byte])?;
        }
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Conn::from_tls(stream))
    }

    /// The first message of a client that means `host`.
    pub(crate) fn hello(&self, host: &str) -> Vec<u8> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        first_message(&mut ClientConnection::new(Arc::clone(&self.0), name).unwrap())
    }

    /// A connection that has said nothing yet.
    fn begin(&self, addr: SocketAddr, host: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let client = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(client, stream))
    }

    /// Why a handshake fails.
    #[track_caller]
    pub(crate) fn refused(&self, addr: SocketAddr, host: &str) -> String {
        match self.connect(addr, host) {
            Ok(_) => panic!("{host} was accepted"),
            Err(error) => error.to_string(),
        }
    }
}
