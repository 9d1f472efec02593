//! An instance of several apps: whether it is one, and which apps it has.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clashes::Accepted;
use super::defaults::APPS_OF_REDIS;
use super::files::Owner;
use super::folder::{self, AppFile, Listed};
use super::one_of_several::{self, Sections};
use super::paths;
use super::raw::Raw;
use super::read::{Given, Reader};
use super::validate::Shape;
use super::{AppConfig, Config, Several, Sources};

/// What a running daemon started as, which no edit of its configuration changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// One app.
    One,
    /// Several.
    Several {
        /// Whether there was a folder of apps. Then it has to be there.
        folder: bool,
    },
}

impl Sources {
    /// From now on these are the sources of a daemon that runs with `config`, which they made: what
    /// it holds on to is read as it was.
    pub fn hold_to(&mut self, config: &Config) {
        // If the file vanishes now, that is an error, not an instance without a file.
        if let Some(file) = &config.file {
            self.file = Some(file.clone());
        }
        self.started = Some(match &config.apps {
            None => Started::One,
            Some(several) => Started::Several { folder: several.folder.is_some() },
        });
        // What runs is as it is from here on.
        self.kept.clear();
    }
}

/// What is said of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppText {
    /// As the content of a file of its own.
    pub text: Arc<str>,
    /// Whether the main file says it.
    pub in_main_file: bool,
}

/// What was said of an app when that was last good.
#[derive(Debug, Clone)]
pub struct KeptApp {
    /// What that was.
    pub said: AppText,
    /// Whether the app has a record. That of one that was removed is set aside.
    pub has_record: bool,
}

/// The folder of apps as it was found.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Its files, or why they are not known.
    listed: Result<Listed, String>,
}

impl Folder {
    /// Looks for the folder beside `file`. `None`: there is none, and there need not be one.
    pub(super) fn look(file: &Path, given: &Given<'_>) -> Option<Self> {
        if given.sources.overrides.foreground {
            return None;
        }
        let path = paths::apps_folder(file, given.env());
        let was_there = matches!(given.sources.started, Some(Started::Several { folder: true }));
        let had_files = given.sources.kept.values().any(|kept| !kept.said.in_main_file);
        let is_expected = was_there || had_files;
        let listed = match folder::list(&path, given.who, Owner::of_configuration(given.sources.client)) {
            Ok(listed) => Ok(listed),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_expected => return None,
            Err(error) => Err(format!("{}: cannot read the folder of apps: {error}", path.display())),
        };
        Some(Self { path, listed })
    }

    /// The first of its files.
    fn first(&self) -> Option<&Path> {
        self.listed.as_ref().ok()?.values().next().map(PathBuf::as_path)
    }
}

/// Decides how many apps the instance has, and notes where its file says both.
pub(super) fn shape(r: &mut Reader<'_>, raw: Option<&Raw<'_>>, folder: Option<&Folder>) -> Shape {
    let Some(raw) = raw else { return Shape::One };
    const EITHER: &str = "an instance has one app or several";
    let is_foreground = r.given.sources.overrides.foreground;
    match (raw.apps_at(), raw.app_at()) {
        (Some((at, apps)), _) if is_foreground => {
            r.problem_at(at, format!("{apps}: [apps]: expected nothing, because portok run runs one app"));
            Shape::One
        }
        (Some((_, apps)), Some((at, app))) => {
            let text = format!("{app}: [app]: expected nothing, because {apps} has [apps]: {EITHER}");
            r.problem_at(at, text);
            Shape::Several
        }
        (Some(_), None) => Shape::Several,
        (None, Some((at, app))) => {
            if let Some(file) = folder.and_then(Folder::first) {
                let file = file.display();
                let text = format!("{app}: [app]: expected nothing, because {file} is an app too: {EITHER}");
                r.problem_at(at, text);
            }
            Shape::One
        }
        (None, None) => match (r.given.sources.started, folder) {
            (Some(Started::Several { .. }), _) | (None, Some(_)) => Shape::Several,
            (Some(Started::One), Some(folder)) => {
                r.warnings.push(format!(
                    "{}: the folder is passed over, because portokd started with one app; restart it",
                    folder.path.display()
                ));
                Shape::One
            }
            (_, None) => Shape::One,
        },
    }
}

