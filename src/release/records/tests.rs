//! Records on a real disk.

use super::super::record::Record;
use super::*;
use crate::release::spec::unmanaged;

fn record() -> Record {
    Record { live: Some(unmanaged(8081)), app_attempted: Some("f".into()), ..Record::default() }
}

/// Takes a place that was given up just now. A child that another test is starting may hold the
/// lock for a moment.
fn again(file: &Path) -> Records {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(Records::take_when_free(file, None, false)).unwrap().0
}

#[test]
fn a_second_store_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let first = Records::take(&file, None).unwrap();
    let error = Records::take(&file, None).unwrap_err().to_string();
    assert!(error.contains("another running portokd") && error.contains("state.json"), "{error}");
    drop(first);
    again(&file);
}

#[tokio::test]
async fn a_child_that_has_the_lock_for_a_moment_longer_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let (killed, _) = Records::take(&file, None).unwrap();
    // It holds the descriptor until it ends, as a child holds it until it executes its program.
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "exec sleep 0.1"])
        .stdin(killed.lock().unwrap())
        .spawn()
        .unwrap();
    drop(killed);
    drop(Records::take_when_free(&file, None, false).await.unwrap());
    assert!(child.wait().unwrap().success());
    let (_lives, _) = Records::take_when_free(&file, None, false).await.unwrap();
    let second = Records::take_when_free(&file, None, false).await.unwrap_err().to_string();
    assert!(second.contains("another running portokd"), "{second}");
}

#[test]
fn a_lock_file_that_cannot_be_written_locks_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    // Nobody, not even root, may write to a program that runs, as on a read-only disk.
    let lock = lock::of(&file);
    fs::copy("/bin/sleep", &lock).unwrap();
    let mut runs = std::process::Command::new(&lock).arg("60").spawn().unwrap();
    let (first, warnings) = Records::take(&file, None).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(first.mark(None).is_some());
    assert!(Records::take(&file, None).unwrap_err().to_string().contains("another running portokd"));
    drop(first);
    runs.kill().unwrap();
    runs.wait().unwrap();
}

#[test]
fn a_successor_holds_the_lock_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let (first, _) = Records::take(&file, None).unwrap();
    first.open(None).unwrap().0.write(&record()).unwrap();
    let passed_on = first.lock().unwrap();
    Records::check(&file, &passed_on, false).unwrap();
    assert!(Records::check(&folder.path().join("other.json"), &passed_on, false).is_err());
    let (second, _) = Records::take(&file, Some(passed_on)).unwrap();
    assert_eq!(second.open(None).unwrap().1.record, record());
    drop(first);
    Records::take(&file, None).unwrap_err();
    fs::write(&file, "{ torn").unwrap();
    assert!(Records::check(&file, &second.lock().unwrap(), false).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ torn", "nothing is set aside");
    drop(second);
    again(&file);
}

#[test]
fn each_of_several_apps_has_a_record_and_a_mark_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.json");
    let (records, _) = Records::take(&file, None).unwrap();
    assert!(records.apps().releases.is_empty());
    let [api, shop] = ["api", "shop"].map(|app| records.open(Some(app)).unwrap());
    api.0.write(&record()).unwrap();
    shop.0.write(&Record::default()).unwrap();
    let marks = [api.1.mark, shop.1.mark, records.mark(None)];
    assert!(marks.iter().all(Option::is_some));
    assert!(marks[0] != marks[1] && marks[1] != marks[2] && marks[0] != marks[2]);
    assert!(folder.path().join("edge.d/api.json").exists());
    assert_eq!(records.apps().releases, ["api".to_owned(), "shop".to_owned()].into());
    // A record that cannot be understood is the trouble of its app alone.
    fs::write(records.record_of(Some("shop")), "{ torn").unwrap();
    assert_eq!(records.open(Some("shop")).unwrap().1.warnings.len(), 1);
    let found = records.open(Some("api")).unwrap().1;
    assert!(found.warnings.is_empty() && found.record == record());
}

