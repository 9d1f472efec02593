//! `[tls]` and the certificates of apps.

use super::*;

#[test]
fn keys_of_tls_are_read_and_shown() {
    let case = Case::file(
        "[tls]\nlisten = [\"0.0.0.0:443\", \"[::]:443\"]\ncert_dir = \"/etc/portok/certs\"\ndefault = \"main\"\n\
         min_version = \"1.3\"\nredirect = false\nhsts = \"max-age=31536000; includeSubDomains\"\n\
         [app]\ntarget = 8080\ntls = { cert = \"/etc/ssl/a.pem\", key = \"/etc/ssl/a.key\" }\n",
    );
    let config = case.good();
    let tls = config.tls.clone().unwrap();
    assert_eq!(tls.listen, ["0.0.0.0:443".parse().unwrap(), "[::]:443".parse().unwrap()]);
    assert_eq!((tls.min_version, tls.redirect), (TlsVersion::V13, None));
    assert_eq!(tls.hsts.as_deref(), Some("max-age=31536000; includeSubDomains"));
    let pair = (Path::new("/etc/ssl/a.pem"), Path::new("/etc/ssl/a.key"));
    assert_eq!(config.app.tls.pair(), Some(pair));
    case.write("api.toml", &config.effective_toml());
    let again = case.good();
    assert_eq!((&again.tls, &again.app.tls), (&config.tls, &config.app.tls));

    let plain = Case::file("[tls]\nlisten = 443\n").good().tls.unwrap();
    assert_eq!(plain, Tls::at(vec!["0.0.0.0:443".parse().unwrap()]));
    let permanent = Case::file("[tls]\nlisten = 443\nredirect = 301\nhsts = \"off\"\n").good().tls.unwrap();
    assert_eq!((permanent.redirect, permanent.hsts), (Some(301), None));
    assert_eq!(Case::file("").good().tls, None);
    assert!(Case::file("").good().effective_toml().contains("\n[tls]\n# listen is not set\n"));
}

#[test]
fn keys_of_tls_need_its_addresses_and_have_their_bounds() {
    for (table, part) in [
        ("cert_dir = \"/x\"", "tls.listen is not set"),
        ("listen = \"x\"\ncert_dir = \"/x\"", "a port from 0 to 65535"),
        ("listen = 3000", "addresses other than 0.0.0.0:3000, which is one of listen"),
        ("listen = \"127.0.0.1:3000\"", "addresses other than 127.0.0.1:3000"),
        ("listen = 443\nmin_version = \"1.1\"", "\"1.2\" or \"1.3\""),
        ("listen = 443\nredirect = 302", "308 or 301 or false"),
        ("listen = 443\nredirect = true", "308 or 301 or false"),
        ("listen = 443\nhsts = \"on\"", "max-age=31536000"),
        ("listen = 443\nhsts = \"max-age=\"", "max-age=31536000"),
        ("listen = 443\nhsts = \"max-age=1; always\"", "max-age=31536000"),
        ("listen = 443\nhsts = \"max-age=1\\nx: y\"", "max-age=31536000"),
        ("listen = 443\ndefault = \"../main\"", "the name of a certificate"),
        ("listen = 443\ncert_dirs = \"/x\"", "did you mean `tls.cert_dir`"),
    ] {
        let problems = Case::file(&format!("[tls]\n{table}\n")).problems();
        assert!(problems.len() == 1 && problems[0].contains(part), "{table}: {problems:?}");
    }
}

