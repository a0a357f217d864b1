//! Paths, names of indexes, attributes and queries that make trouble elsewhere.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, documents, field, int, keys_of, paragraph_index, text};

/// Paths that look like patterns, other keys, elements, commands, or nothing at all.
const PATHS: [&str; 26] = [
    "a",
    "a:chunk_0",
    "a:chunk_0@0123456789abcdef0123456789abcdef",
    "a b c.txt",
    " ",
    "it's \"quoted\".txt",
    "{braces}",
    "}{",
    "{docs}",
    "{other}:x",
    "*",
    "?[a-z]",
    "back\\slash",
    "doc:{docs}:a",
    "tokens:{docs}:a:chunk_0",
    "../../etc/passwd",
    "/",
    "dir/",
    "日本語/ü\u{1f980}.md",
    "\u{202e}reversed",
    "%s%n",
    "$(id)",
    "ATTRS",
    "NaN",
    "0",
    "@2",
];

fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&paragraph_index("docs"));
    (server, client)
}

#[test]
fn documents_of_any_path_are_kept_apart() {
    let (_server, mut client) = indexed();
    let mut expected = std::collections::BTreeMap::new();
    for (number, path) in PATHS.into_iter().chain([&*"p".repeat(1024)]).enumerate() {
        let chunks: Vec<String> = (0..=number % 3).map(|chunk| format!("the cat {number} in {chunk}")).collect();
        client.ok(&cmd!["INFER.INGEST", "docs", path, chunks.join("\n\n\n")]);
        expected.insert(path.to_owned(), number);
    }
    let stored = documents(&mut client, "docs");
    assert!(stored.keys().eq(expected.keys()), "{:?}", stored.keys());
    for (path, number) in &expected {
        assert!(stored[path].join(" ").starts_with(&format!("the cat {number} in 0")), "{path}: {:?}", stored[path]);
    }
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat 8 in 0", "K", 200, "WITHTEXT"]);
    for hit in array(&found) {
        let chunk = usize::try_from(int(field(hit, "chunk"))).unwrap();
        assert_eq!(text(field(hit, "text")), stored[text(field(hit, "path"))][chunk]);
    }
    assert_eq!(array(&found).len(), stored.values().map(Vec::len).sum::<usize>());
    while let Some((path, _)) = expected.pop_first() {
        let chunks = i64::try_from(stored[&path].len()).unwrap();
        assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", &path]), Value::Int(chunks), "{path}");
        assert!(documents(&mut client, "docs").keys().eq(expected.keys()));
    }
}

#[test]
fn a_path_that_is_too_long_or_has_control_characters_is_refused() {
    let (_server, mut client) = indexed();
    for (path, reason) in [
        ("p".repeat(1025), "path is longer than 1024 bytes"),
        ("p".repeat(4096), "path is longer than 1024 bytes"),
        ("ü".repeat(513), "path is longer than 1024 bytes"),
        ("a\0b".to_owned(), "path must not contain control characters"),
        ("a\r\nb".to_owned(), "path must not contain control characters"),
        ("\u{85}".to_owned(), "path must not contain control characters"),
        (String::new(), "path must not be empty"),
    ] {
        client.refused(&cmd!["INFER.INGEST", "docs", &path, "the cat"], "ERR", reason);
        client.refused(&cmd!["INFER.FORGET", "docs", &path], "ERR", reason);
    }
    assert_eq!(keys_of(&mut client, "docs"), [] as [String; 0]);
}

#[test]
fn indexes_of_any_name_are_kept_apart() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    let longest = "n".repeat(128);
    let names =
        ["docs", "docs@2", "@2", "a b", "\u{fc}\u{1f980}", "*x*", "[a]", "vec:docs", "doc:a", "0", "-1", &longest];
    for (number, name) in names.iter().enumerate() {
        client.ok(&paragraph_index(name));
        client.ok(&cmd!["INFER.INGEST", *name, "a", format!("the cat number {number}")]);
    }
    for (number, name) in names.iter().enumerate() {
        let stored = documents(&mut client, name);
        assert_eq!(stored["a"], [format!("the cat number {number}")], "{name}");
        assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", *name, "the cat", "K", 20])).len(), 1, "{name}");
    }
}

