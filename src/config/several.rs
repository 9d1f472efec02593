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
use super::{AppConfig, Config, Sources};

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

/// What the file of an app said when it was last good.
#[derive(Debug, Clone)]
pub struct KeptFile {
    /// Its text.
    pub text: Arc<str>,
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
        let is_expected = was_there || !given.sources.kept.is_empty();
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
    let mut accepted = Accepted::instance(&config.listen);
    read_app_of_redis(r, config, raw, &sections);
    let Some(several) = &mut config.apps else { return };
    let has_redis = config.redis.is_some();
    let mut targets = Vec::new();
    for (name, section) in raw.apps() {
        if let Some(why) = is_redis(name, has_redis) {
            r.problem_at(section.at(), format!("{}: [apps.{name}]: {why}", section.position(section.at())));
        }
        let mut reader = Reader::of_app(r.given, section, Vec::new());
        let app = Arc::new(one_of_several::read(&mut reader, name, section.place(), &sections));
        accepted.add(&app);
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
    let (mut apps, mut texts) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
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
                texts.push((name.clone(), Arc::clone(text)));
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
    // What is gone, too, is as it was until the next look finds it missing.
    for (name, kept) in &r.given.sources.kept {
        if several.apps.contains_key(name) || is_redis(name, has_redis).is_some() {
            continue;
        }
        let folder = several.folder.as_deref().unwrap_or(Path::new(""));
        let Some(valid) = folder::read_kept(name, folder, &kept.text, r.given, &sections) else { continue };
        // Of an app that was removed the text may have stayed. A managed app has a record; another
        // one may have none, and runs nothing.
        let is_gone = several.unreadable.is_none() && !several.refused.contains_key(name);
        let runs_nothing = valid.app.targets.is_some() || valid.app.redirect.is_some();
        if !kept.has_record && (is_gone || !runs_nothing) {
            continue;
        }
        let (targets, listen) = (valid.targets.as_deref(), valid.listen.as_deref());
        match fitting(&accepted, Arc::new(valid.app), targets, listen) {
            Ok(app) => {
                accepted.add(&app);
                several.texts.insert(name.clone(), Arc::clone(&kept.text));
                several.apps.insert(name.clone(), app);
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
