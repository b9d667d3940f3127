//! What a stranger's message may be before a byte of it is written.
//!
//! Every message: a valid flatbuffer within bounds, of a kind that may stand there, with exactly the nodes and buffers that the
//! schema has, every buffer inside the body, no negative number anywhere. Beyond that there are two ways:
//!
//! - **Plain** schemas (numbers, booleans, fixed-size binaries, and structs and fixed-size lists of them), uncompressed: what a
//!   reader takes from the body can not lead outside of it once the lengths fit, so the body is not touched, but for the validity
//!   bits of columns that claim nulls. This is the hot path.
//! - **All others** are decoded by the Arrow crate with full validation: offsets, UTF-8, dictionary indices, run ends, union types.
//!   What a compressed body claims to be is bounded before it is decoded.
//!
//! What other readers ask beyond that is `strict`'s.

use super::{
    APP_METADATA_BYTES_MAX, BODY_BYTES_MAX, ROWS_MAX,
    compressed::{self, Frames},
    guarded, joined, message,
    schema::StoredSchema,
    strict,
};
use crate::{Error, Result, dataset::IpcMessage};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::{Buffer, bit_chunk_iterator::UnalignedBitChunk};
use arrow_ipc::{CompressionType, MessageHeader, MetadataVersion, reader::RecordBatchDecoder};
use arrow_schema::{DataType, Field, Schema, UnionMode};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc};

/// Bytes that a put's dictionaries may take together, decoded.
const DICTIONARY_BYTES_MAX: usize = 256 << 20;

/// What a message turned out to be.
#[derive(Debug, PartialEq)]
pub(crate) enum Checked {
    /// A dictionary.
    Dictionary {
        /// Its id.
        id: i64,
        /// Adds to what the id has; else it takes its place.
        delta: bool,
    },
    /// A record batch.
    Batch {
        /// Its rows.
        rows: u64,
        /// How its buffers are compressed.
        compression: Option<CompressionType>,
        /// Decoded, when that was needed to know that it is sound.
        decoded: Option<RecordBatch>,
    },
}

/// Checks the messages of one put, in their order.
#[derive(Debug)]
pub(crate) struct Validator {
    schema: StoredSchema,
    plain: bool,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl Validator {
    pub(crate) fn new(schema: StoredSchema) -> Self {
        let plain = schema.schema.fields().iter().all(|field| is_plain(field.data_type()));
        Self {
            schema,
            plain,
            dictionaries: HashMap::new(),
        }
    }

    /// Whether the message may be stored. Invalid says why not. A dictionary counts for the batches after it.
    pub(crate) fn check(&mut self, message: &IpcMessage) -> Result<Checked> {
        let body_len = body_len(message)?;
        if message.app_metadata.len() > APP_METADATA_BYTES_MAX {
            let found = message.app_metadata.len();
            return Err(Error::invalid(format!(
                "app_metadata of {found} bytes; at most {APP_METADATA_BYTES_MAX} are taken"
            )));
        }
        let parsed = super::message(&message.header)?;
        let claimed = parsed.bodyLength();
        if u64::try_from(claimed) != Ok(body_len) {
            return Err(Error::invalid(format!(
                "the header says that the body has {claimed} bytes, and {body_len} came"
            )));
        }
        strict::check_header(&parsed)?;
        match parsed.header_type() {
            MessageHeader::RecordBatch => self.check_batch(message, &parsed, body_len),
            MessageHeader::DictionaryBatch => self.check_dictionary(message, &parsed, body_len),
            MessageHeader::Schema => Err(Error::invalid(
                "a second schema in one put; begin another put for another schema",
            )),
            other => {
                let name = other.variant_name().unwrap_or("an unknown kind");
                Err(Error::invalid(format!(
                    "a message of {name} can not be stored; send record batches"
                )))
            }
        }
    }

    /// The dictionaries as they stand, for whoever decodes a batch that was only checked.
    pub(crate) fn decode(&self, message: &IpcMessage) -> Result<RecordBatch> {
        decode_batch(&self.schema, &self.dictionaries, message, Frames::Readable)
    }

    fn check_batch(&self, message: &IpcMessage, parsed: &arrow_ipc::Message<'_>, body_len: u64) -> Result<Checked> {
        let batch = parsed
            .header_as_record_batch()
            .ok_or_else(|| Error::invalid("a record batch without its header"))?;
        let fields: Vec<&Field> = self.schema.schema.fields().iter().map(AsRef::as_ref).collect();
        let shape = Shape::of(&batch, body_len, parsed.version())?;
        shape.fits(&fields)?;
        strict::check_alignment(&shape.buffers)?;
        let rows = shape.rows;
        let compression = compression(&batch)?;
        if compression.is_some() || !self.plain {
            let decoded = decode_batch(&self.schema, &self.dictionaries, message, Frames::One)?;
            let decoded = Some(decoded);
            return Ok(Checked::Batch {
                rows,
                compression,
                decoded,
            });
        }
        let sound = shape.check_plain(&fields, &message.body)?;
        let decoded = if sound { None } else { Some(self.decode(message)?) };
        Ok(Checked::Batch {
            rows,
            compression,
            decoded,
        })
    }

    fn check_dictionary(
        &mut self,
        message: &IpcMessage,
        parsed: &arrow_ipc::Message<'_>,
        body_len: u64,
    ) -> Result<Checked> {
        let dictionary = parsed
            .header_as_dictionary_batch()
            .ok_or_else(|| Error::invalid("a dictionary without its header"))?;
        let (id, delta) = (dictionary.id(), dictionary.isDelta());
        let batch = dictionary
            .data()
            .ok_or_else(|| Error::invalid(format!("dictionary {id} has no data")))?;
        let values = values_of(&self.schema.schema, id)
            .ok_or_else(|| Error::invalid(format!("no column uses a dictionary with the id {id}")))?;
        if delta && !self.dictionaries.contains_key(&id) {
            return Err(Error::invalid(format!(
                "a delta of dictionary {id} before the dictionary"
            )));
        }
        let shape = Shape::of(&batch, body_len, parsed.version())?;
        shape.fits(&[&Field::new("values", values, true)])?;
        strict::check_alignment(&shape.buffers)?;
        read_dictionary(&self.schema.schema, &mut self.dictionaries, message, Frames::One)?;
        let bytes: usize = self
            .dictionaries
            .values()
            .map(|values| values.get_array_memory_size())
            .sum();
        if bytes > DICTIONARY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the dictionaries take {bytes} bytes, at most {DICTIONARY_BYTES_MAX} are taken; send such columns as plain values"
            )));
        }
        Ok(Checked::Dictionary { id, delta })
    }
}