/// Reads the apps of `raw` and of the folder into `config`, if it is one of several apps.
pub(super) fn read(r: &mut Reader<'_>, config: &mut Config, raw: &Raw<'_>, folder: Option<Folder>) {
    let sections = Sections::of(config, r);
    let mut accepted = Accepted::instance(&config.own_addresses().collect::<Vec<_>>());
    read_app_of_redis(r, config, raw, &sections);
    let Some(several) = &mut config.apps else { return };
    let has_redis = config.redis.is_some();
    let (mut targets, mut texts) = (Vec::new(), Vec::new());
    for (name, section) in raw.apps() {
        if let Some(why) = is_redis(name, has_redis) {
            r.problem_at(section.at(), format!("{}: [apps.{name}]: {why}", section.position(section.at())));
        }
        let mut reader = Reader::of_app(r.given, section, Vec::new());
        let app = Arc::new(one_of_several::read(&mut reader, name, section.place(), &sections));
        accepted.add(&app);
        texts.push((name.to_owned(), AppText { text: section.as_file().into(), in_main_file: true }));
        targets.extend(reader.quoted("app.targets").map(|quoted| (Arc::clone(&app), quoted)));
        several.apps.insert(name.to_owned(), app);
        r.take_over(reader);
    }
    for (app, (at, quoted)) in targets {
        if let Some(instead) = accepted.instead_of_targets(&app) {
            r.problem_at(at, format!("{quoted}: expected {instead}"));
        }
    }
    let mut files = Vec::new();
    if let Some(Folder { path, listed }) = folder {
        match listed {
            Ok(listed) => files = folder::read(&path, listed, r.given, &sections),
            Err(why) => several.unreadable = Some(why),
        }
        several.folder = Some(path);
    }
    let mut apps = Vec::with_capacity(files.len());
    texts.reserve(files.len());
    for (name, file) in files {
        let AppFile { path, app, text, warnings, targets, listen } = &*file;
        let place = path.display();
        let twice = several.apps.get(&name).map(|main| {
            format!("{place}: the app {name} is in {} too, which goes first; take one away", main.place)
        });
        let app = app.as_ref().map_err(String::clone).and_then(|app| match is_redis(&name, has_redis) {
            Some(why) => Err(format!("{place}: {why}")),
            None => fitting(&accepted, Arc::clone(app), targets.as_deref(), listen.as_deref()),
        });
        match (twice, app) {
            (None, Ok(app)) => {
                r.warnings.extend(warnings.iter().cloned());
                accepted.add(&app);
                let said = AppText { text: Arc::clone(text), in_main_file: false };
                texts.push((name.clone(), said));
                apps.push((name, app));
            }
            (Some(twice), Ok(_)) => drop(several.refused.insert(name, twice)),
            (None, Err(problems)) => drop(several.refused.insert(name, problems)),
            (Some(twice), Err(problems)) => {
                several.refused.insert(name, format!("{twice}\n{problems}"));
            }
        }
    }
    several.texts = texts.into_iter().collect();
    several.apps.append(&mut apps.into_iter().collect());
    read_kept(r.given, several, &sections, accepted, has_redis);
}

/// Adds the apps that are not among `several`, as they were last: the refused ones, and those that
/// nothing configures any more.
fn read_kept(
    given: &Given<'_>,
    several: &mut Several,
    sections: &Sections,
    mut accepted: Accepted,
    has_redis: bool,
) {
    for (name, KeptApp { said, has_record }) in &given.sources.kept {
        if several.apps.contains_key(name) || is_redis(name, has_redis).is_some() {
            continue;
        }
        let (main, folder) = (given.file.unwrap_or(Path::new("")), several.folder.as_deref());
        let (text, folder) = (&said.text, folder.unwrap_or(Path::new("")));
        let valid = match said.in_main_file {
            true => folder::read_kept_in_main_file(name, main, text, given, sections),
            false => folder::read_kept(name, folder, text, given, sections),
        };
        let Some(valid) = valid else { continue };
        // A managed app without a record was removed, and its text has stayed. Another one runs
        // nothing, and may have no record.
        let runs_nothing = valid.app.targets.is_some() || valid.app.redirect.is_some();
        if !has_record && !runs_nothing {
            continue;
        }
        let (targets, listen) = (valid.targets.as_deref(), valid.listen.as_deref());
        match fitting(&accepted, Arc::new(valid.app), targets, listen) {
            Ok(app) => {
                accepted.add(&app);
                several.texts.insert(name.clone(), said.clone());
                several.apps.insert(name.clone(), app);
                if !several.refused.contains_key(name) {
                    several.gone.insert(name.clone());
                }
            }
            Err(problems) => {
                let why = format!("as it was last it does not go with the others:\n{problems}");
                let all = several.refused.remove(name).into_iter().chain([why]);
                several.refused.insert(name.clone(), all.collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

/// Why an app cannot have this name. In the metrics the apps of Redis are one app of the name.
fn is_redis(name: &str, has_redis: bool) -> Option<&'static str> {
    let is_taken = has_redis && name == APPS_OF_REDIS;
    is_taken.then_some("expected a name other than redis, by which the apps of [redis] are counted")
}

/// `app` of a file, unless it does not go with an app before it: that is this file's problem,
/// whichever the other is. `targets`, `listen`: place, name and value of what it says of these.
fn fitting(
    accepted: &Accepted,
    app: Arc<AppConfig>,
    targets: Option<&str>,
    listen: Option<&str>,
) -> Result<Arc<AppConfig>, String> {
    let instead =
        [targets.zip(accepted.instead_of_targets(&app)), listen.zip(accepted.instead_of_listen(&app))];
    let problems: Vec<_> = instead
        .into_iter()
        .flatten()
        .map(|(quoted, instead)| format!("{quoted}: expected {instead}"))
        .collect();
    if problems.is_empty() { Ok(app) } else { Err(problems.join("\n")) }
}

/// Reads what holds for all apps of Redis, where there are such apps.
fn read_app_of_redis(r: &mut Reader<'_>, config: &mut Config, raw: &Raw<'_>, sections: &Sections) {
    if let Some(redis) = &mut config.redis {
        let mut reader = Reader::of_app(r.given, raw.app_of_redis(), Vec::new());
        redis.app = Arc::new(one_of_several::read_of_redis(&mut reader, sections));
        r.take_over(reader);
    } else if let Some((at, place)) = raw.app_of_redis_at()
        && !r.is_set("redis.url")
    {
        r.problem_at(at, format!("{place}: [redis.app]: expected nothing, because redis.url is not set"));
    }
}
