//! `portok init`: the folders and units that an instance needs.
//!
//! [`plan`] decides what to do from what exists; then it is done, or only reported. Repeating
//! `init` changes nothing; after an update of portok it brings the units up to date. The units of a
//! package are used as they are.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::failure::{HostCode, HostFailure};
use super::files::{self, Existing, Readers};
use super::instances::{self, Reading};
use super::places::Places;
use super::report::HostReport;
use super::{harden, installed, systemctl, unit};

/// What [`init`] is asked for.
#[derive(Debug)]
pub(crate) struct InitOptions {
    /// Report what would be done, and do nothing.
    pub(crate) dry_run: bool,
    /// The user that portokd runs as; `root` undoes an earlier choice, and `None` leaves it.
    pub(crate) user: Option<String>,
    /// Replace unit files that portok did not write.
    pub(crate) force: bool,
}

/// What `init` is to bring about.
#[derive(Debug)]
struct Wanted {
    folders: Vec<PathBuf>,
    units: Vec<WantedUnit>,
    drop_in: PathBuf,
    /// The drop-ins of instances whose app is unmanaged.
    hardened: Vec<PathBuf>,
    /// The user that the drop-in names; `None` leaves the drop-in as it is.
    user: Option<RunsAs>,
    portokd: PathBuf,
    force: bool,
}

#[derive(Debug)]
struct WantedUnit {
    path: PathBuf,
    text: String,
    /// The package's unit, if there is one.
    packaged: Option<installed::UnitFile>,
}

/// The user that portokd runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RunsAs {
    /// root: no drop-in.
    Root,
    /// Another user, and the group by which that user reads the configurations.
    Other { name: String, group: u32 },
}

/// One thing to do, or to report.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    MakeFolder(PathBuf),
    Write { path: PathBuf, text: String, is_new: bool },
    Remove(PathBuf),
    Open(PathBuf),
    Share(PathBuf, Readers),
    Keep(PathBuf),
    Note(String),
}

/// Decides what to do. `read` returns the text of an existing file, or `None`.
fn plan(
    wanted: &Wanted,
    folder_exists: impl Fn(&Path) -> bool,
    read: impl Fn(&Path) -> Option<String>,
) -> Result<Vec<Act>, HostFailure> {
    let mut acts = Vec::new();
    for folder in &wanted.folders {
        let folder = folder.clone();
        acts.push(if folder_exists(&folder) { Act::Keep(folder) } else { Act::MakeFolder(folder) });
    }
    for unit in &wanted.units {
        plan_unit(wanted, unit, read(&unit.path), &mut acts)?;
    }
    for path in &wanted.hardened {
        match read(path) {
            Some(found) if !unit::is_ours(&found) => acts.push(Act::Keep(path.clone())),
            found => write(path.clone(), unit::hardened(), found, &mut acts),
        }
    }
    let drop_in = read(&wanted.drop_in);
    match &wanted.user {
        None => {}
        Some(RunsAs::Root) if drop_in.is_some() => acts.push(Act::Remove(wanted.drop_in.clone())),
        Some(RunsAs::Root) => {}
        Some(RunsAs::Other { name, .. }) => {
            write(wanted.drop_in.clone(), unit::drop_in(name), drop_in, &mut acts)
        }
    }
    Ok(acts)
}

fn plan_unit(
    wanted: &Wanted,
    unit: &WantedUnit,
    found: Option<String>,
    acts: &mut Vec<Act>,
) -> Result<(), HostFailure> {
    let path = unit.path.clone();
    let is_ours = found.as_deref().is_some_and(unit::is_ours);
    if let Some(package) = &unit.packaged {
        match found {
            Some(_) if is_ours || wanted.force => acts.push(Act::Remove(path)),
            Some(_) => acts.push(Act::Note(format!(
                "{} is not of portok's making and hides the package's {}; --force removes it",
                path.display(),
                package.path.display()
            ))),
            None => {}
        }
        if let Some(program) = unit::program(&package.text).filter(|program| *program != wanted.portokd) {
            acts.push(Act::Note(format!(
                "the package's unit starts {}, not {}, which is beside this portok",
                program.display(),
                wanted.portokd.display()
            )));
        }
        acts.push(Act::Keep(package.path.clone()));
        return Ok(());
    }
    if found.is_some() && !is_ours && !wanted.force {
        let message = format!("{} is not of portok's making", path.display());
        return Err(HostFailure::new(HostCode::Exists, message, "--force replaces it"));
    }
    write(path, unit.text.clone(), found, acts);
    Ok(())
}

fn write(path: PathBuf, text: String, found: Option<String>, acts: &mut Vec<Act>) {
    acts.push(match found {
        Some(found) if found == text => Act::Keep(path),
        found => Act::Write { path, text, is_new: found.is_none() },
    });
}