/// Bytes of a message's body. Invalid beyond [`BODY_BYTES_MAX`].
pub(crate) fn body_len(message: &IpcMessage) -> Result<u64> {
    let len = message.body.iter().map(|piece| piece.len() as u64).sum();
    if len > BODY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a body of {len} bytes; at most {BODY_BYTES_MAX} are taken in one message"
        )));
    }
    Ok(len)
}

/// The compression of a batch's buffers. Invalid when it is none we know.
pub(crate) fn compression(batch: &arrow_ipc::RecordBatch<'_>) -> Result<Option<CompressionType>> {
    match batch.compression().map(|compression| compression.codec()) {
        None => Ok(None),
        Some(known @ (CompressionType::LZ4_FRAME | CompressionType::ZSTD)) => Ok(Some(known)),
        Some(other) => Err(Error::invalid(format!(
            "buffers in an unknown compression (number {})",
            other.0
        ))),
    }
}

/// Decodes a batch with full validation. Invalid: it is not one of this schema, or claims to be too large.
pub(crate) fn decode_batch(
    schema: &StoredSchema,
    dictionaries: &HashMap<i64, ArrayRef>,
    source: &IpcMessage,
    frames: Frames,
) -> Result<RecordBatch> {
    let parsed = message(&source.header)?;
    let batch = parsed
        .header_as_record_batch()
        .ok_or_else(|| Error::invalid("not a record batch"))?;
    let fields: Vec<&Field> = schema.schema.fields().iter().map(AsRef::as_ref).collect();
    Shape::of(&batch, body_len(source)?, parsed.version())?.fits(&fields)?;
    compressed::check(&batch, &source.body, frames)?;
    let body = Buffer::from(joined(&source.body));
    let (schema, version) = (Arc::clone(&schema.schema), parsed.version());
    guarded("the record batch", || {
        RecordBatchDecoder::try_new(&body, batch, schema, dictionaries, &version)?.read_record_batch()
    })
}

/// Takes a dictionary message into `dictionaries`.
pub(crate) fn read_dictionary(
    schema: &Schema,
    dictionaries: &mut HashMap<i64, ArrayRef>,
    source: &IpcMessage,
    frames: Frames,
) -> Result<()> {
    let parsed = message(&source.header)?;
    let batch = parsed
        .header_as_dictionary_batch()
        .ok_or_else(|| Error::invalid("not a dictionary"))?;
    if let Some(data) = batch.data() {
        compressed::check(&data, &source.body, frames)?;
    }
    let (body, version) = (Buffer::from(joined(&source.body)), parsed.version());
    let what = format!("dictionary {}", batch.id());
    guarded(&what, || {
        arrow_ipc::reader::read_dictionary(&body, batch, schema, dictionaries, &version)
    })
}

