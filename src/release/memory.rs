//! How much memory the live replicas have, for apps with `app.max_memory`: what the kernel says.

use crate::supervisor::{Identity, memory_of};

use super::state::RunId;

/// What the kernel has said so far.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// It was logged that it does not say.
    unable_logged: bool,
}

impl Kernel {
    /// Takes what one look has seen. Gives back what is known by it.
    pub(super) fn said(&mut self, seen: Vec<(RunId, Option<u64>)>) -> Vec<(RunId, u64)> {
        if !seen.is_empty() && seen.iter().all(|(_, bytes)| bytes.is_none()) {
            if !std::mem::replace(&mut self.unable_logged, true) {
                tracing::warn!(
                    "app.max_memory has no effect: the kernel does not say how much memory it has"
                );
            }
        } else {
            self.unable_logged = false;
        }
        seen.into_iter().filter_map(|(run, bytes)| Some((run, bytes?))).collect()
    }
}

/// The memory of these runs now.
pub(super) async fn look(runs: Vec<(RunId, Identity)>) -> Vec<(RunId, Option<u64>)> {
    let (ids, processes): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    ids.into_iter().zip(memory_of(processes).await).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_say_is_left_out() {
        let mut kernel = Kernel::default();
        assert_eq!(kernel.said(vec![(RunId(1), Some(5)), (RunId(2), None)]), [(RunId(1), 5)]);
        assert_eq!((kernel.said(vec![(RunId(2), None)]), kernel.unable_logged), (vec![], true));
    }
}
