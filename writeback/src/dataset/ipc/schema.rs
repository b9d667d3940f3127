//! A dataset's schema, kept as the message in which it was sent, so that metadata and dictionary ids come back as they were.
//!
//! Dictionary ids are *canonical*: numbered from 0 in the order in which the Arrow crate's encoder visits the fields. So all parts
//! of a dataset use the same ids and their messages may follow each other in one stream. A door that meets other ids renumbers
//! them before it puts.

use super::{NESTING_MAX, guarded, message, strict};
use crate::{Error, Result};
use arrow_ipc::{
    Endianness,
    convert::fb_to_schema,
    writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions},
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use std::sync::Arc;

/// A schema and the message that carries it.
#[derive(Clone, Debug)]
pub(crate) struct StoredSchema {
    /// The flatbuffer `Message`.
    pub(crate) message: Bytes,
    /// What it says.
    pub(crate) schema: SchemaRef,
}

impl StoredSchema {
    /// From a schema message. Invalid when it is malformed, another message, nested too deeply, or its ids are not canonical.
    pub(crate) fn parse(header: &Bytes) -> Result<Self> {
        let parsed = Self::parse_any(header)?;
        match parsed.is_canonical() {
            true => Ok(parsed),
            false => Err(Error::invalid(
                "the dictionary ids of the schema are not numbered from 0 in field order",
            )),
        }
    }

    /// As [`StoredSchema::parse`], whatever the dictionary ids are.
    pub(crate) fn parse_any(header: &Bytes) -> Result<Self> {
        let message = message(header)?;
        let Some(schema) = message.header_as_schema() else {
            let found = message.header_type().variant_name().unwrap_or("something unknown");
            return Err(Error::invalid(format!(
                "the first message must be a schema, not {found}"
            )));
        };
        strict::check_header(&message)?;
        if schema.endianness() != Endianness::Little {
            return Err(Error::invalid("big-endian data is not taken; send it little-endian"));
        }
        for field in schema.fields().into_iter().flatten() {
            check_nesting(&field, 1)?;
        }
        let schema = guarded("the schema message", || Ok(fb_to_schema(schema)))?;
        Self::checked(header.clone(), Arc::new(schema))
    }

    /// From a schema, with a message of our own making.
    pub(crate) fn encode(schema: &Schema) -> Result<Self> {
        let header = guarded("the schema", || Ok(encoded(schema)))?;
        Self::parse(&Bytes::from(header))
    }

    fn checked(message: Bytes, schema: SchemaRef) -> Result<Self> {
        for field in schema.fields() {
            let what = format!("column {:?}", field.name());
            // A type whose parts do not fit together has no empty array.
            guarded(&what, || {
                check_sizes(field.data_type())?;
                arrow_array::new_empty_array(field.data_type());
                Ok(())
            })?;
        }
        Ok(Self { message, schema })
    }

    /// Whether its dictionary ids are those that messages of ours have.
    pub(crate) fn is_canonical(&self) -> bool {
        let mut ids = Vec::new();
        self.schema
            .fields()
            .iter()
            .for_each(|field| collect_ids(field, &mut ids));
        ids.iter()
            .copied()
            .eq(0..i64::try_from(ids.len()).expect("fewer fields than 2^63"))
    }

    /// Whether batches of `other` are batches of this one: the fields' names, types and nullability, in order. Key-value metadata
    /// may differ. Otherwise the first difference, in words.
    pub(crate) fn agrees(&self, other: &Schema) -> Result<(), String> {
        first_difference("", self.schema.fields(), other.fields()).map_or(Ok(()), Err)
    }
}

/// The message of `schema`, dictionaries numbered in canonical order.
fn encoded(schema: &Schema) -> Vec<u8> {
    let mut tracker = DictionaryTracker::new(false);
    IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &IpcWriteOptions::default())
        .ipc_message
}

