//! Directories as other processes need them: absolute, and as text.

use std::path::Path;

use http::HeaderValue;

use super::failure::Failure;

/// `--dir` as an absolute path. It may be relative to where `portok` runs, and the daemon runs
/// elsewhere.
///
/// # Errors
/// It is not valid UTF-8.
pub(crate) fn absolute_directory(dir: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(dir).map_err(|error| Failure::Usage {
        message: format!("--dir {}: {error}", dir.display()),
        hint: None,
    })?;
    absolute.into_os_string().into_string().map_err(|path| {
        Failure::usage(
            format!("--dir {}: not valid UTF-8", path.display()),
            "name it by a path of UTF-8 characters, a link for example",
        )
    })
}

/// The current directory. A deploy's command runs there if the instance names no directory.
///
/// # Errors
/// It is unknown, or no header can carry it.
pub(crate) fn own_directory() -> Result<HeaderValue, Failure> {
    let unusable = |why: String| {
        Failure::usage(
            format!("the current directory cannot be told to the daemon: {why}"),
            "give it with --dir",
        )
    };
    let directory = std::env::current_dir().map_err(|error| unusable(error.to_string()))?;
    let text = directory.to_str().ok_or_else(|| unusable("its name is not UTF-8".to_owned()))?;
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| unusable("its name holds a control character".to_owned()))
}
