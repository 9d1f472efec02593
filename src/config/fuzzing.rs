//! What holds for any text of a configuration, of an environment file, and of a route's host. For
//! tests and the fuzz targets.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::hosts::Hosts;
use super::{Sources, diff, env_file, load};

/// A configuration is loaded, or refused with what is wrong; one that is loaded differs in nothing
/// from itself, and is shown as TOML.
pub(crate) fn configuration(bytes: &[u8]) {
    let name = format!("portok-fuzzing-{}-{:?}", std::process::id(), std::thread::current().id());
    let folder = std::env::temp_dir().join(name);
    if fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).is_ok() {
        configuration_in(&folder, bytes);
        let _gone = fs::remove_dir_all(folder);
    }
}

fn configuration_in(folder: &Path, bytes: &[u8]) {
    let file = folder.join("api.toml");
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&file);
    if opened.and_then(|mut opened| opened.write_all(bytes)).is_err() {
        return;
    }
    let text = folder.display().to_string();
    let env = [("PORTOK_STATE_DIR", &text), ("PORTOK_CONFIG_DIR", &text)];
    let env = env.map(|(key, value)| (key.to_owned(), value.clone())).into();
    let sources = Sources { file: Some(file), env, ..Sources::default() };
    match load(&sources) {
        Ok(config) => {
            assert!(diff(&config, &config).changed.is_empty());
            let shown = config.effective_toml();
            assert!(shown.parse::<toml::Table>().is_ok(), "{shown}");
        }
        Err(refused) => {
            assert!(!refused.problems.is_empty());
            assert!(refused.problems.iter().all(|problem| !problem.trim().is_empty()));
        }
    }
}

/// An environment file is read into variables that a process can have, or refused; they are the
/// same when they are written plainly.
pub(crate) fn env_files(bytes: &[u8]) {
    let Ok(variables) = env_file::parse(bytes) else { return };
    let mut written = String::new();
    for (name, value) in &variables {
        assert!(!name.is_empty() && !name.contains(['=', '\0', '\n']) && !value.contains('\0'), "{name:?}");
        if value.contains('\'') {
            return;
        }
        written.push_str(&format!("{name}='{value}'\n"));
    }
    assert_eq!(env_file::parse(written.as_bytes()), Ok(variables));
}

/// Hosts that a route is for are the same when they are read from how they are shown.
pub(crate) fn hosts(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(hosts) = text.parse::<Hosts>() {
        assert_eq!(hosts.to_string().parse(), Ok(hosts));
    }
}
