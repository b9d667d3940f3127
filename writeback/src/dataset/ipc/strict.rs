//! What readers of other languages ask of a message beyond what ours needs. What a put brings is held to it, or its dataset could be
//! acknowledged and then be read by nobody else.

use super::guarded;
use crate::{Error, Result};
use arrow_ipc::{
    BodyCompressionMethod, DictionaryBatch, DictionaryEncoding, Field, KeyValue, Message, MetadataVersion, RecordBatch,
    Schema, Timestamp, Union,
};
use flatbuffers::{ForwardsUOffset, Table, VOffsetT, Vector};

/// Buffers begin on multiples of this.
const ALIGNMENT: u64 = 8;

/// Invalid unless the message has a version that is understood everywhere, and a header that every verifier accepts: C++'s refuses
/// offsets of zero, where the Rust one takes the table to be its own field.
pub(super) fn check_header(message: &Message<'_>) -> Result<()> {
    guarded("the message header", || Ok(check_message(message)))?
}

fn check_message(message: &Message<'_>) -> Result<()> {
    let version = message.version();
    if !(MetadataVersion::V4..=MetadataVersion::V5).contains(&version) {
        return Err(Error::invalid(format!(
            "a message has metadata version V{}; V4 and V5 are taken",
            i32::from(version.0) + 1
        )));
    }
    links(&message._tab, &[Message::VT_HEADER, Message::VT_CUSTOM_METADATA])?;
    notes(message.custom_metadata())?;
    if let Some(batch) = message.header_as_record_batch() {
        return check_batch(&batch);
    }
    if let Some(dictionary) = message.header_as_dictionary_batch() {
        links(&dictionary._tab, &[DictionaryBatch::VT_DATA])?;
        return dictionary.data().map_or(Ok(()), |batch| check_batch(&batch));
    }
    message
        .header_as_schema()
        .map_or(Ok(()), |schema| check_schema(&schema))
}

/// Invalid unless each buffer that has bytes begins where a reader may map it.
pub(super) fn check_alignment(buffers: &[(u64, u64)]) -> Result<()> {
    let is_off = |(at, len): &(u64, u64)| *len > 0 && at % ALIGNMENT != 0;
    match buffers.iter().position(is_off) {
        None => Ok(()),
        Some(number) => Err(Error::invalid(format!(
            "buffer {number} begins at byte {} of the body, which is no multiple of {ALIGNMENT}",
            buffers[number].0
        ))),
    }
}

fn check_batch(batch: &RecordBatch<'_>) -> Result<()> {
    let fields = [
        RecordBatch::VT_NODES,
        RecordBatch::VT_BUFFERS,
        RecordBatch::VT_COMPRESSION,
        RecordBatch::VT_VARIADICBUFFERCOUNTS,
    ];
    links(&batch._tab, &fields)?;
    match batch.compression().map(|compression| compression.method()) {
        None | Some(BodyCompressionMethod::BUFFER) => Ok(()),
        Some(other) => Err(Error::invalid(format!(
            "a body compressed by an unknown method (number {})",
            other.0
        ))),
    }
}

fn check_schema(schema: &Schema<'_>) -> Result<()> {
    let fields = [Schema::VT_FIELDS, Schema::VT_CUSTOM_METADATA, Schema::VT_FEATURES];
    links(&schema._tab, &fields)?;
    notes(schema.custom_metadata())?;
    schema.fields().into_iter().flatten().try_for_each(check_field)
}

/// The verifier has bounded the depth.
fn check_field(field: Field<'_>) -> Result<()> {
    let fields = [
        Field::VT_NAME,
        Field::VT_TYPE_,
        Field::VT_DICTIONARY,
        Field::VT_CHILDREN,
        Field::VT_CUSTOM_METADATA,
    ];
    links(&field._tab, &fields)?;
    notes(field.custom_metadata())?;
    if let Some(timestamp) = field.type_as_timestamp() {
        links(&timestamp._tab, &[Timestamp::VT_TIMEZONE])?;
    }
    if let Some(union) = field.type_as_union() {
        links(&union._tab, &[Union::VT_TYPEIDS])?;
    }
    if let Some(dictionary) = field.dictionary() {
        links(&dictionary._tab, &[DictionaryEncoding::VT_INDEXTYPE])?;
    }
    field.children().into_iter().flatten().try_for_each(check_field)
}

fn notes(notes: Option<Vector<'_, ForwardsUOffset<KeyValue<'_>>>>) -> Result<()> {
    let mut notes = notes.into_iter().flatten();
    notes.try_for_each(|note| links(&note._tab, &[KeyValue::VT_KEY, KeyValue::VT_VALUE]))
}

/// Invalid where one of these fields of a verified table, each an offset, is zero or lies outside.
fn links(table: &Table<'_>, fields: &[VOffsetT]) -> Result<()> {
    let vtable = table.vtable();
    let is_zero = |field: &VOffsetT| match usize::from(vtable.get(*field)) {
        0 => false, // It is not there.
        at => {
            let begin = table.loc() + at;
            table.buf().get(begin..begin + 4).is_none_or(|offset| offset == [0; 4])
        }
    };
    match fields.iter().any(is_zero) {
        false => Ok(()),
        true => Err(Error::invalid(
            "the message header is no valid flatbuffer: an offset is zero, or leads outside",
        )),
    }
}
