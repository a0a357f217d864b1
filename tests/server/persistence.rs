//! What replicas and the AOF get: the effects of commands, never the commands, so neither needs a model.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, contents, eventually, field, paragraph_index};

/// Commands that leave every kind of key: written, kept, changed and removed chunks, and a key that expires.
fn write_everything(client: &mut Client) {
    client.ok(&paragraph_index("docs"));
    let [animals, france, queue] = [
        "the cat and the dog in the city of the cat",
        "paris is the capital of france and the city of paris",
        "redis server memory and the queue of the worker thread",
    ];
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", [animals, france, queue].join("\n\n")]);
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", queue]);
    // The first chunk changes, the second is kept, the third vanishes.
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", [&animals.replace("dog", "file"), france].join("\n\n")]);
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", ""]);
    client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "some text", "EX", 1000]);
}

#[test]
fn a_replica_without_models_gets_the_same_keys() {
    let master = Server::with(&[CHAT, EMBED]);
    let replica = Server::configured(&[], &["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let (mut writer, mut reader) = (master.client(), replica.client());
    eventually("the replica is connected", || {
        reader.text(&cmd!["INFO", "replication"]).contains("master_link_status:up")
    });
    write_everything(&mut writer);
    assert_eq!(writer.ok(&cmd!["WAIT", 1, 20_000]), Value::Int(1));
    let expected = contents(&mut writer);
    assert!(expected.len() > 6);
    assert_eq!(contents(&mut reader), expected);
    assert_eq!(array(&reader.ok(&cmd!["INFER.MODELS"])).len(), 0);
}

#[test]
fn a_replica_refuses_what_writes_and_serves_what_reads() {
    let master = Server::with(&[CHAT, EMBED]);
    write_everything(&mut master.client());
    let replica = Server::configured(&[CHAT, EMBED], &["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let mut reader = replica.client();
    eventually("the replica has the index", || reader.ok(&cmd!["EXISTS", "vec:{docs}"]) == Value::Int(1));
    for command in [
        cmd!["INFER.TOKENIZESTORE", "k2", "chat", "text"],
        cmd!["INFER.INGEST", "docs", "c.txt", "text"],
        cmd!["INFER.INDEX", "new", "EMBEDMODEL", "embed", "GENMODEL", "chat"],
    ] {
        reader.refused(&command, "READONLY", "");
    }
    assert_eq!(array(&reader.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 2);
    let narrow = ["K", "1", "FILTER", ".chunk == 1", "EF", "200", "MINSCORE", "0.1"];
    assert_eq!(array(&reader.ok(&cmd!["INFER.SEARCH", "docs", "the cat", &narrow, "WITHTEXT", "WITHATTRS"])).len(), 1);
    let detail = ["BUDGET", "AUTO", "WITHSOURCES", "WITHPROMPT", "WITHSTATS", "MAXTOKENS", "2"];
    let answer = reader.ok(&cmd!["INFER.RAG", "docs", "the cat", &narrow, &detail]);
    assert_eq!(array(field(&answer, "sources")).len(), 1);
    reader.ok(&cmd!["INFER.GENERATE", "chat", 1, "k", "MAXTOKENS", 2]);
}

/// The commands in the AOF, each as its words.
fn aof(server: &Server) -> Vec<Vec<Vec<u8>>> {
    let bytes = std::fs::read(server.folder().join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap();
    let mut commands = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (reply, used) = parse_command(rest);
        commands.push(reply);
        rest = &rest[used..];
    }
    commands
}

/// One command in the form of the protocol, and the bytes it takes.
fn parse_command(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut at = 0;
    let number = |mark: u8, at: &mut usize| -> usize {
        assert_eq!(bytes[*at], mark);
        let end = *at + bytes[*at..].iter().position(|&byte| byte == b'\r').unwrap();
        let number = std::str::from_utf8(&bytes[*at + 1..end]).unwrap().parse().unwrap();
        *at = end + 2;
        number
    };
    let words = number(b'*', &mut at);
    let mut command = Vec::with_capacity(words);
    for _ in 0..words {
        let length = number(b'$', &mut at);
        command.push(bytes[at..at + length].to_vec());
        at += length + 2;
    }
    (command, at)
}

#[test]
fn the_aof_holds_the_effects_of_an_ingest_as_one_transaction() {
    let server = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    let commands = aof(&server);
    let names: Vec<String> =
        commands.iter().map(|command| String::from_utf8(command[0].to_ascii_uppercase()).unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with("INFER.")), "{names:?}");
    let begin = names.iter().position(|name| name == "MULTI").expect("no MULTI");
    let end = names.iter().position(|name| name == "EXEC").expect("no EXEC");
    // What comes before nobody can find: vectors without attributes.
    assert_eq!(names[begin - 1], "VADD");
    assert!(!commands[begin - 1].iter().any(|word| word == b"SETATTR"));
    let inside: Vec<&str> = names[begin + 1..end].iter().map(String::as_str).collect();
    assert_eq!(inside, ["VSETATTR", "SET", "HSET", "SADD", "HSET"]);
    assert_eq!(end, names.len() - 1, "{names:?}");
}

#[test]
fn every_change_of_a_document_is_one_transaction() {
    let server = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.client();
    client.ok(&paragraph_index("docs"));
    let paragraphs = |word: &str| format!("the {word} and the dog in the city of the cat\n\n").repeat(300);
    for (count, command) in [
        cmd!["INFER.INGEST", "docs", "a.txt", paragraphs("cat")],
        cmd!["INFER.INGEST", "docs", "a.txt", paragraphs("file")],
        cmd!["INFER.INGEST", "docs", "a.txt", paragraphs("file"), "ATTRS", "{\"a\":1}"],
        cmd!["INFER.FORGET", "docs", "a.txt"],
    ]
    .iter()
    .enumerate()
    {
        client.ok(command);
        let names: Vec<String> = aof(&server)
            .into_iter()
            .map(|words| String::from_utf8(words[0].to_ascii_uppercase()).unwrap())
            .filter(|name| name != "SELECT")
            .collect();
        // Vectors that nobody can find yet come as they are ready, alone or together.
        let changes: Vec<&[String]> = names
            .split(|name| name == "MULTI" || name == "EXEC")
            .filter(|part| part.iter().any(|name| name != "VADD"))
            .skip(1)
            .collect();
        assert_eq!(changes.len(), count + 1);
        assert!(!changes.concat().iter().any(|name| name == "VADD"), "vectors are added in the scope that changes all");
        assert_eq!(names.last().unwrap(), "EXEC");
    }
}

#[test]
fn the_keys_come_back_from_the_aof_without_models() {
    let server = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes"]);
    let mut client = server.client();
    write_everything(&mut client);
    let before = contents(&mut client);
    for model in [CHAT, EMBED] {
        client.ok(&cmd!["INFER.UNLOAD", model.name]);
    }
    client.ok(&cmd!["DEBUG", "LOADAOF"]);
    assert_eq!(contents(&mut client), before);
}

#[test]
fn the_keys_come_back_from_an_rdb_without_the_module() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    write_everything(&mut client);
    let before = contents(&mut client);
    client.ok(&cmd!["MODULE", "UNLOAD", "infer"]);
    client.ok(&cmd!["DEBUG", "RELOAD"]);
    assert_eq!(contents(&mut client), before);
}

#[test]
fn a_full_memory_refuses_an_ingest_and_leaves_the_old_document() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    let before = contents(&mut client);
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 1]);
    client.refused(&cmd!["INFER.INGEST", "docs", "a.txt", "the dog"], "OOM", "");
    client.refused(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "text"], "OOM", "");
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 0]);
    assert_eq!(contents(&mut client), before);
}
