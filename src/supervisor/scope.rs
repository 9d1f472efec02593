//! An app with limits: started through `systemd-run --scope`. Pure.
//!
//! `systemd-run` asks systemd for a cgroup with the limits, enters it, and then becomes the app in
//! place. The process stays portokd's child and leads its group; not one instruction of the app
//! runs outside. If something fails before it becomes the app, it prints that and ends, as an app
//! would.

use crate::config::{Limits, SYSTEMD_RUN};

use super::{Ids, Whose};

/// Whose scope it is: for its name, and for its order.
pub(super) struct Of<'a> {
    pub(super) whose: Whose<'a>,
    pub(super) release: &'a str,
    /// The run's own.
    pub(super) tag: &'a str,
    /// The daemon's own unit, if it has one.
    pub(super) unit: Option<&'a str>,
}

/// `words` in a scope with `limits`. Root asks for the scope and becomes `identity` after that.
pub(super) fn words(words: Vec<String>, limits: &Limits, of: &Of<'_>, identity: Option<&Ids>) -> Vec<String> {
    let unique = &of.tag[of.tag.len().saturating_sub(8)..];
    let instance = of.whose.instance;
    // Two apps may have a release of one name.
    let (unit, shown) = match of.whose.app {
        Some(app) => (format!("{instance}-{app}"), format!("{instance}/{app}")),
        None => (instance.to_owned(), instance.to_owned()),
    };
    let name = format!("portok-{unit}-{}-{unique}", of.release);
    let mut all: Vec<String> =
        [SYSTEMD_RUN, "--scope", "--quiet", "--collect", "--slice-inherit"].map(str::to_owned).into();
    all.push(format!("--unit={name}"));
    all.push(format!("--description=release {} of {}, started by portokd", of.release, shown));
    // Units stop against their order: when the host is shut down, portokd stops its app before
    // systemd would.
    let order = of.unit.map(|unit| format!("Before={unit}"));
    let limits = [
        limits.memory.map(|bytes| format!("MemoryMax={bytes}")),
        limits.cpu.map(|percent| format!("CPUQuota={percent}%")),
        limits.tasks.map(|tasks| format!("TasksMax={tasks}")),
    ];
    all.extend(limits.into_iter().chain([order]).flatten().map(|property| format!("--property={property}")));
    all.push("--".to_owned());
    if let Some(ids) = identity {
        let groups: Vec<_> = ids.groups.iter().map(u32::to_string).collect();
        all.extend([
            "/usr/bin/setpriv".to_owned(),
            format!("--reuid={}", ids.uid),
            format!("--regid={}", ids.gid),
        ]);
        all.push(if groups.is_empty() {
            "--clear-groups".to_owned()
        } else {
            format!("--groups={}", groups.join(","))
        });
        all.push("--".to_owned());
    }
    // systemd-run sets INVOCATION_ID, which some libraries take for "standard error is the
    // journal".
    all.extend(["/bin/sh", "-c", "unset INVOCATION_ID; exec \"$@\"", "sh"].map(str::to_owned));
    all.extend(words);
    all
}

/// The unit that a process with this `/proc/self/cgroup` belongs to (cgroups(7)).
pub(super) fn unit_in(cgroups: &str) -> Option<String> {
    let named = cgroups.lines().find_map(|line| line.strip_prefix("0::").filter(|path| *path != "/"));
    let path = named.or_else(|| {
        cgroups.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path))
    })?;
    path.rsplit('/').find(|part| part.ends_with(".service")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>() -> Of<'a> {
        let whose = Whose { instance: "api", app: None };
        Of { whose, release: "r1", tag: "00000000deadbeef", unit: Some("portok@api.service") }
    }

    fn app() -> Vec<String> {
        ["/bin/sh", "-c", "exec app"].map(str::to_owned).into()
    }

    #[test]
    fn the_limits_come_before_the_app_and_the_app_last() {
        let limits = Limits { memory: Some(1 << 20), cpu: Some(150), tasks: Some(20), open_files: Some(9) };
        let words = words(app(), &limits, &of(), None).join(" ");
        assert_eq!(
            words,
            "/usr/bin/systemd-run --scope --quiet --collect --slice-inherit --unit=portok-api-r1-deadbeef \
             --description=release r1 of api, started by portokd --property=MemoryMax=1048576 --property=CPUQuota=150% \
             --property=TasksMax=20 --property=Before=portok@api.service -- /bin/sh -c unset INVOCATION_ID; exec \"$@\" \
             sh /bin/sh -c exec app"
        );
    }

    #[test]
    fn one_of_several_apps_is_told_from_the_others() {
        let whose = Whose { instance: "edge", app: Some("api") };
        let words = words(app(), &Limits::default(), &Of { whose, ..of() }, None).join(" ");
        assert!(words.contains("--unit=portok-edge-api-r1-deadbeef"), "{words}");
        assert!(words.contains("--description=release r1 of edge/api, started by portokd"), "{words}");
    }

    #[test]
    fn who_is_to_be_somebody_else_becomes_it_inside() {
        let limits = Limits { tasks: Some(20), ..Limits::default() };
        let ids = |groups| Ids { uid: 33, gid: 34, groups, name: "www".into(), home: "/".into() };
        let some = words(app(), &limits, &of(), Some(&ids(vec![34, 50]))).join(" ");
        assert!(
            some.contains(" -- /usr/bin/setpriv --reuid=33 --regid=34 --groups=34,50 -- /bin/sh -c unset"),
            "{some}"
        );
        let none = words(app(), &limits, &of(), Some(&ids(vec![]))).join(" ");
        assert!(none.contains("--regid=34 --clear-groups -- "), "{none}");
    }

    #[test]
    fn the_daemons_unit_is_read_from_its_cgroup() {
        let unit = |text: &str| unit_in(text);
        let expected = Some("portok@api.service".to_owned());
        assert_eq!(unit("0::/system.slice/system-portok.slice/portok@api.service\n"), expected);
        let hybrid = "4:memory:/\n1:name=systemd:/system.slice/portok@api.service\n";
        assert_eq!(unit(hybrid), expected);
        assert_eq!(unit(&format!("{hybrid}0::/\n")), expected);
        assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(unit(""), None);
    }
}