#[test]
fn what_is_no_record_counts_for_nothing_where_there_is_one_app() {
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = Records::take(&folder.path().join("edge.json"), None).unwrap();
    records.open(Some("api")).unwrap().0.write(&record()).unwrap();
    let theirs = ["torn", "theirs", "newer"].map(|app| records.record_of(Some(app)));
    let texts = ["{ torn", r#"{"colour": "blue"}"#, r#"{"schema": 99}"#];
    for (file, text) in theirs.iter().zip(texts) {
        fs::write(file, text).unwrap();
    }
    assert_eq!(records.apps_that_can_be_read(), ["api".to_owned()].into());
    for (file, text) in theirs.iter().zip(texts) {
        assert_eq!(fs::read_to_string(file).unwrap(), text);
    }
}

#[test]
fn a_record_that_was_set_aside_is_taken_up_without_what_was_live() {
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = Records::take(&folder.path().join("edge.json"), None).unwrap();
    records.set_aside(Some("api")).unwrap();
    for failed_probes in 1..=5 {
        let record = Record { failed_probes, app_quarantined: Some("q".into()), ..record() };
        records.open(Some("api")).unwrap().0.write(&record).unwrap();
        records.set_aside(Some("api")).unwrap();
        assert!(records.apps().releases.is_empty());
    }
    let aside = removed(&records.record_of(Some("api")));
    let newest = records.removed_apps().newest("api", Part::Releases);
    assert_eq!((aside.len(), aside.last()), (REMOVED_KEPT, newest.as_ref()));
    let open_added = |app| records.open_added(app, &records.removed_apps());
    let (_, found) = open_added("api").unwrap();
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    let Record { live, app_attempted, app_quarantined, failed_probes, .. } = found.record;
    assert_eq!((live, app_attempted, failed_probes), (None, None, 0));
    assert_eq!(app_quarantined.as_deref(), Some("q"));
    assert_eq!(removed(&records.record_of(Some("api"))).len(), REMOVED_KEPT - 1);
    assert_eq!(records.apps().releases, ["api".to_owned()].into(), "what is taken up is written");
    assert_eq!(open_added("other").unwrap().1.record, Record::default());
}

#[test]
fn what_an_app_was_as_each_kind_is_kept_apart_and_taken_up_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = Records::take(&folder.path().join("edge.json"), None).unwrap();
    let files = || {
        let entries = fs::read_dir(folder.path().join("edge.d")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    records.open(Some("shop")).unwrap().0.write(&record()).unwrap();
    records.write_targets("shop", Value::from("switched")).unwrap();
    assert_eq!(files(), ["shop.json"]);
    let Recorded { releases, targets } = records.apps();
    assert_eq!((releases.len(), targets.len()), (1, 1));
    records.set_targets_aside("shop").unwrap();
    assert_eq!(store::read(&records.record_of(Some("shop"))).unwrap(), record());
    records.set_aside(Some("shop")).unwrap();
    assert_eq!(files().len(), 2, "{:?}", files());
    records.set_targets_aside("shop").unwrap();
    assert_eq!(files().len(), 2, "there is nothing to be set aside");

    // The newest one that was set aside is of the other kind.
    let removed = records.removed_apps();
    records.take_up_targets("shop", removed.targets("shop")).unwrap();
    assert_eq!(records.read_targets("shop").unwrap(), Some(Value::from("switched")));
    let (store, found) = records.open_added("shop", &removed).unwrap();
    assert_eq!(found.record.app_attempted, None);
    assert_eq!(files(), ["shop.json"]);
    store.write(&record()).unwrap();
    assert_eq!(records.read_targets("shop").unwrap(), Some(Value::from("switched")));
    records.take_up_targets("shop", Former::Unknown).unwrap();
    assert!(records.set_broken_targets_aside("shop").contains(".corrupt-"));
    assert_eq!(store::read(&records.record_of(Some("shop"))).unwrap(), record());
}
