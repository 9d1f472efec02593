//! The files of certificates: which there are, and what is in them.
//!
//! The only reader of them. A key is a secret: a file that others may write is refused, and one
//! that everybody may read is warned about. What is in it is never said.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::acme::{Plan, file_of};
use super::pair::Pair;
use crate::config::watch::Way;
use crate::config::{Config, read_certificate, read_key};

/// The most entries of the folder of certificates that are looked at.
const MOST: usize = 10_000;

/// The endings of a certificate's file, the first before the second.
const CERTIFICATES: [&str; 2] = ["crt", "pem"];

const KEY: &str = "key";

/// Whose a pair of files is, and what it is called: an app's own by the app, one of the folder by
/// its file without the ending. Those of apps come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    App(String),
    Folder(String),
    /// One that has come by itself, called by its host.
    Acme(String),
}

impl Id {
    /// The name alone.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::App(name) | Self::Folder(name) | Self::Acme(name) => name,
        }
    }
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What a configuration says of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    folder: Option<PathBuf>,
    apps: BTreeMap<Id, Files>,
    acme: BTreeMap<Id, Files>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) pairs: BTreeMap<Id, FoundPair>,
    /// Why the folder cannot be read. Then nothing is known of what is in it.
    pub(super) unreadable: Option<(PathBuf, String)>,
}

/// Two files and what became of them.
#[derive(Debug, Clone)]
pub(super) struct FoundPair {
    pub(super) files: Files,
    /// The pair, or what is wrong with the files.
    pub(super) pair: Result<Arc<Pair>, String>,
    /// What is odd about them.
    pub(super) warning: Option<String>,
    /// A hash of their content.
    content: Option<u64>,
}

impl Places {
    pub(super) fn of(config: &Config) -> Self {
        let Some(tls) = &config.tls else { return Self::default() };
        let several = config.apps.iter().flat_map(|several| several.apps.values());
        let apps = several.chain([&config.app]).filter_map(|app| {
            let (certificate, key) = app.tls.pair()?;
            let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
            Some((Id::App(app.name.clone()), files))
        });
        let acme = Plan::of(config).into_iter().flat_map(|plan| {
            plan.hosts.into_iter().map(move |host| {
                let both = file_of(&plan.folder, &host);
                let files = Files { certificate: both.clone(), key: both };
                (Id::Acme(host), files)
            })
        });
        Self { folder: tls.cert_dir.clone(), apps: apps.collect(), acme: acme.collect() }
    }

    /// Whether files of this name are meant.
    pub(super) fn name(&self, id: &Id, files: &Files) -> bool {
        match id {
            Id::App(_) => self.apps.get(id) == Some(files),
            Id::Acme(_) => self.acme.get(id) == Some(files),
            Id::Folder(_) => files.certificate.parent().is_some_and(|of| self.folder.as_deref() == Some(of)),
        }
    }

    /// Where a change of the files can happen.
    pub(super) fn way(&self) -> Way {
        let mut way = Way::default();
        if let Some(folder) = &self.folder {
            way.add_folder(folder, MOST, |_| true);
        }
        for Files { certificate, key } in self.apps.values() {
            way.add(certificate);
            way.add(key);
        }
        if let Some(folder) = self.acme.values().next().and_then(|files| files.certificate.parent()) {
            way.add_folder(folder, MOST, |_| true);
        }
        way
    }

    /// Reads what is there. What has not changed since `before` is not taken apart again.
    pub(super) fn look(&self, before: &Found, provider: &CryptoProvider) -> Found {
        let mut found = Found::default();
        let mut all = self.apps.clone();
        if let Some(folder) = &self.folder {
            match pairs_in(folder) {
                Ok(pairs) => all.extend(pairs),
                Err(error) => {
                    let why = format!("cannot read the folder of certificates: {error}");
                    found.unreadable = Some((folder.clone(), why));
                }
            }
        }
        // One that has not come yet is not missing.
        let has_come = |(_, files): &(&Id, &Files)| files.certificate.exists();
        all.extend(self.acme.iter().filter(has_come).map(|(id, files)| (id.clone(), files.clone())));
        for (id, files) in all {
            let known = before.pairs.get(&id).filter(|known| known.files == files);
            found.pairs.insert(id, FoundPair::read(files, known, provider));
        }
        found
    }
}

/// The pairs in a folder. One that lacks a file is among them: whoever put the other one there
/// wants to know.
fn pairs_in(folder: &Path) -> io::Result<BTreeMap<Id, Files>> {
    let mut endings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (number, entry) in fs::read_dir(folder)?.enumerate() {
        if number == MOST {
            return Err(io::Error::other(format!("it has more than {MOST} entries")));
        }
        let path = entry?.path();
        let [stem, ending] = [path.file_stem(), path.extension()].map(|part| part.and_then(OsStr::to_str));
        let (Some(stem), Some(ending)) = (stem, ending) else { continue };
        if !stem.starts_with('.') && (ending == KEY || CERTIFICATES.contains(&ending)) {
            endings.entry(stem.to_owned()).or_default().insert(ending.to_owned());
        }
    }
    let files = |(stem, has): (String, BTreeSet<String>)| {
        let certificate = CERTIFICATES.into_iter().find(|ending| has.contains(*ending)).unwrap_or("crt");
        let at = |ending: &str| folder.join(format!("{stem}.{ending}"));
        let files = Files { certificate: at(certificate), key: at(KEY) };
        (Id::Folder(stem), files)
    };
    Ok(endings.into_iter().map(files).collect())
}

impl FoundPair {
    fn read(files: Files, known: Option<&Self>, provider: &CryptoProvider) -> Self {
        let certificate = read_certificate(&files.certificate);
        let (key, is_open) = match read_key(&files.key) {
            Ok((key, is_open)) => (Ok(key), is_open),
            Err(error) => (Err(error), false),
        };
        let warning = is_open.then(|| {
            let key = files.key.display();
            format!("{key}: everybody may read the key; run: chmod o-r {key}")
        });
        let unread = |path: &Path, error: io::Error| format!("cannot read {}: {error}", path.display());
        let (certificate, key) = match (certificate, key) {
            (Ok(certificate), Ok(key)) => (certificate, key),
            (Err(error), _) => {
                let pair = Err(unread(&files.certificate, error));
                return Self { files, pair, warning, content: None };
            }
            (_, Err(error)) => {
                let pair = Err(unread(&files.key, error));
                return Self { files, pair, warning, content: None };
            }
        };
        let mut hasher = DefaultHasher::new();
        (&certificate, &key).hash(&mut hasher);
        let content = Some(hasher.finish());
        if let Some(known) = known.filter(|known| known.content == content) {
            return Self { files, pair: known.pair.clone(), warning, content };
        }
        let pair = Pair::read(&certificate, &key, provider).map(Arc::new).map_err(|fault| {
            let file = if fault.is_of_the_key() { &files.key } else { &files.certificate };
            format!("{}: {fault}", file.display())
        });
        Self { files, pair, warning, content }
    }
}
