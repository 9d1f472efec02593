use super::*;

#[test]
fn the_web_process_is_the_app() {
    let text = "\
# Of a shop that was on a platform.
web: bundle exec puma -t 5:5 -p ${PORT:-3000} -e \"$RACK_ENV\"

worker:  bundle exec sidekiq -c 10
release: bundle exec rake db:migrate
";
    let imported = imported(Format::Procfile, text);
    assert_eq!(
        imported.toml,
        r#"# Written by `portok import procfile` from the file.
# Clients are answered at `listen`; the app gets another port in $PORT.
listen = "0.0.0.0:3000"

[app]
command = "bundle exec puma -t 5:5 -p ${PORT:-3000} -e \"$RACK_ENV\""
directory = "/srv/shop"
before = "bundle exec rake db:migrate"

[app.processes.worker]
command = "bundle exec sidekiq -c 10"
"#
    );
    assert_eq!(
        imported.notes,
        [
            "web: listen: a Procfile names no port; 3000 is portok's default",
            "web: health: an app gets requests once /health answers 2xx; where it has another path, set health.path",
        ]
    );
    let app = &loaded(&imported.toml).app.app;
    let command = "bundle exec puma -t 5:5 -p ${PORT:-3000} -e \"$RACK_ENV\"";
    assert_eq!(app.command, Some(CommandLine::Shell(command.to_owned())));
    assert_eq!(app.before, Some(CommandLine::Shell("bundle exec rake db:migrate".to_owned())));
    assert_eq!(app.processes["worker"].command, CommandLine::Shell("bundle exec sidekiq -c 10".to_owned()));
}

#[test]
fn a_process_that_cannot_run_beside_the_app_is_told() {
    let long = "x".repeat(65);
    let many: String = (0..17).map(|n| format!("p{n}: a\n")).collect();
    let imported = imported(Format::Procfile, &format!("{long}: a\n{many}web: a\n"));
    assert!(notes(&imported, &["line 1: xxx", "at most 64 characters; left out"]), "{:?}", imported.notes);
    assert!(notes(&imported, &["line 18: p16: an app has at most 16"]), "{:?}", imported.notes);
    assert_eq!(loaded(&imported.toml).app.app.processes.len(), 16);
}

#[test]
fn a_process_that_uses_the_port_may_be_an_app_of_its_own() {
    for (command, is_app) in [
        ("admin --port ${PORT}", true),
        ("admin --port=$PORT", true),
        ("admin ${PORT:-3000}", true),
        ("admin $PORTAL", false),
        ("admin $TRANSPORT PORT", false),
    ] {
        let imported = imported(Format::Procfile, &format!("web: a\nweb-admin: {command}\n"));
        let told = notes(&imported, &["line 2: web-admin:", "[apps.web-admin]"]);
        assert_eq!(told, is_app, "{command}: {:?}", imported.notes);
        let is_companion = loaded(&imported.toml).app.app.processes.contains_key("web-admin");
        assert_eq!(is_companion, !is_app, "{command}");
    }
}

#[test]
fn strange_files_are_refused_with_their_lines() {
    assert_eq!(
        refused(Format::Procfile, "web: a\nnonsense\nwe b: c\nweb:\nweb: b\n: d\n"),
        [
            "line 2: expected `NAME: COMMAND`",
            "line 3: expected `NAME: COMMAND`",
            "line 4: expected `NAME: COMMAND`",
            "line 6: expected `NAME: COMMAND`",
            "line 5: expected one `web:`, this is another",
        ]
    );
    let no_web = "web: expected a line `web: COMMAND`, the process that answers requests";
    for text in ["", "# nothing", "worker: node worker.js", "Web: node app.js"] {
        assert_eq!(refused(Format::Procfile, text), [no_web], "{text:?}");
    }
    assert_eq!(refused(Format::Procfile, "web: a\0b"), ["line 1: expected a command without NUL"]);
    assert_eq!(refused(Format::Procfile, "web: a\nw: b\0"), ["line 2: expected a command without NUL"]);
    assert_eq!(
        refused(Format::Procfile, "web: a\nw: b\nw: c"),
        ["line 3: expected one `w:`, this is another"]
    );
}

#[test]
fn whatever_a_command_says_is_carried_over() {
    for command in ["a \"b\" 'c' \\d", "é☃ # no comment", "a\tb {port} $X", "x: y: z", "\"\"\""] {
        for end in ["\n", "\r\n", ""] {
            let imported = imported(Format::Procfile, &format!("web:\t{command}{end}"));
            let loaded = loaded(&imported.toml);
            assert_eq!(loaded.app.app.command, Some(CommandLine::Shell(command.to_owned())));
        }
    }
}

#[test]
fn standard_input_lies_nowhere() {
    let imported = import(Format::Procfile, &Source::text_in(None, "web: node app.js")).unwrap();
    assert!(notes(&imported, &["web: directory:", "standard input"]), "{:?}", imported.notes);
    assert_eq!(loaded(&imported.toml).app.app.directory, None);
}