#[test]
fn an_index_name_that_would_scatter_its_keys_or_cannot_be_printed_is_refused() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    let long = "n".repeat(129);
    for name in ["{docs}", "a{b", "a}b", "{}", "}{", "a\0b", "a\nb", "", "*", &long] {
        for command in [
            paragraph_index(name),
            cmd!["INFER.INGEST", name, "a", "the cat"],
            cmd!["INFER.FORGET", name, "a"],
            cmd!["INFER.INDEXINFO", name],
            cmd!["INFER.SEARCH", name, "the cat"],
            cmd!["INFER.RAG", name, "the cat"],
        ] {
            client.refused(&command, "ERR", "index name ");
        }
    }
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
}

#[test]
fn attributes_that_are_hardly_json_are_refused_and_the_document_stays() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "a", "the cat", "ATTRS", r#"{"year":1984}"#]);
    let before = client.ok(&cmd!["HGETALL", "doc:{docs}:a"]);
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for attributes in [
        "",
        " ",
        "year",
        "1",
        "null",
        "\"text\"",
        "[]",
        "{",
        "{}}",
        "{'a':1}",
        r#"{"a":NaN}"#,
        r#"{"a":1e999}"#,
        r#"{"a":null}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":[[1]]}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"path":"b"}"#,
        &format!(r#"{{"a":{deep}}}"#),
        &format!(r#"{{"a":"{}"}}"#, "x".repeat(5000)),
    ] {
        let refusal = client.call(&cmd!["INFER.INGEST", "docs", "a", "the dog", "ATTRS", attributes]).unwrap_err();
        assert!(refusal.code == "ERR" && refusal.text.contains("ATTRS"), "{attributes}: {refusal:?}");
    }
    let refusal = client.call(&cmd!["INFER.INGEST", "docs", "a", "the dog", "ATTRS", b"{\"a\":\"\xff\"}"]).unwrap_err();
    assert!(refusal.text.contains("ATTRS is not valid UTF-8"), "{refusal:?}");
    assert_eq!(client.ok(&cmd!["HGETALL", "doc:{docs}:a"]), before);
}

#[test]
fn attributes_with_strange_names_and_values_do_not_hide_a_chunk() {
    let (_server, mut client) = indexed();
    for (number, attributes) in [
        r#"{"":""}"#,
        r#"{"a b":"\u0000"}"#,
        r#"{"\"":"\\","'":"'"}"#,
        r#"{"lines":[1,2],"version":1,"chunk_0":"x"}"#,
        r#"{"n":1e308,"m":-0.0,"i":18446744073709551615}"#,
        r#"{"ü":["🦀",1,true]}"#,
    ]
    .iter()
    .enumerate()
    {
        client.ok(&cmd!["INFER.INGEST", "docs", number, "the cat", "ATTRS", attributes]);
        let sent: serde_json::Value = serde_json::from_str(attributes).unwrap();
        let stored = client.text(&cmd!["HGET", format!("doc:{{docs}}:{number}"), "attrs"]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&stored).unwrap(), sent);
        let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 20]);
        assert_eq!(array(&found).len(), number + 1, "{attributes}");
        assert_eq!(documents(&mut client, "docs").len(), number + 1);
    }
}

#[test]
fn queries_without_a_sensible_length_or_number_of_chunks_are_refused() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "a", "the cat"]);
    let long = "the cat ".repeat(13_000);
    for command in ["INFER.SEARCH", "INFER.RAG"] {
        for k in ["0", "-1", "201", "1000000000", "99999999999999999999"] {
            client.refused(&cmd![command, "docs", "the cat", "K", k], "ERR", "K must be from 1 to 200");
        }
        for k in ["", "1.5", "nan", "all"] {
            client.refused(&cmd![command, "docs", "the cat", "K", k], "ERR", "K is not an integer");
        }
        client.refused(&cmd![command, "docs", ""], "ERR", "query must not be empty");
        client.refused(&cmd![command, "docs", &long], "CTXLIMIT", "26002 tokens");
        client.assert_in_step();
    }
    // Nothing to look for, but not nothing.
    client.ok(&cmd!["INFER.SEARCH", "docs", " \n\t "]);
}
