//! The bytes of one log entry: a format version, then the command batch.

use bytes::{Buf, Bytes};
use prost::Message;
use wire_protocol::internal::CommandBatch;

/// Format of log entries, as their first byte.
pub const RECORD_VERSION: u8 = 1;

/// Why a log entry cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another program wrote it.
    #[error("record of format {0}, this program reads {RECORD_VERSION}")]
    Version(u8),
    /// The bytes are no command batch.
    #[error("record does not decode: {0}")]
    Malformed(prost::DecodeError),
}

/// One log entry.
pub fn encode_record(batch: &CommandBatch) -> Vec<u8> {
    let mut record = Vec::with_capacity(1 + batch.encoded_len());
    record.push(RECORD_VERSION);
    batch.encode(&mut record).expect("a Vec grows");
    record
}

/// The batch of a log entry; `None` for the empty entry that opens a term. Bodies share the record's memory.
pub fn decode_record(record: &Bytes) -> Result<Option<CommandBatch>, RecordError> {
    let mut rest = record.clone();
    if !rest.has_remaining() {
        return Ok(None);
    }
    match rest.get_u8() {
        RECORD_VERSION => CommandBatch::decode(rest).map(Some).map_err(RecordError::Malformed),
        version => Err(RecordError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_protocol::internal::{ClaimName, Command, command};

    #[test]
    fn records_round_trip_and_strangers_are_refused() {
        let claim = ClaimName { name: "ada".into(), user_id: Bytes::from_static(&[7; 16]) };
        let command = Command { kind: Some(command::Kind::ClaimName(claim)) };
        let batch = CommandBatch { time_ms: 5, commands: vec![command], feed_cut: 0, log_cut: 0 };
        let record = Bytes::from(encode_record(&batch));
        assert_eq!(decode_record(&record), Ok(Some(batch)));
        assert_eq!(decode_record(&Bytes::new()), Ok(None));
        assert_eq!(decode_record(&Bytes::from_static(&[9, 1])), Err(RecordError::Version(9)));
        assert!(matches!(decode_record(&record.slice(..record.len() - 3)), Err(RecordError::Malformed(_))));
    }
}
