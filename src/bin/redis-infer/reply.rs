//! Replies of the server as JSON, from which both forms of output are made.

use redis::{Cmd, Connection, Value};
use serde_json::{Map, Number, Value as Json};

use crate::failure::Failure;

/// Sends a command and waits for its reply, however long that takes.
///
/// # Errors
/// What the server refuses, and the loss of the connection.
pub fn ask(connection: &mut Connection, command: &Cmd) -> Result<Json, Failure> {
    json(command.query::<Value>(connection)?)
}

/// A reply of RESP3, whose maps are told from arrays.
fn json(value: Value) -> Result<Json, Failure> {
    let list = |values: Vec<Value>| values.into_iter().map(json).collect::<Result<Vec<_>, _>>().map(Json::Array);
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Int(number) => number.into(),
        Value::Double(number) => Number::from_f64(number).map_or(Json::Null, Json::Number),
        Value::Boolean(truth) => truth.into(),
        Value::Okay => "OK".into(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.into(),
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into(),
        Value::Array(values) | Value::Set(values) => list(values)?,
        Value::Map(fields) => {
            let mut map = Map::new();
            for (name, value) in fields {
                map.insert(text(&json(name)?), json(value)?);
            }
            Json::Object(map)
        }
        Value::ServerError(error) => return Err(error.into()),
        other => return Err(Failure::new(format!("the server's reply cannot be read: {other:?}"))),
    })
}

/// A value as text, without quotes.
pub fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// The elements of an array; none of anything else.
pub fn elements(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A hit or source as `path:first-last`, and its score: that of the cross-encoder if one has chosen.
pub fn place(hit: &Json) -> (String, String) {
    let [first, last] = [0, 1].map(|at| text(&hit["lines"][at]));
    let place = format!("{}:{first}-{last}", text(&hit["path"]));
    let score = hit["rerank_score"].as_f64().or(hit["score"].as_f64());
    (crate::output::clean(&place), score.map_or_else(String::new, |score| format!("{score:.3}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_objects_in_the_order_of_the_reply() {
        let name = |name: &str| Value::BulkString(name.into());
        let reply = Value::Map(vec![
            (name("z"), Value::Array(vec![Value::Int(1), Value::Nil])),
            (name("a"), Value::Double(0.5)),
            (name("t"), Value::SimpleString("x".into())),
        ]);
        assert_eq!(json(reply).unwrap().to_string(), r#"{"z":[1,null],"a":0.5,"t":"x"}"#);
    }

    #[test]
    fn a_hit_is_named_by_its_path_and_lines() {
        let hit = serde_json::json!({ "path": "a\u{1b}b.rs", "lines": [3, 9], "score": 0.81239 });
        assert_eq!(place(&hit), ("ab.rs:3-9".to_owned(), "0.812".to_owned()));
        let hit = serde_json::json!({ "path": "a", "lines": [1, 1], "score": 0.8, "rerank_score": -2.5 });
        assert_eq!(place(&hit), ("a:1-1".to_owned(), "-2.500".to_owned()));
    }
}
