//! Folders `key=value`, as Hive names them: a value is its text, with the bytes that a path does not bear as `%XX`, and a null is
//! `__HIVE_DEFAULT_PARTITION__`.
//!
//! A column may be one of folders where each value has one text that reads as the same value again. Floats are not among them (NaN, -0.0),
//! nor times of day and timestamps, whose text depends on their unit and zone.

use arrow_schema::{DataType, Field};
use datafusion::{
    common::{DataFusionError, Result, plan_datafusion_err, plan_err},
    scalar::ScalarValue,
};

/// Hive's name of a null.
const NULL: &[u8] = b"__HIVE_DEFAULT_PARTITION__";
/// What Hive and Spark escape in the names of folders, beside control characters.
const ESCAPED: &[u8] = b"\"#%'*/:=?\\\x7f{[]^";

/// Refuses columns whose values folders can not be named by.
pub(crate) fn check(field: &Field) -> Result<()> {
    match field.data_type() {
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Boolean
        | DataType::Date32
        | DataType::Decimal128(..) => Ok(()),
        whole if whole.is_integer() => Ok(()),
        other => plan_err!(
            "PARTITIONED BY {}: folders are not named by {other}; take a string, a whole number, a decimal, a boolean or a date",
            field.name()
        ),
    }
}

/// The folder of a value.
pub(crate) fn name(key: &str, value: &ScalarValue) -> Result<Vec<u8>> {
    let mut name = escaped(key.as_bytes());
    name.push(b'=');
    if value.is_null() {
        name.extend_from_slice(NULL);
        return Ok(name);
    }
    match value.cast_to(&DataType::Utf8)? {
        ScalarValue::Utf8(Some(text)) if text.as_bytes() == NULL => {
            return plan_err!("{key}: {text} is how folders name a null, and can not be the text of a value");
        }
        ScalarValue::Utf8(Some(text)) => name.extend(escaped(text.as_bytes())),
        _ => return Err(plan_datafusion_err!("{key}: {value} has no text to name a folder by")),
    }
    Ok(name)
}

/// The value of the folder `name` of column `field`. `None`: it is no folder of a value.
pub(crate) fn value(field: &Field, name: &[u8]) -> Result<Option<ScalarValue>> {
    let Some(equals) = name.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else {
        return Ok(None);
    };
    let (key, text) = (unescaped(&name[..equals]), &name[equals + 1..]);
    let shown = String::from_utf8_lossy(name);
    if key != field.name().as_bytes() {
        return plan_err!("the folder {shown} lies where folders {}=… are", field.name());
    }
    if text == NULL {
        return ScalarValue::try_from(field.data_type()).map(Some);
    }
    let text = String::from_utf8_lossy(&unescaped(text)).into_owned();
    let value = ScalarValue::Utf8(Some(text)).cast_to(field.data_type());
    let refused = |why: DataFusionError| {
        plan_datafusion_err!(
            "the folder {shown} is of no value of {} {}: {}",
            field.name(),
            field.data_type(),
            why.strip_backtrace()
        )
    };
    value.map(Some).map_err(refused)
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            0..=0x1f => out.extend(format!("%{byte:02X}").into_bytes()),
            byte if ESCAPED.contains(byte) => out.extend(format!("%{byte:02X}").into_bytes()),
            byte => out.push(*byte),
        }
    }
    out
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(16 * high + low).expect("two hexadecimal digits"));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_reads_as_the_value_that_named_it() {
        for (value, expected) in [
            (ScalarValue::Int32(Some(-7)), "k=-7"),
            (ScalarValue::UInt64(Some(u64::MAX)), "k=18446744073709551615"),
            (ScalarValue::Boolean(Some(true)), "k=true"),
            (ScalarValue::Date32(Some(20_000)), "k=2024-10-04"),
            (ScalarValue::Decimal128(Some(-5), 10, 2), "k=-0.05"),
            (ScalarValue::from("plain"), "k=plain"),
            (ScalarValue::from(""), "k="),
            (ScalarValue::from("a/b=c%d\u{7}ä"), "k=a%2Fb%3Dc%25d%07ä"),
            (ScalarValue::Utf8(None), "k=__HIVE_DEFAULT_PARTITION__"),
            (ScalarValue::Int64(None), "k=__HIVE_DEFAULT_PARTITION__"),
        ] {
            let name = name("k", &value).unwrap();
            assert_eq!(String::from_utf8(name.clone()).unwrap(), expected);
            let field = Field::new("k", value.data_type(), true);
            assert_eq!(super::value(&field, &name).unwrap(), Some(value));
        }
    }

    #[test]
    fn what_is_no_folder_of_the_column_is_told() {
        let field = Field::new("k", DataType::Int32, true);
        assert_eq!(value(&field, b"plain").unwrap(), None);
        for name in [&b"k=x"[..], b"k=", b"other=1", b"k=3000000000"] {
            assert!(value(&field, name).is_err(), "{name:?}");
        }
        assert!(name("k", &ScalarValue::from("__HIVE_DEFAULT_PARTITION__")).is_err());
        assert!(check(&Field::new("k", DataType::Float64, true)).is_err());
    }
}
