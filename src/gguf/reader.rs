//! Reads little-endian values from a source of known length. Every length is compared with what is left
//! before anything is allocated or read.

use std::io::{BufReader, ErrorKind, Read, Seek};

use crate::error::GgufError;

/// A position in a file of known length.
pub(crate) struct Reader<R> {
    inner: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads `source` from its current position, which counts as byte 0; `length` bytes are there.
    pub(crate) fn new(source: R, length: u64) -> Self {
        Self { inner: BufReader::with_capacity(64 * 1024, source), position: 0, length }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the whole source.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fails unless `count` more bytes are there.
    pub(crate) fn need(&self, count: u64) -> Result<(), GgufError> {
        if count > self.length.saturating_sub(self.position) {
            return Err(GgufError::Truncated { expected: self.position.saturating_add(count), actual: self.length });
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), GgufError> {
        let count = buffer.len() as u64;
        self.need(count)?;
        self.inner.read_exact(buffer).map_err(|error| match error.kind() {
            // The file became shorter since its length was taken.
            ErrorKind::UnexpectedEof => {
                GgufError::Truncated { expected: self.position.saturating_add(count), actual: self.position }
            }
            _ => GgufError::Io(error),
        })?;
        self.position += count;
        Ok(())
    }

    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut buffer = [0; N];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    /// The next 32-bit number.
    pub(crate) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    /// The next 64-bit number.
    pub(crate) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// The next `count` bytes. The caller has bounded `count`.
    pub(crate) fn vec(&mut self, count: u64) -> Result<Vec<u8>, GgufError> {
        self.need(count)?;
        let mut buffer = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    /// Passes the next `count` bytes to `each` in pieces, so that no length decides an allocation.
    pub(crate) fn pieces(&mut self, count: u64, mut each: impl FnMut(&[u8])) -> Result<(), GgufError> {
        self.need(count)?;
        let mut buffer = [0; 1024];
        let mut left = count;
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..size];
            self.fill(piece)?;
            each(piece);
            left -= size as u64;
        }
        Ok(())
    }

    /// Passes over `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) -> Result<(), GgufError> {
        self.need(count)?;
        let step =
            i64::try_from(count).map_err(|_| GgufError::Truncated { expected: u64::MAX, actual: self.length })?;
        self.inner.seek_relative(step)?;
        self.position += count;
        Ok(())
    }
}
