//! `PORTOK_FLAVOR`: another main file in the place of an instance's own, for the daemon and for
//! every command.

use std::fs;

use super::edge;
use crate::harness::conf::Conf;
use crate::harness::{World, assert_mentions};

#[test]
fn commands_read_the_file_that_the_daemon_reads() {
    let world = World::new();
    let name = world.name();
    let mut env = world.env();
    for (variable, value) in
        [("PORTOK_CONFIG_DIR", "conf"), ("PORTOK_STATE_DIR", "state"), ("PORTOK_UNIT_DIR", "units")]
    {
        env.insert(variable.to_owned(), world.path(value).display().to_string());
    }
    env.insert("PORTOK_FLAVOR".to_owned(), "test".to_owned());
    // The instance's own file is another one's: of another socket, and with one app.
    let main = world.path(&format!("conf/{name}.toml"));
    let flavored = world.path(&format!("conf/{name}_test.toml"));
    edge(&world).set("apps.t.hosts", vec!["t.test"]).set("apps.t.redirect", "https://t.test").save();
    fs::rename(&main, &flavored).unwrap();
    Conf::new(main.clone()).set("admin.socket", world.path("other").display().to_string()).save();

    let daemon = world.start_with(&["--instance", name], &env);
    let shown = world.portok(&["status", &format!("{name}/t")], &env).ended(0).out;
    assert_mentions(&shown, &["t is settled", &flavored.display().to_string()]);
    world.portok(&["reload", "--instance", name], &env).ended(0);
    // Named with the flavor, it is the same instance.
    world.portok(&["status", &format!("{name}_test/t")], &env).ended(0);
    let add = ["add", "new", "--to", name, "--host", "new.test", "--redirect", "https://new.test"];
    assert_mentions(&world.portok(&add, &env).ended(0).out, &["has loaded it"]);
    let added = world.path(&format!("conf/{name}.d/new.toml"));
    assert!(added.exists());
    world.portok(&["remove", &format!("{name}/new")], &env).ended(0);
    assert!(!added.exists());

    let listed = world.portok(&["list", "--json"], &env).ended(0).json();
    let rows = listed.as_array().unwrap();
    let ours: Vec<_> = rows.iter().filter(|row| row["name"].as_str().unwrap().starts_with(name)).collect();
    assert_eq!(ours.len(), 1, "{listed:#}");
    assert_mentions(&ours[0].to_string(), &[&flavored.display().to_string()]);
    let doctor = world.portok(&["doctor"], &env).out;
    assert!(!doctor.contains(&format!("`{name}_test")), "{doctor}");
    drop(daemon);
}
