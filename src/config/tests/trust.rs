//! Which files are believed.

use std::os::unix::fs::chown;

use super::super::files::CONFIG_MAX;
use super::*;

#[test]
fn a_file_that_others_may_write_is_refused() {
    let case = Case::file("");
    for (bits, by) in [(0o602, "everybody"), (0o666, "everybody")] {
        mode(&case.config(), bits);
        let problems = case.problems();
        let todo = format!("chmod go-w {}", case.config().display());
        for part in [by, &todo, &format!("{bits:04o}")] {
            assert!(problems[0].contains(part), "{problems:?}");
        }
    }
    mode(&case.config(), 0o644);
    case.good();
}

#[test]
fn a_file_of_a_stranger_is_refused_except_for_who_only_looks_for_the_daemon() {
    let mut case = Case::file("[admin]\ntoken_file = \"/nowhere\"\n");
    let root = case.who.uid == 0;
    if root {
        chown(case.config(), Some(54_321), None).unwrap();
    } else {
        case.who.uid += 1;
    }
    let problems = case.problems();
    assert!(problems[0].contains("neither root nor uid") && problems[0].contains("chown"), "{problems:?}");
    case.sources.client = true;
    assert!(case.good().admin.token.is_none());
    case.sources.client = false;
    if root {
        // The daemon's own user may own it.
        case.who.uid = 54_321;
        assert!(case.problems()[0].contains("admin.token_file"), "only the missing token file is left");
    }
}

#[test]
fn limits_of_size_and_text() {
    let case = Case::file(&"#".repeat(usize::try_from(CONFIG_MAX).unwrap() + 1));
    assert!(case.problems()[0].contains("larger than 1.0 MiB"), "{:?}", case.problems());
    fs::write(case.config(), b"listen = 1\n# \xff\n").unwrap();
    assert!(case.problems()[0].contains("not UTF-8 text, see line 2"), "{:?}", case.problems());
}

#[test]
fn tokens_from_a_file() {
    let mut case = Case::new();
    let token = case.write("token", "0123456789abcdef\r\n");
    case.write("api.toml", &format!("[admin]\ntoken_file = \"{}\"\n[app]\ntarget = 1\n", token.display()));
    case.sources.file = Some(case.config());
    let config = case.good();
    assert_eq!(config.admin.token.as_ref().map(Secret::expose), Some("0123456789abcdef"));
    assert_eq!(config.warnings, Vec::<String>::new());

    // The group is the reader's own; everybody is not.
    mode(&token, 0o660);
    assert!(case.good().admin.token.is_some());
    mode(&token, 0o662);
    let problems = case.problems();
    assert!(
        problems[0].contains(":2:14: admin.token_file") && problems[0].contains("chmod go-w"),
        "{problems:?}"
    );
    mode(&token, 0o644);
    assert!(warned(&case.good(), "everybody may read"));

    case.write("token", "hunter2 hunter2\n");
    let problems = case.problems();
    assert!(problems[0].contains("without spaces") && !problems[0].contains("hunter2"), "{problems:?}");
    case.write("token", "\n");
    assert!(case.problems()[0].contains("printable"));
    case.write("token", &"x".repeat(10_000));
    assert!(case.problems()[0].contains("larger than"));

    // The environment's wins, the file is not even read.
    case.set("ADMIN_TOKEN", "fedcba9876543210");
    assert_eq!(case.good().admin.token.as_ref().map(Secret::expose), Some("fedcba9876543210"));

    case.write("api.toml", "[admin]\ntoken_file = \"/x\"\ntoken = \"0123456789abcdef\"\n");
    let problems = case.problems();
    assert!(problems[0].contains(":2:14: admin.token_file = \"/x\": expected nothing, because admin.token"));
}
