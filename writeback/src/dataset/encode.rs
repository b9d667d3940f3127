//! Batches in another compression than the one they came in.

use super::{
    Compression, IpcMessage,
    ipc::{guarded, schema::StoredSchema},
};
use crate::{Error, Result};
use arrow_array::RecordBatch;
use arrow_ipc::{
    CompressionType,
    writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions},
};
use bytes::Bytes;

/// The codec of the format for a compression.
pub(super) fn codec(compression: Compression) -> Option<CompressionType> {
    match compression {
        Compression::None => None,
        Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        Compression::Zstd => Some(CompressionType::ZSTD),
    }
}

/// Encodes batches anew in another compression.
pub(super) struct Encoder {
    pub(super) codec: CompressionType,
    options: IpcWriteOptions,
    tracker: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    pub(super) fn new(codec: CompressionType, schema: &StoredSchema) -> Result<Self> {
        let options = IpcWriteOptions::default().try_with_compression(Some(codec));
        let options = options.map_err(|error| Error::invalid(format!("compression: {error}")))?;
        let mut tracker = DictionaryTracker::new(false);
        IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(&schema.schema, &mut tracker, &options);
        Ok(Self {
            codec,
            options,
            tracker,
            context: IpcWriteContext::default(),
        })
    }

    pub(super) fn encode(&mut self, batch: &RecordBatch, app_metadata: Bytes) -> Result<IpcMessage> {
        let Self {
            options,
            tracker,
            context,
            ..
        } = self;
        // Dictionaries are stored as they were sent; only the batch is wanted here.
        let (_, encoded) = guarded("compressing a batch", || {
            IpcDataGenerator::default().encode(batch, tracker, options, context)
        })?;
        Ok(IpcMessage {
            header: encoded.ipc_message.into(),
            body: vec![encoded.arrow_data.into()],
            app_metadata,
        })
    }
}
