//! SHA-256 of bytes and files, as lower-case hexadecimal.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// SHA-256 of a byte string, as 64 lower-case hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file's content, read in blocks, as 64 lower-case hexadecimal digits.
///
/// # Errors
/// Whatever opening or reading the file gives.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    sha256_read(&mut File::open(path)?)
}

/// SHA-256 of everything that a reader still gives, in blocks, as 64 lower-case hexadecimal digits.
///
/// # Errors
/// Whatever reading gives.
pub fn sha256_read(reader: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut block = vec![0u8; 1 << 16];
    loop {
        let n = reader.read(&mut block)?;
        if n == 0 {
            return Ok(to_hex(&hasher.finalize()));
        }
        hasher.update(&block[..n]);
    }
}

fn to_hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digest() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