/// Prepares this machine, or with `dry_run` reports what it would do.
///
/// # Errors
/// A file that portok did not write is in the way, a file cannot be written, or there is no such
/// user.
pub(crate) fn init(places: &Places, options: &InitOptions) -> Result<HostReport, HostFailure> {
    let portokd = installed::portokd_beside()?;
    let refuse = |problem: String| {
        HostFailure::new(HostCode::Usage, problem, "use paths of letters, digits and ._-+@~,:")
    };
    let wanted_unit = |name: &str, text: String| {
        Ok(WantedUnit { path: places.units.join(name), text, packaged: installed::packaged(places, name)? })
    };
    let wanted = Wanted {
        folders: vec![places.config.clone(), places.state.clone()],
        units: vec![
            wanted_unit(unit::SERVICE_NAME, unit::service(&portokd, places).map_err(refuse)?)?,
            wanted_unit(unit::SOCKET_NAME, unit::socket())?,
        ],
        drop_in: places.units.join(unit::USER_DROP_IN),
        hardened: harden::wanted(places, &instances::all(places, Reading::Lenient)?),
        user: options.user.as_deref().map(user).transpose()?,
        portokd,
        force: options.force,
    };
    let mut found = std::collections::BTreeMap::new();
    for path in wanted.units.iter().map(|unit| &unit.path).chain([&wanted.drop_in]).chain(&wanted.hardened) {
        found.insert(path.clone(), files::read(path)?);
    }
    let mut acts = plan(&wanted, Path::is_dir, |path| found.get(path).cloned().flatten())?;
    if let Some(user) = &wanted.user {
        acts.extend(share(places, user)?);
    }
    let mut report = HostReport { dry_run: options.dry_run, ..HostReport::default() };
    let changes_units = acts.iter().any(|act| match act {
        Act::Write { path, .. } | Act::Remove(path) => path.starts_with(&places.units),
        _ => false,
    });
    for act in acts {
        carry_out(act, options.dry_run, &mut report)?;
    }
    if changes_units {
        reload(&mut report);
    }
    report.next(
        "portok add api --cmd \"node server.js\" --dir /srv/api",
        "an instance whose app portok starts",
    );
    report.next("portok doctor", "whether everything is in place");
    Ok(report)
}

fn carry_out(act: Act, dry_run: bool, report: &mut HostReport) -> Result<(), HostFailure> {
    match act {
        Act::MakeFolder(path) => {
            if !dry_run {
                files::make_folder(&path)?;
            }
            report.step("created", path.display());
        }
        Act::Write { path, text, is_new } => {
            if !dry_run {
                if let Some(folder) = path.parent() {
                    files::make_folder(folder)?;
                }
                files::write(&path, &text, Readers::Everybody, Existing::Replace)?;
            }
            report.file(if is_new { "created" } else { "updated" }, &path, &text);
        }
        Act::Remove(path) => {
            if !dry_run {
                files::remove(&path)?;
            }
            report.step("removed", path.display());
        }
        Act::Open(path) => {
            if !dry_run {
                files::open_folder(&path)?;
            }
            report.step("opened", path.display());
        }
        Act::Share(path, readers) => {
            if !dry_run {
                files::share(&path, readers)?;
            }
            report.step("readable", path.display());
        }
        Act::Keep(path) => {
            if !dry_run && path.is_dir() {
                files::check_folder(&path)?;
            }
            report.step("unchanged", path.display());
        }
        Act::Note(text) => report.note(text),
    }
    Ok(())
}

/// Makes systemd read its units again. Where systemd does not run, as while an image is built, the
/// files are enough.
fn reload(report: &mut HostReport) {
    if report.dry_run {
        report.step("reloaded", "systemd's units");
        return;
    }
    systemctl::read_units_again(report);
}

fn user(name: &str) -> Result<RunsAs, HostFailure> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Ok(RunsAs::Root),
        Ok(Some(user)) => Ok(RunsAs::Other { name: name.to_owned(), group: user.gid.as_raw() }),
        _ => Err(HostFailure::new(
            HostCode::Usage,
            format!("--user {name}: there is no such user"),
            format!("make one: useradd --system --shell /usr/sbin/nologin {name}"),
        )),
    }
}

