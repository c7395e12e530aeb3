//! How values are written: a version byte, then fields in a fixed order. Rows that are read for every message are
//! written by hand here; the user record, rarely read and often extended, is protobuf.

use crate::engine::StoreError;
use bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint};

/// Version byte of every value of this file's kind.
const VERSION: u8 = 1;

/// Writes a value.
pub(super) struct RowWriter(Vec<u8>);

impl RowWriter {
    /// `bytes_max`: room to reserve.
    pub(super) fn new(bytes_max: usize) -> Self {
        let mut row = Vec::with_capacity(1 + bytes_max);
        row.push(VERSION);
        Self(row)
    }

    pub(super) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn varint(mut self, value: u64) -> Self {
        encode_varint(value, &mut self.0);
        self
    }

    /// 8 bytes, big endian: for fields that engines look at.
    pub(super) fn fixed(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// Reads a value from the front; every step fails on a damaged row.
pub(super) struct RowReader {
    table: &'static str,
    rest: Bytes,
}

impl RowReader {
    /// Checks the version byte.
    pub(super) fn new(table: &'static str, value: Bytes) -> Result<Self, StoreError> {
        let mut row = Self { table, rest: value };
        match row.byte()? {
            VERSION => Ok(row),
            _ => Err(row.damaged("unknown value version")),
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, StoreError> {
        self.rest.try_get_u8().map_err(|_| self.damaged("too short"))
    }

    pub(super) fn varint(&mut self) -> Result<u64, StoreError> {
        decode_varint(&mut self.rest).map_err(|_| self.damaged("no varint"))
    }

    pub(super) fn fixed(&mut self) -> Result<u64, StoreError> {
        self.rest.try_get_u64().map_err(|_| self.damaged("too short"))
    }

    /// The next bytes, without a copy.
    pub(super) fn bytes(&mut self, count: usize) -> Result<Bytes, StoreError> {
        if self.rest.len() < count {
            return Err(self.damaged("too short"));
        }
        Ok(self.rest.split_to(count))
    }

    /// Everything that is left, without a copy.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn damaged(&self, detail: &'static str) -> StoreError {
        StoreError::Damaged { table: self.table, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_in_order() {
        let row = RowWriter::new(32).varint(300).fixed(7).byte(9).bytes(b"rest").finish();
        let mut row = RowReader::new("test", row).expect("version");
        assert_eq!((row.varint().expect("varint"), row.fixed().expect("fixed")), (300, 7));
        assert_eq!((row.byte().expect("byte"), row.bytes(2).expect("bytes")), (9, Bytes::from("re")));
        assert_eq!(row.rest(), "st");
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let whole = RowWriter::new(32).varint(1 << 40).fixed(7).finish();
        for length in 0..whole.len() {
            let row = RowReader::new("test", whole.slice(..length));
            let read = row.and_then(|mut row| row.varint().and_then(|_| row.fixed()));
            assert!(matches!(read, Err(StoreError::Damaged { table: "test", .. })), "{length} bytes");
        }
        assert!(RowReader::new("test", Bytes::from_static(&[2, 0])).is_err());
    }
}