#[test]
fn acme_is_there_where_a_person_is_named() {
    let mut case = Case::new();
    let key = case.dir.path().join("eab.key");
    case.write("eab.key", "Zm9vYmFy\n");
    let text = format!(
        "[tls]\nlisten = 443\n[tls.acme]\nemail = \"ops@example.com\"\ndirectory = \"https://ca.test/dir\"\n\
         hosts = [\"A.test\", \"b.test\"]\nchallenge = \"http-01\"\nca_file = \"/etc/ca.pem\"\n\
         eab = {{ id = \"kid\", key_file = \"{}\" }}\n",
        key.display()
    );
    case.write("api.toml", &text);
    case.sources.file = Some(case.dir.path().join("api.toml"));
    let config = case.good();
    let acme = config.tls.as_ref().unwrap().acme.clone().unwrap();
    assert_eq!((&*acme.email, &*acme.directory), ("ops@example.com", "https://ca.test/dir"));
    assert_eq!(
        (&acme.hosts[..], acme.challenge),
        (&["a.test", "b.test"].map(str::to_owned)[..], Challenge::Http01)
    );
    let eab = acme.eab.unwrap();
    assert_eq!((&*eab.id, eab.key_bytes()), ("kid", b"foobar".to_vec()));
    assert!(!config.effective_toml().contains("Zm9v"), "the key is a secret");

    let least = Case::file("[tls]\nlisten = 443\nacme.email = \"ops@example.com\"\n").good();
    let acme = least.tls.as_ref().unwrap().acme.clone().unwrap();
    assert_eq!(
        (&*acme.directory, acme.challenge),
        ("https://acme-v02.api.letsencrypt.org/directory", Challenge::TlsAlpn01)
    );
    assert!(warned(&least, "no certificate is ordered"), "{:?}", least.warnings);

    for (table, part) in [
        ("directory = \"https://ca.test/dir\"", "tls.acme.email is not set"),
        ("email = \"ops\"", "the address of a person"),
        ("email = \"a@b.test\"\ndirectory = \"http://ca.test/dir\"", "begins with https://"),
        ("email = \"a@b.test\"\nhosts = [\"*.a.test\"]", "the name of a host"),
        ("email = \"a@b.test\"\nhosts = [\"127.0.0.1\"]", "not an address"),
        ("email = \"a@b.test\"\nchallenge = \"dns-01\"", "\"tls-alpn-01\" or \"http-01\""),
        ("email = \"a@b.test\"\neab = { id = \"kid\" }", "or neither"),
        ("email = \"a@b.test\"\nmail = 1", "tls.acme"),
    ] {
        let problems = Case::file(&format!("[tls]\nlisten = 443\n[tls.acme]\n{table}\n")).problems();
        assert!(problems.len() == 1 && problems[0].contains(part), "{table}: {problems:?}");
    }
}

#[test]
fn a_certificate_of_an_app_needs_its_key() {
    let one = Case::file("[tls]\nlisten = 443\n[app]\ntarget = 8080\ntls.cert = \"/a\"\n").problems();
    assert!(one.len() == 1 && one[0].contains("app.tls.key beside it"), "{one:?}");
    let case =
        Case::file("[tls]\nlisten = 443\n[apps.api]\ntargets = [\"127.0.0.1:8080\"]\ntls.key = \"/a\"\n");
    let one = case.problems();
    assert!(one.len() == 1 && one[0].contains("apps.api.tls.cert beside it"), "{one:?}");
    let unused = Case::file("[app]\ntarget = 8080\ntls = { cert = \"/a\", key = \"/b\" }\n").good();
    assert!(unused.warnings.iter().any(|said| said.contains("nobody is shown")), "{:?}", unused.warnings);
}

#[test]
fn no_app_has_an_address_where_connections_are_encrypted() {
    let several = |app: &str| Case::file(&format!("[tls]\nlisten = 443\n[apps.api]\n{app}\n")).problems();
    for (app, part) in [
        ("targets = [\"127.0.0.1:443\"]", "addresses other than 127.0.0.1:443, where portok itself listens"),
        ("listen = 443\ntargets = [\"127.0.0.1:80\"]", "443 is the instance's too"),
    ] {
        let problems = several(app);
        assert!(problems.len() == 1 && problems[0].contains(part), "{app}: {problems:?}");
    }
    let one = Case::file("[tls]\nlisten = 443\n[app]\ntarget = 443\n").problems();
    assert!(one.len() == 1 && one[0].contains("a port other than 443"), "{one:?}");
}