/// Makes existing configurations and tokens, and their folder, readable for the new user. systemd
/// itself reads `.env` files.
fn share(places: &Places, user: &RunsAs) -> Result<Vec<Act>, HostFailure> {
    let readers = match user {
        RunsAs::Root => Readers::Owner,
        RunsAs::Other { group, .. } => Readers::Group(*group),
    };
    let mut acts = Vec::new();
    let is_open = |folder: &Path| folder.metadata().is_ok_and(|meta| meta.mode() & 0o005 == 0o005);
    if *user != RunsAs::Root && places.config.is_dir() && !is_open(&places.config) {
        acts.push(Act::Open(places.config.clone()));
    }
    for instance in instances::all(places, Reading::Lenient)? {
        for path in ["toml", "token"].map(|ending| places.file(&instance.name, ending)) {
            if path.symlink_metadata().is_ok_and(|meta| meta.is_file() && !readers.are_those_of(&meta)) {
                acts.push(Act::Share(path, readers));
            }
        }
    }
    Ok(acts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(packaged: Option<&str>, user: Option<RunsAs>, force: bool) -> Wanted {
        let packaged =
            packaged.map(|text| installed::UnitFile { path: "/lib/p@.service".into(), text: text.into() });
        Wanted {
            folders: vec!["/c".into()],
            units: vec![WantedUnit { path: "/u/p@.service".into(), text: unit::socket(), packaged }],
            drop_in: "/u/d.conf".into(),
            hardened: Vec::new(),
            user,
            portokd: "/usr/bin/portokd".into(),
            force,
        }
    }

    fn planned(wanted: &Wanted, found: &[(&str, &str)]) -> Result<Vec<Act>, HostFailure> {
        let read = |path: &Path| {
            found.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
        };
        plan(wanted, |_| found.iter().any(|(name, _)| *name == "/c"), read)
    }

    #[test]
    fn a_second_time_nothing_is_left_to_do() {
        let other = || Some(RunsAs::Other { name: "deploy".into(), group: 7 });
        let acts = planned(&wanted(None, other(), false), &[]).unwrap();
        assert!(
            matches!(&acts[..], [Act::MakeFolder(_), Act::Write { is_new: true, .. }, Act::Write { text, .. }]
            if text.contains("User=deploy\n") && text.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE\n"))
        );
        let found =
            [("/c", ""), ("/u/p@.service", &*unit::socket()), ("/u/d.conf", &*unit::drop_in("deploy"))];
        let acts = planned(&wanted(None, other(), false), &found).unwrap();
        assert!(acts.iter().all(|act| matches!(act, Act::Keep(_))), "{acts:?}");
        let acts = planned(&wanted(None, Some(RunsAs::Root), false), &found).unwrap();
        assert_eq!(acts.last(), Some(&Act::Remove("/u/d.conf".into())));
    }

    #[test]
    fn an_instance_without_an_app_of_its_own_gets_its_hardened_unit() {
        let mut wanted = wanted(None, None, false);
        wanted.hardened.push("/u/h.conf".into());
        let last = |found: &[(&str, &str)]| planned(&wanted, found).unwrap().pop();
        assert!(matches!(last(&[]), Some(Act::Write { is_new: true, .. })));
        let old = format!("{}# old", unit::hardened());
        assert!(matches!(last(&[("/u/h.conf", &old)]), Some(Act::Write { is_new: false, .. })));
        for kept in [unit::hardened(), "[Service]\n".to_owned()] {
            assert_eq!(last(&[("/u/h.conf", &kept)]), Some(Act::Keep("/u/h.conf".into())));
        }
    }

    #[test]
    fn an_old_unit_of_ours_is_updated_and_a_foreign_one_is_not() {
        let old = format!("{}# old", unit::socket());
        let acts = planned(&wanted(None, None, false), &[("/u/p@.service", &old)]).unwrap();
        assert!(matches!(acts[1], Act::Write { is_new: false, .. }));
        let foreign = [("/u/p@.service", "[Service]\n")];
        assert_eq!(planned(&wanted(None, None, false), &foreign).unwrap_err().code, HostCode::Exists);
        assert!(matches!(planned(&wanted(None, None, true), &foreign).unwrap()[1], Act::Write { .. }));
    }

    #[test]
    fn a_packages_unit_is_not_hidden() {
        let package = Some("[Service]\nExecStart=/usr/bin/portokd --instance %i\n");
        let acts = planned(&wanted(package, None, false), &[]).unwrap();
        assert_eq!(acts[1..], [Act::Keep("/lib/p@.service".into())]);
        let ours = unit::socket();
        let acts = planned(&wanted(package, None, false), &[("/u/p@.service", &ours)]).unwrap();
        assert_eq!(acts[1], Act::Remove("/u/p@.service".into()));
        let acts = planned(&wanted(package, None, false), &[("/u/p@.service", "foreign")]).unwrap();
        assert!(matches!(&acts[1], Act::Note(text) if text.contains("hides the package's")), "{acts:?}");
        let acts = planned(&wanted(Some("ExecStart=/other/portokd"), None, false), &[]).unwrap();
        assert!(matches!(&acts[1], Act::Note(text) if text.contains("starts /other/portokd")), "{acts:?}");
    }
}
