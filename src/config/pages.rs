//! The pages that `errors.dir` has for answers of portok's own.
//!
//! They are read when the configuration is, and do not change until it is read again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

/// The largest page, in bytes.
const PAGE_MAX: u64 = 256 * 1024;

/// All pages of a folder together, in bytes.
const ALL_MAX: usize = 4 * 1024 * 1024;

/// The most names that a folder of pages may have.
const NAMES_MAX: usize = 1000;

/// `[errors]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Errors {
    /// The folder with the pages.
    pub dir: Option<PathBuf>,
    /// What was in it when the configuration was read.
    pub pages: Arc<Pages>,
}

/// Pages in HTML, by what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages(BTreeMap<For, Bytes>);

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    Status(u16),
    /// All statuses of a hundred: 4 or 5.
    Class(u16),
    Any,
}

impl For {
    /// What the page in the file `name` is for. `None`: it is no page.
    fn named(name: &str) -> Option<Self> {
        match name.strip_suffix(".html")? {
            "default" => Some(Self::Any),
            "4xx" => Some(Self::Class(4)),
            "5xx" => Some(Self::Class(5)),
            status if status.len() == 3 => {
                status.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status)
            }
            _ => None,
        }
    }
}

impl Pages {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The page for answers with `status`: its own, else that of its class, else the one for all.
    pub fn of(&self, status: u16) -> Option<&Bytes> {
        let page = |which| self.0.get(&which);
        page(For::Status(status)).or_else(|| page(For::Class(status / 100))).or_else(|| page(For::Any))
    }

    /// Reads the pages of `dir`, and says which files there look like pages and are none.
    ///
    /// # Errors
    /// What cannot be read, and why, or which bound it exceeds.
    pub(super) fn read(dir: &Path) -> Result<(Self, Vec<String>), String> {
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let entries = fs::read_dir(dir).map_err(|error| failed(dir, error))?;
        let (mut pages, mut warnings, mut all) = (BTreeMap::new(), Vec::new(), 0);
        for (number, entry) in entries.enumerate() {
            if number >= NAMES_MAX {
                return Err(format!("{}: it has more than {NAMES_MAX} files", dir.display()));
            }
            let path = entry.map_err(|error| failed(dir, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(which) = For::named(&name) else {
                if name.ends_with(".html") && !name.starts_with('.') {
                    let shown = path.display();
                    warnings.push(format!(
                        "{shown} is not used: a page is called after a status from 400 to 599, \
                         4xx.html, 5xx.html or default.html"
                    ));
                }
                continue;
            };
            let page = read_page(&path).map_err(|error| failed(&path, error))?;
            all += page.len();
            if all > ALL_MAX {
                let most = bytesize::ByteSize(ALL_MAX as u64);
                return Err(format!("{}: its pages are larger than {most} together", dir.display()));
            }
            pages.insert(which, page);
        }
        if pages.is_empty() {
            warnings.push(format!("there is no page in {}", dir.display()));
        }
        warnings.sort();
        Ok((Self(pages), warnings))
    }
}

fn read_page(path: &Path) -> io::Result<Bytes> {
    // O_NONBLOCK, because opening a named pipe would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    let mut page = Vec::new();
    file.take(PAGE_MAX + 1).read_to_end(&mut page)?;
    if page.len() as u64 > PAGE_MAX {
        return Err(io::Error::other(format!("it is larger than {}", bytesize::ByteSize(PAGE_MAX))));
    }
    Ok(page.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    #[test]
    fn the_most_exact_page_is_taken() {
        let folder =
            folder(&[("503.html", "503"), ("5xx.html", "5xx"), ("4xx.html", "4xx"), ("note.txt", "-")]);
        let (pages, warnings) = Pages::read(folder.path()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let of = |status| pages.of(status).map(|page| str::from_utf8(page).unwrap().to_owned());
        assert_eq!(
            [503, 502, 404, 302].map(|status| of(status).unwrap_or_default()),
            ["503", "5xx", "4xx", ""]
        );
        fs::write(folder.path().join("default.html"), "any").unwrap();
        let (pages, _) = Pages::read(folder.path()).unwrap();
        assert_eq!(pages.of(302).unwrap(), "any");
        assert_eq!(pages.of(404).unwrap(), "4xx");
    }

    #[test]
    fn what_looks_like_a_page_and_is_none_is_told() {
        let folder = folder(&[("50x.html", ""), ("200.html", ""), ("4xx.HTML", ""), (".x.html", "")]);
        let (pages, warnings) = Pages::read(folder.path()).unwrap();
        assert!(pages.is_empty());
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(
            warnings[0].contains("200.html is not used") && warnings[1].contains("50x.html"),
            "{warnings:?}"
        );
        assert!(warnings[2].starts_with("there is no page in "), "{warnings:?}");
    }

    #[test]
    fn what_cannot_be_read_or_is_too_large_is_refused() {
        let why = |folder: &Path| Pages::read(folder).unwrap_err();
        let missing = folder(&[]).path().join("missing");
        assert!(why(&missing).ends_with("No such file or directory (os error 2)"));
        let large = folder(&[("502.html", &"x".repeat(256 * 1024 + 1))]);
        assert!(
            why(large.path()).ends_with("502.html: it is larger than 256.0 KiB"),
            "{}",
            why(large.path())
        );
        let text = "x".repeat(256 * 1024);
        let names: Vec<_> = (400..417).map(|status| format!("{status}.html")).collect();
        let many = folder(&names.iter().map(|name| (name.as_str(), text.as_str())).collect::<Vec<_>>());
        assert!(why(many.path()).contains("its pages are larger than 4.0 MiB together"));
        let pipe = folder(&[]);
        nix::unistd::mkfifo(&pipe.path().join("502.html"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(why(pipe.path()).ends_with("expected a regular file"));
    }
}
