//! Certificates from their files to a client's handshake.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::UnixTime;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::files::{Found, Id, Places};
use super::pair::{Facts, Fault, Pair};
use super::shelf::Shelf;
use super::{Certificates, Face};
use crate::config::{self, Config, Tls, TlsVersion};
use crate::wire::{CertificateRow, CertificateState};

const LONG: Duration = Duration::from_secs(30);

/// A certificate and its key as PEM.
struct Made {
    certificate: String,
    key: String,
}

/// Makes a certificate that vouches for itself, good in these years.
fn made_in(names: &[&str], years: (i32, i32)) -> Made {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    Made { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn made(names: &[&str]) -> Made {
    made_in(names, (2020, 4000))
}

fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    let new = folder.join(".new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

impl Made {
    fn put(&self, folder: &Path, name: &str) {
        put(folder, &format!("{name}.key"), &self.key);
        put(folder, &format!("{name}.crt"), &self.certificate);
    }
}

fn config(folder: &Path, default: Option<&str>) -> Config {
    let tls = Tls {
        listen: vec!["127.0.0.1:443".parse().unwrap()],
        cert_dir: Some(folder.to_owned()),
        default: default.map(str::to_owned),
        min_version: TlsVersion::V12,
        redirect: Some(308),
        hsts: None,
        acme: None,
    };
    Config { tls: Some(tls), ..config::of_an_empty_file() }
}

fn read(certificate: &str, key: &str) -> Result<Pair, Fault> {
    Pair::read(certificate.as_bytes(), key.as_bytes(), &default_provider())
}

#[test]
fn a_pair_says_for_whom_and_until_when_it_is() {
    let one = made_in(&["Example.com", "*.example.com", "10.0.0.1", "::1"], (2020, 2030));
    let pair = read(&one.certificate, &one.key).unwrap();
    let names: Vec<_> = pair.facts.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["example.com", "*.example.com", "10.0.0.1", "[::1]"]);
    let until = humantime::format_rfc3339(pair.facts.not_after).to_string();
    assert_eq!(until, "2030-01-01T00:00:00Z");
    assert!(pair.facts.issuer.contains("CN="), "{}", pair.facts.issuer);
}

#[test]
fn two_files_that_are_no_pair_say_why_and_nothing_of_the_key() {
    let (one, other) = (made(&["a.example"]), made(&["b.example"]));
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = one.key.replacen("MIG", "!!!", 1);
    let chain = format!("{}{}", other.certificate, one.certificate);
    let many = one.certificate.repeat(17);
    for (certificate, key, fault) in [
        (&*one.certificate, &*other.key, Fault::Mismatch),
        (&chain, &one.key, Fault::Order(2)),
        (&one.key, &one.key, Fault::NoCertificate),
        ("", &one.key, Fault::NoCertificate),
        (&many, &one.key, Fault::TooMany),
        (&one.certificate, &one.certificate, Fault::NoKey),
        (&one.certificate, locked, Fault::Locked),
    ] {
        assert_eq!(read(certificate, key).unwrap_err(), fault);
    }
    let fault = read(&one.certificate, &broken).unwrap_err();
    let secret = broken.lines().nth(1).unwrap();
    assert!(fault.is_of_the_key() && !fault.to_string().contains(secret), "{fault}");
    let cut = &one.certificate[..one.certificate.len() / 2];
    assert!(matches!(read(cut, &one.key), Err(Fault::BrokenPem(_) | Fault::NoCertificate)));
    // A chain behind the certificate that the key belongs to is as it should be.
    read(&format!("{}{}", one.certificate, other.certificate), &one.key).unwrap();
}

/// Looks at a folder again and again, at times of its own.
struct Looks {
    folder: tempfile::TempDir,
    places: Places,
    found: Found,
    shelf: Shelf,
    now: SystemTime,
}

impl Looks {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&config(folder.path(), None));
        let (found, shelf) = (Found::default(), Shelf::default());
        Self { folder, places, found, shelf, now: SystemTime::now() }
    }

    fn look(&mut self) -> Vec<(String, CertificateState)> {
        self.found = self.places.look(&self.found, &default_provider());
        self.shelf = self.shelf.next(&self.found, &self.places, self.now);
        self.rows(None).into_iter().map(|row| (row.name, row.state)).collect()
    }

    fn rows(&self, default: Option<&str>) -> Vec<CertificateRow> {
        self.shelf.rows(default, self.now)
    }

    fn error(&self, name: &str) -> String {
        let rows = self.rows(None);
        rows.into_iter().find(|row| row.name == name).and_then(|row| row.error).unwrap_or_default()
    }
}

fn one(name: &str, state: CertificateState) -> Vec<(String, CertificateState)> {
    vec![(name.to_owned(), state)]
}

