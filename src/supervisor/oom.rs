//! Which process the kernel kills first when memory runs out: what spares the daemon must not spare
//! its apps.

use std::fs;

/// Gives a process that was just started the ordinary score. A child inherits the daemon's, which
/// may be a better one (`OOMScoreAdjust=` of its unit). Done from here, after the child's exec:
/// before it the child may not write the file itself, because the daemon has made itself unreadable
/// (proc(5), "dumpable").
pub(super) fn spare_no_more(pid: u32) {
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|score| score.trim().parse().ok());
    if own.is_none_or(|score: i32| score >= 0) {
        return;
    }
    // A process that has ended needs none.
    if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), "0")
        && fs::exists(format!("/proc/{pid}")).unwrap_or_default()
    {
        tracing::warn!(
            pid,
            "cannot give the app an ordinary oom_score_adj: {error}; it is spared like portokd"
        );
    }
}
