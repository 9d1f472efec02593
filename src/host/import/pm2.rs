//! An ecosystem of pm2, in JSON: `{"apps": […]}`, an array of apps, or one app.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::apps::{self, Names};
use super::fields::{Fields, one_or_many};
use super::findings::Findings;
use super::pm2_app::{self, App};
use super::source::Source;
use super::toml::Toml;

const ABOUT: &str = "Clients are answered at `listen`; an app gets another port in $PORT.";

/// Converts an ecosystem.
pub(super) fn convert(source: &Source, findings: &mut Findings) -> Option<String> {
    let root = source.json(findings)?;
    let found = find_apps(&root, findings)?;
    let mut apps = Vec::new();
    for (place, value) in found {
        match value.as_object() {
            Some(object) => apps.extend(pm2_app::read(Fields::new(place, object), source.folder(), findings)),
            None => findings.wrong(place, value, "an app: an object with a script"),
        }
    }
    let place = apps.first()?.place.clone();
    findings
        .note("stop_signal", "pm2 stops apps with SIGINT, and so does this; portok's own default is SIGTERM");
    apps::note_health(&place, findings);
    Some(if let [app] = apps.as_slice() { one(app, findings) } else { several(&apps, findings) })
}

/// The apps with their places.
fn find_apps<'a>(root: &'a Value, findings: &mut Findings) -> Option<Vec<(String, &'a Value)>> {
    let listed = |name: &str, value: &'a Value| {
        let items = one_or_many(value).iter().enumerate();
        items.map(|(index, app)| (format!("{name}[{index}]"), app)).collect::<Vec<_>>()
    };
    let found = match root {
        Value::Array(_) => listed("", root),
        Value::Object(object) => match ["apps", "pm2"].into_iter().find(|key| object.contains_key(*key)) {
            Some(key) => {
                rest_of_root(object, key, findings);
                listed(key, &object[key])
            }
            None => vec![("app".to_owned(), root)],
        },
        _ => Vec::new(),
    };
    if found.is_empty() {
        findings.problem("the file", "expected an object with apps, an array of apps, or one app");
        return None;
    }
    Some(found)
}

fn rest_of_root(object: &Map<String, Value>, apps: &str, findings: &mut Findings) {
    let mut root = Fields::new("", object);
    root.skip(apps);
    root.lost(&["deploy"], "pm2 copies files to hosts by it; portok starts what lies on this host", findings);
    root.unknown("pm2", findings);
}

/// One app is an instance of its own, which has the file's name.
fn one(app: &App, findings: &mut Findings) -> String {
    let mut toml = Toml::new(ABOUT);
    toml.comment(&format!("The name of this file is the app's, which pm2 calls {:?}.", app.name));
    toml.set("listen", format!("0.0.0.0:{}", app.port.unwrap_or(apps::DEFAULT_PORT)));
    if app.port.is_none() {
        findings.note(&app.place, "listen: no PORT is named; 3000 is portok's default");
    }
    toml.table(&["app"]);
    app.write(&mut toml, &["app"], findings);
    toml.finish()
}

/// Several apps answer where they did: each at the port that it had.
fn several(apps: &[App], findings: &mut Findings) -> String {
    let mut toml = Toml::new(ABOUT);
    let own: BTreeSet<u16> = apps.iter().filter_map(|app| app.port).collect();
    apps::set_listen(&mut toml, &own, own.len() == apps.len());
    let (mut names, mut ports) = (Names::default(), BTreeSet::new());
    for app in apps {
        let name = names.give(&app.place, &app.name, findings);
        toml.table(&["apps", &name]);
        match app.port {
            Some(port) if ports.insert(port) => toml.set("listen", vec![format!("0.0.0.0:{port}")]),
            taken => {
                let why = match taken {
                    Some(port) => format!("another app has port {port} already"),
                    None => "no PORT is named".to_owned(),
                };
                let what = "hosts = [\"NAME.invalid\"] stands in the file; put the app's real hosts there";
                findings.note(&app.place, format_args!("{why}: {what}"));
                apps::set_no_hosts(&mut toml, &name);
            }
        }
        app.write(&mut toml, &["apps", &name], findings);
    }
    toml.finish()
}