/// The schema's nesting is checked on the flatbuffer: what is read from it is built by recursion.
fn check_nesting(field: &arrow_ipc::Field<'_>, depth: usize) -> Result<()> {
    if depth > NESTING_MAX {
        return Err(Error::invalid(format!(
            "a column is nested more than {NESTING_MAX} levels deep"
        )));
    }
    field
        .children()
        .into_iter()
        .flatten()
        .try_for_each(|child| check_nesting(&child, depth + 1))
}

/// Sizes within types are signed on the wire.
fn check_sizes(data_type: &DataType) -> Result<(), arrow_schema::ArrowError> {
    match data_type {
        DataType::FixedSizeBinary(size) | DataType::FixedSizeList(_, size) if *size < 0 => {
            return Err(arrow_schema::ArrowError::SchemaError(format!("a fixed size of {size}")));
        }
        DataType::Dictionary(_, values) => check_sizes(values)?,
        _ => {}
    }
    children(data_type)
        .into_iter()
        .try_for_each(|child| check_sizes(child.data_type()))
}

/// Fields directly below a type (for a dictionary: below its values).
pub(crate) fn children(data_type: &DataType) -> Vec<&Field> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field],
        DataType::Struct(fields) => fields.iter().map(AsRef::as_ref).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.as_ref()).collect(),
        DataType::RunEndEncoded(ends, values) => vec![ends, values],
        DataType::Dictionary(_, values) => children(values),
        _ => Vec::new(),
    }
}

/// Ids in canonical order: what lies below a field comes before the field's own.
fn collect_ids(field: &Field, ids: &mut Vec<i64>) {
    children(field.data_type())
        .into_iter()
        .for_each(|child| collect_ids(child, ids));
    #[expect(deprecated, reason = "the id is what the messages of a stream name")]
    ids.extend(field.dict_id());
}

fn first_difference(above: &str, mine: &Fields, theirs: &Fields) -> Option<String> {
    for (a, b) in mine.iter().zip(theirs) {
        let name = format!("{above}{}", a.name());
        if a.name() != b.name() {
            return Some(format!(
                "where column {name:?} is expected there is {:?}",
                format!("{above}{}", b.name())
            ));
        }
        if a.is_nullable() != b.is_nullable() {
            let (a, b) = (nullable(a), nullable(b));
            return Some(format!("column {name:?} is {a}, not {b}"));
        }
        if !same_type(a.data_type(), b.data_type()) {
            return Some(format!("column {name:?} is {}, not {}", a.data_type(), b.data_type()));
        }
    }
    match (mine.get(theirs.len()), theirs.get(mine.len())) {
        (Some(missing), _) => Some(format!("column {:?} is missing", format!("{above}{}", missing.name()))),
        (_, Some(extra)) => Some(format!("there is no column {:?}", format!("{above}{}", extra.name()))),
        _ => None,
    }
}

fn nullable(field: &Field) -> &'static str {
    if field.is_nullable() {
        "nullable"
    } else {
        "not nullable"
    }
}

/// Equal but for key-value metadata, and but for the names of a list's items, which differ from writer to writer.
fn same_type(a: &DataType, b: &DataType) -> bool {
    use DataType::{
        Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct, Union,
    };
    match (a, b) {
        (List(a), List(b))
        | (LargeList(a), LargeList(b))
        | (ListView(a), ListView(b))
        | (LargeListView(a), LargeListView(b)) => same_items(a, b),
        (FixedSizeList(a, m), FixedSizeList(b, n)) => m == n && same_items(a, b),
        (Map(a, m), Map(b, n)) => m == n && same_items(a, b),
        (Struct(a), Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && same_items(a, b))
        }
        (Union(a, m), Union(b, n)) => {
            m == n && a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && same_items(a.1, b.1))
        }
        (Dictionary(m, a), Dictionary(n, b)) => m == n && same_type(a, b),
        (RunEndEncoded(m, a), RunEndEncoded(n, b)) => same_items(m, n) && same_items(a, b),
        _ => a == b,
    }
}

fn same_items(a: &Field, b: &Field) -> bool {
    a.is_nullable() == b.is_nullable() && same_type(a.data_type(), b.data_type())
}