/// The value type of a dictionary.
fn values_of(schema: &Schema, id: i64) -> Option<DataType> {
    #[expect(deprecated, reason = "the id is what the messages of a stream name")]
    let fields = schema.fields_with_dict_id(id);
    match fields.first()?.data_type() {
        DataType::Dictionary(_, values) => Some(values.as_ref().clone()),
        _ => None,
    }
}

/// Whether the body of such a column needs no look to be known sound.
fn is_plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null | DataType::Boolean | DataType::FixedSizeBinary(_) => true,
        DataType::Struct(fields) => fields.iter().all(|field| is_plain(field.data_type())),
        DataType::FixedSizeList(field, _) => is_plain(field.data_type()),
        other => other.primitive_width().is_some(),
    }
}

/// The numbers of a record batch: rows, nodes, buffers.
struct Shape {
    rows: u64,
    nodes: Vec<(u64, u64)>,
    buffers: Vec<(u64, u64)>,
    variadic: Vec<u64>,
    version: MetadataVersion,
    body_len: u64,
}

impl Shape {
    fn of(batch: &arrow_ipc::RecordBatch<'_>, body_len: u64, version: MetadataVersion) -> Result<Self> {
        let rows = number("the rows", batch.length(), ROWS_MAX)?;
        // No value takes less than a bit, but for those that take no room at all.
        let length_max = ROWS_MAX.max(body_len.saturating_mul(if batch.compression().is_some() { 8 * 255 } else { 8 }));
        // An empty list is fine (a batch without columns), none at all is what no reader decodes.
        if batch.nodes().is_none() || batch.buffers().is_none() {
            return Err(Error::invalid("a batch without its lists of columns and buffers"));
        }
        let mut nodes = Vec::new();
        for node in batch.nodes().into_iter().flatten() {
            let length = number("a column's length", node.length(), length_max)?;
            nodes.push((length, number("a column's null count", node.null_count(), length)?));
        }
        let mut buffers = Vec::new();
        for buffer in batch.buffers().into_iter().flatten() {
            let at = number("a buffer's offset", buffer.offset(), body_len)?;
            buffers.push((at, number("a buffer's length", buffer.length(), body_len - at)?));
        }
        let counts = batch.variadicBufferCounts();
        let most = buffers.len() as u64;
        let variadic = counts
            .into_iter()
            .flatten()
            .map(|count| number("a buffer count", count, most))
            .collect::<Result<_>>()?;
        Ok(Self {
            rows,
            nodes,
            buffers,
            variadic,
            version,
            body_len,
        })
    }

    /// Whether there are exactly the nodes and buffers that `fields` have, and each column has the batch's rows.
    fn fits(&self, fields: &[&Field]) -> Result<()> {
        let mut seen = Seen::default();
        for field in fields {
            match self.nodes.get(seen.nodes) {
                Some((length, _)) if *length == self.rows => {}
                Some((length, _)) => {
                    let name = field.name();
                    return Err(Error::invalid(format!(
                        "column {name:?} has {length} values in a batch of {} rows",
                        self.rows
                    )));
                }
                // The counts below say so.
                None => {}
            }
            seen.take(field.data_type(), &self.variadic, self.version)?;
        }
        let found = Seen {
            nodes: self.nodes.len(),
            buffers: self.buffers.len(),
            variadic: self.variadic.len(),
        };
        if seen.nodes == found.nodes && seen.buffers == found.buffers && seen.variadic == found.variadic {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a batch of another schema: {} nodes and {} buffers, where the schema has {} and {}",
            found.nodes, found.buffers, seen.nodes, seen.buffers
        )))
    }

    /// Checks the lengths of plain columns, and their validity bits where they claim nulls. False: only decoding can tell whether
    /// nulls below a null are meant.
    fn check_plain(&self, fields: &[&Field], body: &[Bytes]) -> Result<bool> {
        let mut walk = PlainWalk {
            shape: self,
            body,
            node: 0,
            buffer: 0,
            unclear: false,
        };
        for field in fields {
            walk.column(field, self.rows, true)?;
        }
        Ok(!walk.unclear)
    }
}

/// Counts of what a schema needs.
#[derive(Debug, Default)]
struct Seen {
    nodes: usize,
    buffers: usize,
    variadic: usize,
}

