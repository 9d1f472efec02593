//! Waits for conditions. This is the only place of the suite that sleeps.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long any condition may take. It is long, because only a failure reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// Sleeps for `time`, between two checks of a condition or to bound a load.
#[expect(clippy::disallowed_methods, reason = "the one pause between two looks at a condition")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Calls `check` every 20 ms until it returns something. Panics with `explain` after [`DEADLINE`].
#[track_caller]
pub(crate) fn wait_until<T>(
    what: &str,
    explain: impl Fn() -> String,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        let elapsed = start.elapsed();
        assert!(elapsed < DEADLINE, "waited {elapsed:.1?} in vain until {what}\n{}", explain());
        pause(POLL);
    }
}

/// As [`wait_until`] without a pause, for what must be seen as soon as it happens.
#[track_caller]
pub(crate) fn wait_eagerly<T>(
    what: &str,
    explain: impl Fn() -> String,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        let elapsed = start.elapsed();
        assert!(elapsed < DEADLINE, "waited {elapsed:.1?} in vain until {what}\n{}", explain());
    }
}

/// Waits until `check` holds for the lines of a file (none while it does not exist), and returns
/// them.
#[track_caller]
pub(crate) fn wait_for_lines(what: &str, path: &Path, check: impl Fn(&[String]) -> bool) -> Vec<String> {
    wait_until(
        what,
        || format!("{}: {:#?}", path.display(), lines(path)),
        || Some(lines(path)).filter(|lines| check(lines)),
    )
}

/// The complete lines of a file; none while it does not exist.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(str::to_owned).collect()
}

/// Asserts that `text` contains all of `words`. The message of a failure shows the text.
#[track_caller]
pub(crate) fn assert_mentions(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// Asserts that the value at a JSON pointer is the expected one.
#[track_caller]
pub(crate) fn assert_at<V: Debug>(value: &serde_json::Value, pointer: &str, expected: V)
where
    serde_json::Value: PartialEq<V>,
{
    let found = value.pointer(pointer).unwrap_or(&serde_json::Value::Null);
    assert!(*found == expected, "{pointer} is {found}, not {expected:?}, in {value:#}");
}
