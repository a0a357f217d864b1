//! Everything a database holds, for comparisons between servers.

use redis::Value;

use super::{Client, array, cmd, int, pairs, text};

/// Every key with its value, in a form that does not depend on how the server got it. Of a vector set, each element with
/// its vector, as it is stored, and its attributes.
#[track_caller]
pub fn contents(client: &mut Client) -> Vec<(String, Value)> {
    let mut keys: Vec<String> = array(&client.ok(&cmd!["KEYS", "*"])).iter().map(|key| text(key).to_owned()).collect();
    keys.sort();
    let mut contents = Vec::new();
    for key in keys {
        match client.text(&cmd!["TYPE", &key]).as_str() {
            "vectorset" => contents.extend(elements(client, &key)),
            "hash" => {
                let hash = client.ok(&cmd!["HGETALL", &key]);
                let mut fields: Vec<String> =
                    pairs(&hash).into_iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
                fields.sort();
                contents.push((key, Value::SimpleString(fields.join("\n"))));
            }
            "set" => contents.push((key.clone(), client.ok(&cmd!["SORT_RO", &key, "ALPHA"]))),
            _ => contents.push((key.clone(), client.ok(&cmd!["DUMP", &key]))),
        }
    }
    contents
}

/// The elements of a vector set: stored vector and attributes.
#[track_caller]
fn elements(client: &mut Client, key: &str) -> Vec<(String, Value)> {
    let all = int(&client.ok(&cmd!["VCARD", key]));
    let dim = usize::try_from(int(&client.ok(&cmd!["VDIM", key]))).unwrap();
    let everything = client.ok(&cmd!["VSIM", key, "VALUES", dim, vec![1; dim], "COUNT", all, "TRUTH"]);
    let mut names: Vec<String> = array(&everything).iter().map(|name| text(name).to_owned()).collect();
    assert_eq!(names.len(), usize::try_from(all).unwrap(), "VSIM does not find every element of {key}");
    names.sort();
    let mut elements = Vec::new();
    for name in names {
        elements.push((format!("{key} {name} vector"), client.ok(&cmd!["VEMB", key, &name, "RAW"])));
        elements.push((format!("{key} {name} attributes"), client.ok(&cmd!["VGETATTR", key, &name])));
    }
    elements
}
