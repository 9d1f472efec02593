//! A hash that is the same in every version of portok.

/// FNV-1a with 128 bits (draft-eastlake-fnv, section 5), over records. A record is the key, `=`,
/// the value's length in decimal, `:`, the value, a line feed, so that no two lists of records are
/// the same bytes. The results are kept on disk: the hash never changes.
#[derive(Debug)]
pub struct Fnv(u128);

impl Fnv {
    /// The hash of nothing.
    #[expect(clippy::new_without_default, reason = "the hash of nothing is no sensible default of anything")]
    pub fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// Adds a record.
    pub fn record(&mut self, key: &str, value: &str) {
        let length = value.len().to_string();
        for part in [key, "=", &length, ":", value, "\n"] {
            self.bytes(part.as_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    /// The hash in hexadecimal, 32 digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_hash() {
        // The vector of the draft for "a".
        let mut hash = Fnv::new();
        hash.bytes(b"a");
        assert_eq!(hash.hex(), "d228cb696f1a8caf78912b704e4a8964");
    }
}
