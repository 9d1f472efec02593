//! What a script packs into one string with `cmsgpack`, read piece by piece, so that it takes no
//! more room than it has bytes. Pure.
//!
//! Only arrays and strings are read, in the forms of <https://msgpack.org>.

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    /// Reads these bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The beginning of an array: how many values follow that belong to it.
    pub(super) fn array(&mut self) -> Option<usize> {
        match self.byte()? {
            short @ 0x90..=0x9f => Some(usize::from(short & 0x0f)),
            0xdc => self.number(2),
            0xdd => self.number(4),
            _ => None,
        }
    }

    /// A string.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = match self.byte()? {
            short @ 0xa0..=0xbf => usize::from(short & 0x1f),
            0xd9 => self.number(1)?,
            0xda => self.number(2)?,
            0xdb => self.number(4)?,
            _ => return None,
        };
        self.next(length)
    }

    fn byte(&mut self) -> Option<u8> {
        self.next(1).map(|bytes| bytes[0])
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.next(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn next(&mut self, length: usize) -> Option<&'a [u8]> {
        let (next, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_length_are_read() {
        let long = [b'x'; 70_000];
        for (head, length) in [
            (&[0xa3_u8] as &[u8], 3),
            (&[0xbf], 31),
            (&[0xd9, 40], 40),
            (&[0xda, 1, 44], 300),
            (&[0xdb, 0, 1, 17, 112], 70_000),
        ] {
            let bytes = [head, &long[..length], &[0x92]].concat();
            let mut packed = Packed::new(&bytes);
            assert_eq!(packed.bytes().map(<[u8]>::len), Some(length));
            assert_eq!((packed.array(), packed.array()), (Some(2), None));
            assert_eq!(Packed::new(&bytes[..bytes.len() - 2]).bytes(), None);
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        assert_eq!(Packed::new(&[0xdc, 1, 1]).array(), Some(257));
        assert_eq!(Packed::new(&[0xdd, 0, 1, 0, 0]).array(), Some(65_536));
        for bytes in [&[] as &[u8], &[0xdc], &[0xdb, 255, 255, 255, 255], &[0xc0], &[0x01], &[0x81]] {
            assert_eq!((Packed::new(bytes).array(), Packed::new(bytes).bytes()), (None, None), "{bytes:?}");
        }
    }
}
