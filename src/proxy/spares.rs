//! Spare buffers of one thread.
//!
//! Requests borrow memory from here and give it back, so that a busy thread allocates none and an
//! idle connection holds none. Owned by the thread's worker; more than a fixed number is never
//! kept.

use std::cell::RefCell;

/// How many usual and how many large buffers are kept.
const SPARE: usize = 32;
const SPARE_LARGE: usize = 4;

/// Their sizes.
const BUFFER: usize = 64 * 1024;
const LARGE_BUFFER: usize = 512 * 1024;

/// How many buffers for heads are kept: one for each request that comes in one turn of the event
/// loop.
const SPARE_HEADS: usize = 128;

/// The size of a new buffer for a head.
const HEAD: usize = 4 * 1024;

/// A head buffer that has grown larger than this is not kept.
const LARGEST_HEAD: usize = 32 * 1024;

/// How much a buffer for the bytes of tunnels and bodies holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BufferSize {
    Usual,
    /// For a stream that is known to move fast.
    Large,
}

impl BufferSize {
    pub(super) fn length(self) -> usize {
        match self {
            Self::Usual => BUFFER,
            Self::Large => LARGE_BUFFER,
        }
    }
}

/// The buffers that one thread keeps for the next use.
#[derive(Debug, Default)]
pub(super) struct Spares {
    heads: RefCell<Vec<Vec<u8>>>,
    usual: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
}

impl Spares {
    /// An empty buffer for a head.
    pub(super) fn head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(HEAD))
    }

    /// Takes a head's buffer back.
    pub(super) fn keep_head(&self, mut buffer: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_HEADS && buffer.capacity() > 0 && buffer.capacity() <= LARGEST_HEAD {
            buffer.clear();
            heads.push(buffer);
        }
    }

    /// A buffer that moves the bytes of a tunnel or a body.
    pub(super) fn buffer(&self, size: BufferSize) -> Box<[u8]> {
        let spare = match size {
            BufferSize::Usual => &self.usual,
            BufferSize::Large => &self.large,
        };
        spare.borrow_mut().pop().unwrap_or_else(|| vec![0; size.length()].into_boxed_slice())
    }

    /// Takes such a buffer back.
    pub(super) fn keep(&self, buffer: Box<[u8]>) {
        let (spare, most) = match buffer.len() {
            BUFFER => (&self.usual, SPARE),
            _ => (&self.large, SPARE_LARGE),
        };
        let mut spare = spare.borrow_mut();
        if spare.len() < most {
            spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_given_back_is_used_again_and_no_more_than_a_few_are_kept() {
        let spares = Spares::default();
        for size in [BufferSize::Usual, BufferSize::Large] {
            let mut buffer = spares.buffer(size);
            assert_eq!(buffer.len(), size.length());
            buffer[0] = 7;
            spares.keep(buffer);
            assert_eq!(spares.buffer(size)[0], 7);
        }
        for _ in 0..2 * SPARE {
            spares.keep(vec![0; BUFFER].into());
            spares.keep(vec![0; LARGE_BUFFER].into());
        }
        assert_eq!((spares.usual.borrow().len(), spares.large.borrow().len()), (SPARE, SPARE_LARGE));
    }

    #[test]
    fn a_head_that_has_grown_too_large_is_not_kept() {
        let spares = Spares::default();
        spares.keep_head(Vec::with_capacity(LARGEST_HEAD + 1));
        spares.keep_head(Vec::new());
        assert!(spares.heads.borrow().is_empty());
        let mut head = spares.head();
        head.push(1);
        spares.keep_head(head);
        assert!(spares.head().is_empty());
    }
}
