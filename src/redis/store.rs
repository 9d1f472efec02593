//! The last table on disk, for a start without Redis.
//!
//! The file is written whole: to a temporary file in the same folder, which is synced and renamed
//! over the former one. It holds the lists as they were read; they are judged again when they are
//! loaded, since the bounds may be others by then.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::bounds::Bounds;
use super::list::Frontend;
use super::table::{MOST_HOSTS, Table};
use crate::config::beside_state_file;
use crate::folder;

/// The largest file that is read, in bytes: the most hosts with the longest lists that are well
/// formed fit into it.
const LARGEST: u64 = 1 << 30;

const SCHEMA: u32 = 1;

/// Where the table of the instance with this record is kept.
pub fn table_file(state_file: &Path) -> PathBuf {
    beside_state_file(state_file, ".redis.json")
}

/// The content of the file.
#[derive(Debug, Deserialize)]
struct Kept<'a> {
    schema: u32,
    #[serde(borrow)]
    lists: Vec<KeptList<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptList<'a> {
    /// The host as the key has it.
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    list: Vec<Cow<'a, str>>,
}

/// The same as it is written: one list after the other, since there may be very many.
#[derive(Debug, Serialize)]
struct Written<'a> {
    schema: u32,
    lists: Lists<'a>,
}

#[derive(Debug)]
struct Lists<'a>(&'a Table);

impl Serialize for Lists<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0
                .iter()
                .map(|frontend| KeptList { key: frontend.key().into(), list: frontend.list().collect() }),
        )
    }
}

/// The table that was kept in `file`: empty where there is none. A file that cannot be used is a
/// warning, and is replaced by the next table. Blocking.
pub(super) fn load(file: &Path, bounds: &Bounds) -> (Table, Option<String>) {
    let read = || -> io::Result<Table> {
        let mut bytes = Vec::new();
        let opened = folder::open_regular(OpenOptions::new().read(true), file)?;
        opened.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
        }
        let kept: Kept<'_> = serde_json::from_slice(&bytes)?;
        if kept.schema != SCHEMA {
            let found = kept.schema;
            return Err(io::Error::other(format!("its schema is {found}, this portokd reads {SCHEMA}")));
        }
        let lists = kept.lists.iter().map(|KeptList { key, list }| {
            let list: Vec<_> = list.iter().map(|element| element.as_bytes()).collect();
            Frontend::read(key, &list, bounds)
        });
        Ok(Table::new(lists.filter_map(Result::ok).take(MOST_HOSTS)))
    };
    match read() {
        Ok(table) => (table, None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Table::default(), None),
        Err(error) => {
            let file = file.display();
            (Table::default(), Some(format!("the table of Redis in {file} cannot be used ({error})")))
        }
    }
}

/// Keeps `table` in `file`. Blocking.
///
/// # Errors
/// The operation that failed, and its path. The former file is whole.
pub(super) fn save(file: &Path, table: &Table) -> io::Result<()> {
    // Another daemon that takes over may write at the same time.
    let temporary = file.with_extension(format!("json.tmp-{}", std::process::id()));
    let written = (|| {
        if let Some((link, uid)) = folder::planted_link(file) {
            let link = link.display();
            return Err(io::Error::other(format!("{link} is a link that uid {uid} has made")));
        }
        let mut options = OpenOptions::new();
        let created =
            folder::open_regular(options.create(true).truncate(true).write(true).mode(0o600), &temporary)?;
        let mut writer = BufWriter::new(created);
        serde_json::to_writer(&mut writer, &Written { schema: SCHEMA, lists: Lists(table) })?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        fs::rename(&temporary, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    })();
    written.map_err(|error| {
        // The rest of a failed attempt only takes room on a disk that may be full.
        let _may_not_exist = fs::remove_file(&temporary);
        io::Error::new(error.kind(), format!("cannot keep the table of Redis in {}: {error}", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn bounds(range: &str) -> Bounds {
        Bounds { allow: vec![range.parse().unwrap()], ..Bounds::default() }
    }

    fn table() -> Table {
        let read = |key: &str, target: &str| {
            let list = ["a \"label\"\n\u{e9}", target, "http://10.0.0.1"];
            Frontend::read(key, &list, &bounds("10.0.0.0/8")).unwrap()
        };
        Table::new([read("Shop.example.com", "http://10.0.0.1:80"), read("*.b", "http://10.9.0.1:80")])
    }

    #[test]
    fn what_is_kept_is_found_again_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = table_file(&folder.path().join("edge.json"));
        assert_eq!(file, folder.path().join("edge.redis.json"));
        assert_eq!(table_file(Path::new("/x/edge.state")), Path::new("/x/edge.state.redis.json"));
        assert_eq!(load(&file, &bounds("10.0.0.0/8")), (Table::default(), None));
        save(&file, &Table::default()).unwrap();
        save(&file, &table()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&file, &bounds("10.0.0.0/8")), (table(), None));
        // By other bounds one of them is no target.
        let (narrow, warning) = load(&file, &bounds("10.0.0.0/16"));
        assert_eq!((narrow.len(), warning), (1, None));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_a_warning_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.redis.json");
        for broken in ["", "{", "[]", "{\"schema\":2,\"lists\":[]}", "{\"schema\":1,\"lists\":[{\"key\":1}]}"]
        {
            fs::write(&file, broken).unwrap();
            let (table, warning) = load(&file, &Bounds::default());
            assert!(table.is_empty() && warning.unwrap().contains("edge.redis.json"), "{broken}");
        }
        save(&file, &table()).unwrap();
        assert_eq!(load(&file, &bounds("10.0.0.0/8")).0, table());
        // A link is not followed, and is replaced too.
        fs::remove_file(&file).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "kept").unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert!(load(&file, &Bounds::default()).1.unwrap().contains("it is a link"));
        save(&file, &table()).unwrap();
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "kept");
    }

    #[test]
    fn a_failed_attempt_leaves_the_former_table() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("missing/edge.redis.json");
        let error = save(&file, &table()).unwrap_err().to_string();
        assert!(error.contains("edge.redis.json") && error.starts_with("cannot keep"), "{error}");
    }
}