#[test]
fn a_pair_that_becomes_bad_serves_until_it_expires() {
    use CertificateState::{Bad, Expired, Kept, Serving};
    let mut looks = Looks::new();
    let folder = looks.folder.path().to_owned();
    assert_eq!(looks.look(), []);
    put(&folder, "shop.crt", "no certificate");
    assert_eq!(looks.look(), one("shop", Bad));
    assert!(looks.error("shop").contains("shop.key: No such file"), "{}", looks.error("shop"));
    let good = made(&["shop.example"]);
    good.put(&folder, "shop");
    assert_eq!(looks.look(), one("shop", Serving));
    // Another pair is being written: its key is there before its certificate.
    put(&folder, "shop.key", &made(&["shop.example"]).key);
    assert_eq!(looks.look(), one("shop", Kept));
    assert!(looks.error("shop").contains("belongs to another certificate"), "{}", looks.error("shop"));
    made_in(&["shop.example"], (2000, 2001)).put(&folder, "shop");
    assert_eq!(looks.look(), one("shop", Kept));
    assert!(looks.error("shop").contains("expired at 2001-01-01"), "{}", looks.error("shop"));
    fs::remove_file(folder.join("shop.key")).unwrap();
    assert_eq!(looks.look(), one("shop", Kept));
    fs::remove_file(folder.join("shop.crt")).unwrap();
    assert_eq!(looks.look(), one("shop", Kept));
    assert_eq!(looks.error("shop"), "its files are gone");
    assert_eq!(looks.shelf.serving(looks.now)[0].1.facts.names[0].to_string(), "shop.example");
    let soon = made_in(&["shop.example"], (2020, 3000));
    soon.put(&folder, "shop");
    assert_eq!(looks.look(), one("shop", Serving));
    looks.now = SystemTime::UNIX_EPOCH + Duration::from_secs(32_503_680_000);
    assert_eq!(looks.look(), one("shop", Expired));
    assert!(looks.shelf.serving(looks.now).is_empty());
    // A clock that jumps back.
    looks.now = SystemTime::now();
    assert_eq!(looks.look(), one("shop", Serving));
}

#[test]
fn a_folder_that_cannot_be_read_leaves_all_as_it_is() {
    let mut looks = Looks::new();
    let folder = looks.folder.path().join("certs");
    looks.places = Places::of(&config(&folder, None));
    fs::create_dir(&folder).unwrap();
    made(&["a.example"]).put(&folder, "a");
    looks.look();
    fs::rename(&folder, folder.with_file_name("away")).unwrap();
    let rows = looks.look();
    assert!(rows.contains(&("a".to_owned(), CertificateState::Kept)), "{rows:?}");
    let row = looks.rows(None).into_iter().find(|row| row.name != "a").unwrap();
    assert!(row.error.unwrap().contains("cannot read the folder of certificates"));
    fs::rename(folder.with_file_name("away"), &folder).unwrap();
    assert_eq!(looks.look(), one("a", CertificateState::Serving));
    // Where nothing names it any more, it is gone.
    looks.places = Places::default();
    assert_eq!(looks.look(), []);
}

#[test]
fn rows_say_what_is_odd() {
    let mut looks = Looks::new();
    let folder = looks.folder.path().to_owned();
    made(&["open.example"]).put(&folder, "open");
    fs::set_permissions(folder.join("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    made(&["wide.example"]).put(&folder, "wide");
    fs::set_permissions(folder.join("wide.key"), fs::Permissions::from_mode(0o666)).unwrap();
    made(&[]).put(&folder, "nameless");
    made_in(&["early.example"], (3000, 3001)).put(&folder, "early");
    looks.look();
    let rows = looks.rows(Some("lost"));
    let of = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
    assert!(of("open").warning.as_ref().unwrap().contains("chmod o-r"), "{:?}", of("open"));
    assert_eq!((of("open").state, &of("open").error), (CertificateState::Serving, &None));
    assert!(of("wide").error.as_ref().unwrap().contains("everybody may write it"), "{:?}", of("wide"));
    assert!(of("nameless").error.as_ref().unwrap().contains("no subjectAltName"));
    assert_eq!(of("early").state, CertificateState::NotYetValid);
    assert!(of("lost").default && of("lost").error.is_some());
    let by_default = looks.rows(Some("nameless"));
    let nameless = by_default.iter().find(|row| row.name == "nameless").unwrap();
    assert!(nameless.default && nameless.error.is_none() && nameless.days.unwrap() > 365_000);
}

#[test]
fn of_two_certificates_for_a_name_the_app_s_own_comes_first_and_then_what_holds_longest() {
    let mut looks = Looks::new();
    let folder = looks.folder.path().to_owned();
    let other = tempfile::tempdir().unwrap();
    made_in(&["a.example"], (2020, 3000)).put(&folder, "old");
    made_in(&["a.example"], (2020, 3001)).put(&folder, "new");
    made_in(&["a.example"], (2999, 3999)).put(&folder, "next");
    made_in(&["a.example"], (2020, 2999)).put(other.path(), "own");
    let mut config = config(&folder, None);
    let app = Arc::make_mut(&mut config.app);
    app.name = "shop".to_owned();
    app.tls.cert = Some(other.path().join("own.crt"));
    app.tls.key = Some(other.path().join("own.key"));
    looks.places = Places::of(&config);
    looks.look();
    let order: Vec<_> = looks.shelf.serving(looks.now).into_iter().map(|(id, _)| id.clone()).collect();
    let in_folder = |name: &str| Id::Folder(name.to_owned());
    let expected = [Id::App("shop".to_owned()), in_folder("new"), in_folder("old"), in_folder("next")];
    assert_eq!(order, expected);
}

/// Believes every certificate whose key the server has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The names of the certificate that a client is shown that means `host`, or the alert.
async fn shown(face: &Face, host: &str) -> Result<Vec<String>, AlertDescription> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let provider = Arc::new(default_provider());
    let terms = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let client = TlsConnector::from(Arc::new(terms)).connect(name, near);
    let (server, client) = tokio::join!(face.greet(far), client);
    match client {
        Ok(stream) => {
            let (_, choice) = server.unwrap();
            assert!(choice.allows(host.as_bytes()));
            let certificates = stream.get_ref().1.peer_certificates().unwrap();
            let facts = Facts::of(&certificates[0]).unwrap();
            Ok(facts.names.iter().map(ToString::to_string).collect())
        }
        Err(error) => match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Err(*alert),
            other => panic!("{other:?}"),
        },
    }
}

