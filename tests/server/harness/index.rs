//! What an index holds, read from its keys alone, and whether they agree with each other.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, Value};

use super::{Client, array, bytes, cmd, field, int, pairs, text};

/// Paragraphs that have little to do with each other, in words that the models of the tests know.
pub const ANIMALS: &str = "the cat and the dog in the city of the cat";
pub const FRANCE: &str = "paris is the capital of france and the city of paris";

/// Makes an index with the models `embed` and `chat` whose chunks are one paragraph each.
pub fn paragraph_index(name: &str) -> Cmd {
    cmd!["INFER.INDEX", name, "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 16, "OVERLAP", 0]
}

/// The texts of a document's chunks, by its path.
pub type Documents = BTreeMap<String, Vec<String>>;

/// The documents of an index whose generation model is `chat`. Fails unless its keys agree: what a search can see is
/// what the documents' hashes say, each chunk has its tokens, nothing else is there, and the counters are right. So it is
/// whatever was interrupted: a document takes its place in one transaction.
#[track_caller]
pub fn documents(client: &mut Client, index: &str) -> Documents {
    let keys = keys_of(client, index);
    let tag = tag(client, index);
    let below = |prefix: String| -> BTreeSet<String> {
        keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
    };
    let mut visible = visible(client, &format!("vec:{tag}"));
    let elements = visible.len();
    let mut token_keys = below(format!("tokens:{tag}:"));
    let paths = below(format!("doc:{tag}:"));
    let mut documents = Documents::new();
    let mut tokens = 0;
    for path in &paths {
        let hash = client.ok(&cmd!["HGETALL", format!("doc:{tag}:{path}")]);
        let fields: BTreeMap<&str, &str> =
            pairs(&hash).into_iter().map(|(name, value)| (text(name), text(value))).collect();
        let mut chunks = Vec::new();
        let mut own_tokens = 0;
        for number in 0..fields["chunks"].parse::<usize>().unwrap() {
            let id = format!("{path}:chunk_{number}");
            let version = fields[format!("chunk_{number}").as_str()];
            let shown = visible.remove(&format!("{id}@{version}"));
            let attributes = shown.unwrap_or_else(|| panic!("{id} is not visible, but its document says it is there"));
            assert_eq!(attributes["path"], path.as_str());
            assert_eq!(attributes["chunk"], number);
            assert!(token_keys.remove(&id), "{id} has no tokens");
            let key = format!("tokens:{tag}:{id}");
            let blob = client.ok(&cmd!["GET", &key]);
            own_tokens += bytes(&blob).len() / 4;
            chunks.push(client.text(&cmd!["INFER.DETOKENIZE", "chat", 0, "BLOB", bytes(&blob)]));
        }
        assert_eq!(fields["tokens"], own_tokens.to_string(), "{path}");
        tokens += own_tokens;
        documents.insert(path.clone(), chunks);
    }
    assert!(visible.is_empty(), "visible without a document: {:?}", visible.keys());
    assert!(token_keys.is_empty(), "tokens without a chunk: {token_keys:?}");
    assert_eq!(listed(client, &format!("paths:{tag}")), paths, "the set of paths");
    let info = client.ok(&cmd!["INFER.INDEXINFO", index]);
    let number = |name: &str| usize::try_from(int(field(&info, name))).unwrap();
    assert_eq!(number("documents"), paths.len());
    assert_eq!(number("chunks"), elements);
    assert_eq!(number("vectors"), elements);
    assert_eq!(number("tokens"), tokens);
    documents
}

/// All keys that belong to an index, its own name excepted.
#[track_caller]
pub fn keys_of(client: &mut Client, index: &str) -> Vec<String> {
    let all = client.ok(&cmd!["KEYS", "*"]);
    let own = format!(":{{{index}}}");
    let mut keys: Vec<String> =
        array(&all).iter().map(|key| text(key).to_owned()).filter(|key| key.contains(&own)).collect();
    // KEYS gives them in any order, another one while Redis' table grows or shrinks.
    keys.sort();
    keys
}

/// Adds elements to the vector set at `key` that no search finds, as many versions of chunks that are gone would be.
#[track_caller]
pub fn crowd(client: &mut Client, key: &str, elements: usize) {
    let dim = usize::try_from(int(&client.ok(&cmd!["VDIM", key]))).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut add = |number: usize| {
        let vector: Vec<u8> = (0..dim).flat_map(|_| (random.f32() - 0.5).to_le_bytes()).collect();
        cmd!["VADD", key, "FP32", vector, format!("crowd {number}"), "Q8", "EF", 10]
    };
    let adds: Vec<Cmd> = (0..elements).map(&mut add).collect();
    client.send_together(&adds);
    for _ in &adds {
        client.receive().unwrap();
    }
}

/// What follows the kind in the names of the keys: the hash tag, and the generation from the second on.
fn tag(client: &mut Client, index: &str) -> String {
    match client.ok(&cmd!["HGET", index, "generation"]) {
        Value::Nil => format!("{{{index}}}"),
        generation if text(&generation) == "1" => format!("{{{index}}}"),
        generation => format!("{{{index}}}@{}", text(&generation)),
    }
}

/// The elements of a vector set that a search can find, with their attributes.
#[track_caller]
fn visible(client: &mut Client, key: &str) -> BTreeMap<String, serde_json::Value> {
    let all = int(&client.ok(&cmd!["VCARD", key]));
    if all == 0 {
        return BTreeMap::new();
    }
    let dim = usize::try_from(int(&client.ok(&cmd!["VDIM", key]))).unwrap();
    let found = client.ok(&cmd!["VSIM", key, "VALUES", dim, vec![1; dim], "COUNT", all, "TRUTH", "WITHATTRIBS"]);
    let elements = pairs(&found);
    assert_eq!(elements.len(), usize::try_from(all).unwrap(), "VSIM does not find every element of {key}");
    let shown = elements.into_iter().filter(|(_, attributes)| **attributes != Value::Nil);
    shown.map(|(name, json)| (text(name).to_owned(), serde_json::from_str(text(json)).unwrap())).collect()
}

/// The members of a set.
#[track_caller]
fn listed(client: &mut Client, key: &str) -> BTreeSet<String> {
    match client.ok(&cmd!["SMEMBERS", key]) {
        Value::Set(members) | Value::Array(members) => members.iter().map(|path| text(path).to_owned()).collect(),
        other => panic!("not a set: {other:?}"),
    }
}
