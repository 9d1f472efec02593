//! The parts of the record of an app of several: what its releases left, and what its targets did.
//!
//! An app is one kind or the other. While it becomes the other kind both have a driver, and each
//! driver writes its own part: whoever writes takes what the other one has left with it. So an app
//! has one record at each moment, which is written whole.
//!
//! The part of releases is a [`Record`], with its fields at the top; that of targets is under
//! `targets`. State: [`Turns`], a lock for each record, so that nothing that is written meanwhile
//! is lost.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::record::{Record, Schema};
use super::whole::{read_whole, write_whole};

/// Where the part of targets is.
const TARGETS: &str = "targets";

/// Where the version is, which both parts have in common.
const SCHEMA: &str = "schema";

/// A part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Releases,
    Targets,
}

/// Which parts a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Has {
    pub(super) releases: bool,
    pub(super) targets: bool,
}

/// One write at a time, for each record. Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<PathBuf, Weak<Turn>>>>);

/// The turn to write one record.
pub(super) type Turn = Mutex<()>;

impl Turns {
    /// That of the record at `file`.
    pub(super) fn of(&self, file: &Path) -> Arc<Turn> {
        // Whole at every moment.
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(file).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(file.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

impl Part {
    /// Whether there is this part in what has these.
    pub(super) fn is_in(self, has: Has) -> bool {
        match self {
            Self::Releases => has.releases,
            Self::Targets => has.targets,
        }
    }
}

/// Which parts the record at `file` has.
///
/// # Errors
/// It cannot be read, or is no record.
pub(super) fn of(file: &Path) -> io::Result<Has> {
    #[derive(Deserialize)]
    struct Look {
        schema: Schema,
        releases: Option<IgnoredAny>,
        targets: Option<IgnoredAny>,
    }
    let Look { schema, releases, targets } =
        serde_json::from_slice(&read_whole(file)?).map_err(io::Error::other)?;
    if schema != Schema::default() {
        return Err(io::Error::other("its schema is another"));
    }
    let targets = targets.is_some();
    Ok(Has { releases: releases.is_some() || !targets, targets })
}

/// Writes the part of releases. Blocking.
///
/// # Errors
/// The operation that failed, and its path. The former record is whole.
pub(super) fn write_releases(file: &Path, turn: &Turn, record: &Record) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Other {
        targets: Option<Value>,
    }
    #[derive(Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        record: &'a Record,
        #[serde(skip_serializing_if = "Option::is_none")]
        targets: Option<Value>,
    }
    let _alone = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let other = match read_whole(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // What cannot be understood was not taken up either.
        read => serde_json::from_slice::<Other>(&read?).ok(),
    };
    let whole = Whole { record, targets: other.and_then(|other| other.targets) };
    write_whole(file, &serde_json::to_vec_pretty(&whole)?)
}

/// Writes the part of targets. Blocking.
///
/// # Errors
/// As [`write_releases`].
pub(super) fn write_targets(file: &Path, turn: &Turn, targets: Value) -> io::Result<()> {
    let _alone = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let mut document = match read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        // As above.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Map::new(),
        read => read?,
    };
    document.entry(SCHEMA).or_insert(serde_json::to_value(Schema::default())?);
    document.insert(TARGETS.to_owned(), targets);
    write_whole(file, &serde_json::to_vec_pretty(&document)?)
}