#[tokio::test]
async fn a_client_is_shown_what_its_host_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    made(&["a.example"]).put(folder.path(), "a");
    made(&["*.wild.example"]).put(folder.path(), "wild");
    made(&["main.example"]).put(folder.path(), "main");
    let (certificates, _keeper) = Certificates::start(&config(folder.path(), None)).unwrap();
    let face = certificates.face();
    assert_eq!(shown(&face, "a.example").await.unwrap(), ["a.example"]);
    assert_eq!(shown(&face, "x.wild.example").await.unwrap(), ["*.wild.example"]);
    assert_eq!(shown(&face, "x.y.wild.example").await, Err(AlertDescription::UnrecognisedName));
    // An address is no name: such a client names no host.
    assert_eq!(shown(&face, "127.0.0.1").await, Err(AlertDescription::UnrecognisedName));
    let (certificates, _keeper) = Certificates::start(&config(folder.path(), Some("main"))).unwrap();
    let face = certificates.face();
    assert_eq!(shown(&face, "b.example").await.unwrap(), ["main.example"]);
    assert_eq!(shown(&face, "127.0.0.1").await.unwrap(), ["main.example"]);
    assert_eq!(shown(&face, "a.example").await.unwrap(), ["a.example"]);
    assert!(face.covers(b"a.example:8443") && !face.covers(b"b.example"));
}

#[tokio::test]
async fn files_that_change_are_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    made(&["a.example"]).put(folder.path(), "a");
    let config = config(folder.path(), None);
    let (certificates, keeper) = Certificates::start(&config).unwrap();
    let keeper = tokio::spawn(keeper);
    assert!(certificates.face().covers(b"a.example"));
    made(&["b.example"]).put(folder.path(), "b");
    until(|| certificates.face().covers(b"b.example")).await;
    put(folder.path(), "b.crt", "broken");
    until(|| certificates.rows().iter().any(|row| row.state == CertificateState::Kept)).await;
    assert!(certificates.face().covers(b"b.example"));
    made(&["b.example", "c.example"]).put(folder.path(), "b");
    until(|| certificates.face().covers(b"c.example")).await;
    certificates.configure(&Config { tls: None, ..config.clone() }).await;
    assert!(certificates.rows().is_empty() && !certificates.face().covers(b"a.example"));
    certificates.configure(&config).await;
    assert!(certificates.face().covers(b"a.example"));
    drop(certificates);
    tokio::time::timeout(LONG, keeper).await.expect("it ends with who asks").unwrap();
}

/// Waits until something holds.
async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("it comes about");
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    made(&["a.example"]).put(folder.path(), "a");
    let (certificates, _keeper) = Certificates::start(&config(folder.path(), None)).unwrap();
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let ask = tokio::io::AsyncWriteExt::write_all(&mut near, b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
    let face = certificates.face();
    let (asked, greeted) = tokio::join!(ask, face.greet(far));
    asked.unwrap();
    assert_eq!(greeted.map(|_| ()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    // One that goes away in the middle.
    let (near, far) = tokio::io::duplex(64);
    drop(near);
    face.greet(far).await.map(|_| ()).unwrap_err();
}
