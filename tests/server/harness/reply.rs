//! Readers of replies. They take RESP2 and RESP3 forms alike, except where a test asks for one of them.

use redis::Value;

/// A string reply of any kind.
#[track_caller]
pub fn text(value: &Value) -> &str {
    match value {
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        Value::Okay => "OK",
        Value::BulkString(bytes) => std::str::from_utf8(bytes).expect("a reply that is not UTF-8"),
        other => panic!("not text: {other:?}"),
    }
}

/// A bulk string.
#[track_caller]
pub fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        other => panic!("not a bulk string: {other:?}"),
    }
}

/// An integer.
#[track_caller]
pub fn int(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        other => panic!("not an integer: {other:?}"),
    }
}

/// A double, which RESP2 has as a string.
#[track_caller]
pub fn float(value: &Value) -> f64 {
    match value {
        Value::Double(number) => *number,
        other => text(other).parse().unwrap_or_else(|_| panic!("not a number: {other:?}")),
    }
}

/// The elements of an array.
#[track_caller]
pub fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        other => panic!("not an array: {other:?}"),
    }
}

/// Numbers of an array of doubles.
#[track_caller]
pub fn doubles(value: &Value) -> Vec<f64> {
    array(value).iter().map(float).collect()
}

/// Numbers of a blob of little-endian 32-bit floats.
#[track_caller]
pub fn floats(value: &Value) -> Vec<f32> {
    let (numbers, rest) = bytes(value).as_chunks::<4>();
    assert!(rest.is_empty(), "not a whole number of floats");
    numbers.iter().copied().map(f32::from_le_bytes).collect()
}

/// The value of a field: in a map, or in the flat array that RESP2 makes of one.
#[track_caller]
pub fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    let found = match value {
        Value::Map(fields) => fields.iter().find(|(key, _)| text(key) == name).map(|(_, value)| value),
        Value::Array(flat) => flat.as_chunks::<2>().0.iter().find(|[key, _]| text(key) == name).map(|[_, value]| value),
        other => panic!("neither a map nor a flat array: {other:?}"),
    };
    found.unwrap_or_else(|| panic!("no field {name} in {value:?}"))
}

/// Names and values: of a map, or of the flat array that RESP2 makes of one.
#[track_caller]
pub fn pairs(value: &Value) -> Vec<(&Value, &Value)> {
    match value {
        Value::Map(fields) => fields.iter().map(|(name, value)| (name, value)).collect(),
        Value::Array(flat) => {
            let (pairs, rest) = flat.as_chunks::<2>();
            assert!(rest.is_empty(), "an odd number of elements: {value:?}");
            pairs.iter().map(|[name, value]| (name, value)).collect()
        }
        other => panic!("neither a map nor a flat array: {other:?}"),
    }
}