/// The part of targets; `None`: there is none. Blocking.
///
/// # Errors
/// The file cannot be read, or is no record (`InvalidData`).
pub(super) fn read_targets(file: &Path) -> io::Result<Option<Value>> {
    match read(file) {
        Ok(mut document) => Ok(document.remove(TARGETS)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes one part out of a record and puts it in a file of its own, at `aside`. A file that has
/// nothing else, or is no record, is moved there. Returns whether there was such a part. Blocking.
///
/// # Errors
/// The operation that failed, and its path. Nothing is lost then.
pub(super) fn take_out(file: &Path, turn: &Turn, part: Part, aside: &Path) -> io::Result<bool> {
    let _alone = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let has = match of(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Ok(has) if !part.is_in(has) => return Ok(false),
        has => has.ok(),
    };
    if !has.is_some_and(|has| has.releases && has.targets) {
        fs::rename(file, aside)?;
        return Ok(true);
    }
    let (mut releases, mut targets) = (read(file)?, Map::new());
    if let Some(schema) = releases.get(SCHEMA) {
        targets.insert(SCHEMA.to_owned(), schema.clone());
    }
    targets.extend(releases.remove_entry(TARGETS));
    let (out, rest) = match part {
        Part::Releases => (releases, targets),
        Part::Targets => (targets, releases),
    };
    // Where it ends in between, the part is there twice, and is taken out once more.
    write_whole(aside, &serde_json::to_vec_pretty(&out)?)?;
    write_whole(file, &serde_json::to_vec_pretty(&rest)?)?;
    Ok(true)
}

fn read(file: &Path) -> io::Result<Map<String, Value>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    serde_json::from_slice(&read_whole(file)?).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::store;
    use super::*;

    fn record(restarts: u32) -> Record {
        Record { restarts, ..Record::default() }
    }

    fn text(file: &Path) -> Value {
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    #[test]
    fn each_part_is_written_with_what_the_other_one_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let (file, turn) = (folder.path().join("shop.json"), Turn::default());
        assert_eq!(read_targets(&file).unwrap(), None);
        write_targets(&file, &turn, json!({ "configured": ["127.0.0.1:1"] })).unwrap();
        assert_eq!(of(&file).unwrap(), Has { releases: false, targets: true });
        assert_eq!(store::read(&file).unwrap(), Record::default(), "no release is known of it");
        write_releases(&file, &turn, &record(7)).unwrap();
        assert_eq!(of(&file).unwrap(), Has { releases: true, targets: true });
        write_targets(&file, &turn, json!({ "configured": ["127.0.0.1:2"] })).unwrap();
        assert_eq!(store::read(&file).unwrap(), record(7));
        assert_eq!(read_targets(&file).unwrap(), Some(json!({ "configured": ["127.0.0.1:2"] })));
        fs::remove_file(&file).unwrap();
        write_releases(&file, &turn, &record(8)).unwrap();
        assert_eq!(of(&file).unwrap(), Has { releases: true, targets: false });
        assert_eq!(text(&file), serde_json::to_value(record(8)).unwrap(), "as it was without parts");
    }

    #[test]
    fn a_part_goes_out_alone_and_the_last_one_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let [file, first, last, never] =
            ["shop.json", "first", "last", "never"].map(|name| folder.path().join(name));
        for (part, other) in [(Part::Targets, Part::Releases), (Part::Releases, Part::Targets)] {
            let turn = Turn::default();
            write_releases(&file, &turn, &record(7)).unwrap();
            write_targets(&file, &turn, json!({ "configured": [] })).unwrap();
            assert!(take_out(&file, &turn, part, &first).unwrap());
            assert!(part.is_in(of(&first).unwrap()) && !other.is_in(of(&first).unwrap()));
            assert!(other.is_in(of(&file).unwrap()) && !part.is_in(of(&file).unwrap()));
            assert!(!take_out(&file, &turn, part, &never).unwrap());
            assert!(take_out(&file, &turn, other, &last).unwrap());
            assert!(!take_out(&file, &turn, other, &never).unwrap());
            assert!(!file.exists() && !never.exists());
            let (releases, targets) = if part == Part::Releases { (&first, &last) } else { (&last, &first) };
            assert_eq!(store::read(releases).unwrap(), record(7));
            assert_eq!(read_targets(targets).unwrap(), Some(json!({ "configured": [] })));
        }
    }

    #[test]
    fn what_is_no_record_is_moved_or_written_over_and_never_fatal() {
        let folder = tempfile::tempdir().unwrap();
        let (file, aside) = (folder.path().join("shop.json"), folder.path().join("aside"));
        let turn = Turn::default();
        for broken in ["{ torn", "", "[]", r#"{"colour": "blue"}"#, r#"{"schema": 99}"#] {
            fs::write(&file, broken).unwrap();
            of(&file).unwrap_err();
            assert!(take_out(&file, &turn, Part::Targets, &aside).unwrap());
            assert_eq!(fs::read_to_string(&aside).unwrap(), broken);
            fs::write(&file, broken).unwrap();
            write_releases(&file, &turn, &record(7)).unwrap();
            assert_eq!(store::read(&file).unwrap(), record(7));
        }
    }

    #[test]
    fn one_writes_at_a_time_and_no_lock_stays_behind() {
        let turns = Turns::default();
        let (one, other) = (turns.of(Path::new("a")), turns.of(Path::new("b")));
        assert!(Arc::ptr_eq(&one, &turns.clone().of(Path::new("a"))) && !Arc::ptr_eq(&one, &other));
        drop((one, other));
        let _third = turns.of(Path::new("c"));
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