impl Seen {
    fn take(&mut self, data_type: &DataType, variadic: &[u64], version: MetadataVersion) -> Result<()> {
        self.nodes += 1;
        self.buffers += match data_type {
            DataType::Null | DataType::RunEndEncoded(..) => 0,
            DataType::Struct(_) | DataType::FixedSizeList(..) => 1,
            DataType::Union(_, mode) => {
                let validity = usize::from(version < MetadataVersion::V5);
                validity + if *mode == UnionMode::Dense { 2 } else { 1 }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 3,
            DataType::ListView(_) | DataType::LargeListView(_) => 3,
            DataType::Utf8View | DataType::BinaryView => {
                let count = variadic
                    .get(self.variadic)
                    .ok_or_else(|| Error::invalid("a view column without its buffer count"))?;
                self.variadic += 1;
                2 + usize::try_from(*count).expect("no more than there are buffers")
            }
            _ => 2,
        };
        if matches!(data_type, DataType::Dictionary(..)) {
            return Ok(()); // Its values travel by themselves.
        }
        super::schema::children(data_type)
            .into_iter()
            .try_for_each(|child| self.take(child.data_type(), variadic, version))
    }
}

/// Goes over the nodes and buffers of plain columns.
struct PlainWalk<'a> {
    shape: &'a Shape,
    body: &'a [Bytes],
    node: usize,
    buffer: usize,
    unclear: bool,
}

impl PlainWalk<'_> {
    /// Checks one column of `length` values (or of at least so many, below a fixed-size list).
    fn column(&mut self, field: &Field, length: u64, exactly: bool) -> Result<()> {
        let (len, nulls) = self.shape.nodes[self.node];
        self.node += 1;
        if len < length || (exactly && len != length) {
            return Err(Error::invalid(format!(
                "column {:?} has {len} values where {length} are needed",
                field.name()
            )));
        }
        let data_type = field.data_type();
        if *data_type == DataType::Null {
            return match len == nulls {
                true => Ok(()),
                false => Err(Error::invalid(format!(
                    "column {:?} of type Null has {nulls} nulls in {len} values",
                    field.name()
                ))),
            };
        }
        self.unclear |= nulls > 0 && !field.is_nullable();
        self.validity(field, len, nulls)?;
        match data_type {
            DataType::Struct(fields) => fields.iter().try_for_each(|child| self.column(child, len, true)),
            DataType::FixedSizeList(child, size) => {
                let size = u64::try_from(*size).expect("sizes were checked with the schema");
                let needed = len
                    .checked_mul(size)
                    .ok_or_else(|| Error::invalid("a fixed-size list too long to count"))?;
                self.column(child, needed, false)
            }
            _ => self.values(field, len),
        }
    }

    fn validity(&mut self, field: &Field, len: u64, nulls: u64) -> Result<()> {
        let (at, bytes) = self.next_buffer();
        if nulls == 0 {
            return Ok(());
        }
        let needed = len.div_ceil(8);
        if bytes < needed {
            return Err(Error::invalid(format!(
                "column {:?}: {bytes} bytes of validity for {len} values",
                field.name()
            )));
        }
        let bits = copied(self.body, at, needed);
        let len = usize::try_from(len).expect("bounded by the body");
        let valid = UnalignedBitChunk::new(&bits, 0, len).count_ones();
        match (len - valid) as u64 == nulls {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "column {:?} claims {nulls} nulls and has {}",
                field.name(),
                len - valid
            ))),
        }
    }

    fn values(&mut self, field: &Field, len: u64) -> Result<()> {
        let (_, bytes) = self.next_buffer();
        let needed = match field.data_type() {
            DataType::Boolean => Some(len.div_ceil(8)),
            DataType::FixedSizeBinary(size) => {
                len.checked_mul(u64::try_from(*size).expect("sizes were checked with the schema"))
            }
            other => len.checked_mul(other.primitive_width().expect("only plain columns come here") as u64),
        };
        match needed.is_some_and(|needed| needed <= bytes) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "column {:?}: {bytes} bytes for {len} values",
                field.name()
            ))),
        }
    }

    fn next_buffer(&mut self) -> (u64, u64) {
        let buffer = self.shape.buffers[self.buffer];
        self.buffer += 1;
        debug_assert!(buffer.0 + buffer.1 <= self.shape.body_len);
        buffer
    }
}

/// A copy of a range of the body; shorter when the body is.
fn copied(body: &[Bytes], at: u64, len: u64) -> Vec<u8> {
    let (mut skip, mut left) = (at, usize::try_from(len).expect("within a body in memory"));
    let mut out = Vec::with_capacity(left);
    for piece in body {
        let start = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
        skip -= start as u64;
        let taken = left.min(piece.len() - start);
        out.extend_from_slice(&piece[start..start + taken]);
        left -= taken;
    }
    out
}

/// A number of the wire that must lie in `0..=most`.
fn number(what: &str, value: i64, most: u64) -> Result<u64> {
    match u64::try_from(value) {
        Ok(value) if value <= most => Ok(value),
        _ => Err(Error::invalid(format!("{what} is {value}, which must be 0 to {most}"))),
    }
}
