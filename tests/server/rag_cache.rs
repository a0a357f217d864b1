//! INFER.RAG with CACHE: which answers are given again, and to whom.

use redis::{Cmd, Value};

use crate::harness::{
    ANIMALS, CHAT, Client, EMBED, FRANCE, RANK, SLOW, Server, array, bytes, cmd, contents, eventually, field, float,
    int, keys_of, text,
};

/// Questions in words that the models of the tests know. The first two are like each other.
const CAT: &str = "the cat and the dog in the city of the cat";
const DOG: &str = "the dog and the cat in the city of the dog";
const PARIS: &str = "paris is the capital of france";

fn index(client: &mut Client) {
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 32]);
    client.ok(&cmd!["INFER.INGEST", "docs", "animals.txt", ANIMALS]);
    client.ok(&cmd!["INFER.INGEST", "docs", "france.txt", FRANCE]);
}

fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    index(&mut client);
    (server, client)
}

/// A question to a warm model, whose answers to the same are never the same, for everything that is told.
fn question(question: &str, options: &[&str]) -> Cmd {
    cmd!["INFER.RAG", "docs", question, "TEMP", 2, "MAXTOKENS", 16, "WITHSTATS", "WITHSOURCES", options]
}

/// How the very question is found in the cache.
#[track_caller]
fn asked(client: &mut Client, options: &[&str]) -> String {
    text(field(&client.ok(&question(CAT, &[&["CACHE", "1"], options].concat())), "cache")).to_owned()
}

/// The names of a map's fields, in order.
fn names(reply: &Value) -> Vec<&str> {
    match reply {
        Value::Map(fields) => fields.iter().map(|(name, _)| text(name)).collect(),
        flat => array(flat).iter().step_by(2).map(text).collect(),
    }
}

/// The key of the only entry.
fn answer_key(client: &mut Client) -> String {
    let keys = client.ok(&cmd!["KEYS", "answer:{docs}:*"]);
    let [key] = array(&keys) else { panic!("not one entry: {keys:?}") };
    text(key).to_owned()
}

#[test]
fn the_very_question_is_answered_again_byte_by_byte_without_a_model() {
    let (server, mut client) = indexed();
    let command = question(CAT, &["CACHE", "1"]);
    let first = client.ok(&command);
    assert_eq!((text(field(&first, "cache")), int(field(&first, "cache_stored"))), ("miss", 1));
    let work = |client: &mut Client| ["infer_embedded_texts", "infer_prompt_tokens"].map(|name| client.info(name));
    let before = work(&mut client);
    for client in [&mut client, &mut server.client()] {
        let again = client.ok(&command);
        assert_eq!(names(&again), names(&first));
        assert_eq!((text(field(&again, "cache")), int(field(&again, "cache_stored"))), ("exact", 0));
        assert_eq!((float(field(&again, "cache_score")), text(field(&again, "cache_question"))), (1.0, CAT));
        assert_eq!(bytes(field(&again, "text")), bytes(field(&first, "text")));
        assert_eq!(text(field(&again, "finish_reason")), text(field(&first, "finish_reason")));
        assert_eq!((int(field(&again, "prompt_tokens")), field(&again, "seed")), (0, &Value::Nil));
        let plain = client.ok(&cmd!["INFER.RAG", "docs", CAT, "TEMP", 2, "MAXTOKENS", 16, "CACHE", 1]);
        assert_eq!(bytes(&plain), bytes(field(&first, "text")));
    }
    assert_eq!(field(&client.ok(&command), "sources"), field(&first, "sources"));
    assert_eq!(work(&mut client), before);
    assert_eq!(client.info("infer_cache_hits_exact"), 5);
    assert_eq!(client.info("infer_cache_misses"), 1);
    // Without CACHE it is a new one.
    assert_ne!(field(&client.ok(&question(CAT, &[])), "text"), field(&first, "text"));
}

#[test]
fn a_question_like_one_before_is_embedded_once_and_answered_from_the_threshold_on() {
    let (server, mut client) = indexed();
    let ask = |client: &mut Client, asked: &str, threshold: f64| {
        client.ok(&question(asked, &["CACHE", &threshold.to_string()]))
    };
    let first = ask(&mut client, CAT, 0.0);
    let work = |client: &mut Client| ["infer_embedded_texts", "infer_prompt_tokens"].map(|name| client.info(name));
    for client in [&mut client, &mut server.client()] {
        let [embedded, read] = work(client);
        let similar = ask(client, DOG, 0.0);
        assert_eq!(work(client), [embedded + 1, read]);
        assert_eq!(names(&similar), names(&first));
        assert_eq!((text(field(&similar, "cache")), text(field(&similar, "cache_question"))), ("similar", CAT));
        assert_eq!(bytes(field(&similar, "text")), bytes(field(&first, "text")));
        assert!(int(field(&similar, "embed_us")) > 0);
    }
    assert_eq!(client.info("infer_cache_hits_similar"), 2);
    let score = float(field(&ask(&mut client, DOG, 0.0), "cache_score"));
    assert!(score > 0.5 && score < 1.0, "{score}");
    assert_eq!(text(field(&ask(&mut client, DOG, score), "cache")), "similar");
    let [embedded, _] = work(&mut client);
    let missed = ask(&mut client, DOG, score + 1e-9);
    assert_eq!(client.info("infer_embedded_texts"), embedded + 1);
    assert_eq!((text(field(&missed, "cache")), float(field(&missed, "cache_score"))), ("miss", score));
    assert_eq!((text(field(&missed, "cache_question")), int(field(&missed, "cache_stored"))), (CAT, 1));
    // Now it has an answer of its own.
    assert_eq!(text(field(&ask(&mut client, DOG, 0.0), "cache")), "exact");
}

#[test]
fn an_answer_is_found_only_where_all_it_depends_on_is_the_same() {
    let (_server, mut client) = indexed();
    assert_eq!(asked(&mut client, &[]), "miss");
    let others: [&[&str]; 20] = [
        &["K", "1"],
        &["EF", "50"],
        &["MINSCORE", "0.01"],
        &["FILTER", ".chunk == 0"],
        &["BUDGET", "500"],
        &["BUDGET", "AUTO"],
        &["SYSTEM", "be brief"],
        &["SYSTEM", ""],
        &["SCOPE", "a"],
        &["SCOPE", "b"],
        &["SCOPE", "\n"],
        &["SEED", "1"],
        &["SEED", "2"],
        &["TOPK", "5"],
        &["TOPP", "0.5"],
        &["MINP", "0.5"],
        &["STOP", "1", "x"],
        &["PRESENCE", "1"],
        &["LOGITBIAS", "1", "5", "1"],
        &["GRAMMAR", "root ::= [a-z ]+"],
    ];
    for options in others {
        assert_eq!(asked(&mut client, options), "miss", "{options:?}");
    }
    for (temperature, tokens) in [(1, 16), (2, 15)] {
        let command = cmd!["INFER.RAG", "docs", CAT, "TEMP", temperature, "MAXTOKENS", tokens, "WITHSTATS", "CACHE", 0];
        assert_eq!(text(field(&client.ok(&command), "cache")), "miss");
    }
    for options in others {
        assert_eq!(asked(&mut client, options), "exact", "{options:?}");
    }
    // What changes nothing in an answer.
    let same =
        cmd!["INFER.RAG", "docs", CAT, "TEMP", 2, "MAXTOKENS", 16, "CACHE", 0.3, "CACHETTL", 5, "TIMEOUT", 60_000];
    let stored = client.ok(&question(CAT, &["CACHE", "1"]));
    assert_eq!(&client.ok(&same), field(&stored, "text"));
}

#[test]
fn a_similar_question_finds_no_answer_of_another_scope_or_system_text() {
    let (_server, mut client) = indexed();
    client.ok(&question(CAT, &["CACHE", "0", "SCOPE", "tenant 7"]));
    for options in
        [&[][..], &["SCOPE", "tenant 8"], &["SCOPE", "tenant 7", "SYSTEM", "x"], &["SCOPE", "tenant 7", "K", "1"]]
    {
        let reply = client.ok(&question(DOG, &[&["CACHE", "0"], options].concat()));
        assert_eq!((text(field(&reply, "cache")), field(&reply, "cache_question")), ("miss", &Value::Nil));
    }
    let reply = client.ok(&question(PARIS, &["CACHE", "0", "SCOPE", "tenant 7"]));
    assert_eq!((text(field(&reply, "cache")), text(field(&reply, "cache_question"))), ("similar", CAT));
}

#[test]
fn another_model_of_the_same_name_gives_its_own_answers() {
    let (_server, mut client) = indexed();
    assert_eq!(asked(&mut client, &[]), "miss");
    for (model, found) in [(CHAT, "exact"), (SLOW, "miss"), (CHAT, "exact")] {
        client.ok(&cmd!["INFER.UNLOAD", "chat"]);
        client.ok(&model.load_as("chat"));
        assert_eq!(asked(&mut client, &[]), found);
    }
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    client.refused(&question(CAT, &["CACHE", "1"]), "NOMODEL", "'chat'");
}

#[test]
fn other_weights_in_the_same_file_give_their_own_answers() {
    let (_server, mut client) = indexed();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.gguf");
    std::fs::copy(CHAT.path(), &path).unwrap();
    assert_eq!(asked(&mut client, &[]), "miss");
    let mut load = || {
        client.ok(&cmd!["INFER.UNLOAD", "chat"]);
        let mut load = cmd!["INFER.LOAD", "chat", path.to_str().unwrap()];
        client.ok(load.arg(&["WORKERS", "1", "THREADS", "1"]));
        asked(&mut client, &[])
    };
    assert_eq!(load(), "exact", "a copy of the file");
    let mut bytes = std::fs::read(&path).unwrap();
    let weights = bytes.len() / 2;
    bytes[weights..].rotate_left(64);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert_eq!([load(), load()], ["miss", "exact"]);
}

#[test]
fn a_document_that_is_added_changed_or_forgotten_makes_every_answer_stale() {
    let (_server, mut client) = indexed();
    assert_eq!(asked(&mut client, &[]), "miss");
    client.ok(&cmd!["INFER.INGEST", "docs", "animals.txt", ANIMALS]);
    assert_eq!(asked(&mut client, &[]), "exact", "nothing has changed");
    let changes = [
        cmd!["INFER.INGEST", "docs", "queue.md", "the queue"],
        cmd!["INFER.INGEST", "docs", "queue.md", "the memory"],
        cmd!["INFER.INGEST", "docs", "queue.md", "the memory", "ATTRS", "{\"a\":1}"],
        cmd!["INFER.INGEST", "docs", "queue.md", ""],
        cmd!["INFER.FORGET", "docs", "france.txt"],
    ];
    for change in changes {
        client.ok(&change);
        assert_eq!(asked(&mut client, &[]), "miss");
        let similar = client.ok(&question(DOG, &["CACHE", "0"]));
        assert_eq!(text(field(&similar, "cache_question")), CAT, "only the new answer is there");
        assert_eq!(asked(&mut client, &[]), "exact");
    }
}

#[test]
fn an_index_that_is_made_anew_has_new_answers_also_with_another_embedding_model() {
    let (_server, mut client) = indexed();
    let other = {
        let mut load = cmd!["INFER.LOAD", "embed2", EMBED.path().to_str().unwrap()];
        load.arg(&["POOLING", "CLS", "WORKERS", "1", "THREADS", "1"]);
        load
    };
    client.ok(&other);
    assert_eq!(asked(&mut client, &[]), "miss");
    for reindex in [cmd!["INFER.REINDEX", "docs"], cmd!["INFER.REINDEX", "docs", "EMBEDMODEL", "embed2"]] {
        client.ok(&reindex);
        eventually("the index is made anew", || {
            let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
            text(field(field(&info, "reindex"), "state")) == "done"
        });
        let similar = client.ok(&question(DOG, &["CACHE", "0"]));
        assert_eq!((text(field(&similar, "cache")), field(&similar, "cache_question")), ("miss", &Value::Nil));
        assert_eq!((asked(&mut client, &[]), asked(&mut client, &[])), ("miss".to_owned(), "exact".to_owned()));
    }
    // Nothing is left of vectors that cannot be compared.
    assert_eq!(client.text(&cmd!["HGET", "cache-settings:{docs}", "embed_model"]), "embed2");
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{docs}"]), Value::Int(2));
    assert_eq!(text(field(&client.ok(&question(DOG, &["CACHE", "0"])), "cache")), "exact");
}

#[test]
fn a_dropped_index_leaves_no_answers_and_one_of_its_name_has_its_own() {
    let (_server, mut client) = indexed();
    assert_eq!(asked(&mut client, &[]), "miss");
    for number in 0..40 {
        client.ok(&question(CAT, &["CACHE", "1", "SEED", &number.to_string()]));
    }
    let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    assert_eq!(int(field(&info, "answers")), 41);
    assert_eq!(client.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(2));
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
    index(&mut client);
    assert_eq!(int(field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "answers")), 0);
    assert_eq!((asked(&mut client, &[]), asked(&mut client, &[])), ("miss".to_owned(), "exact".to_owned()));
}

#[test]
fn answers_of_documents_whose_counters_were_lost_are_neither_given_nor_kept() {
    let (_server, mut client) = indexed();
    assert_eq!(asked(&mut client, &[]), "miss");
    for document in ["a.txt", "b.txt"] {
        client.ok(&cmd!["DEL", "stats:{docs}"]);
        for _ in 0..2 {
            let reply = client.ok(&question(CAT, &["CACHE", "0"]));
            assert_eq!((text(field(&reply, "cache")), int(field(&reply, "cache_stored"))), ("miss", 0));
        }
        client.ok(&cmd!["INFER.INGEST", "docs", document, "the dog"]);
        assert_eq!((asked(&mut client, &[]), asked(&mut client, &[])), ("miss".to_owned(), "exact".to_owned()));
    }
}

#[test]
fn where_nothing_is_found_nothing_is_kept() {
    let (server, mut client) = indexed();
    for client in [&mut client, &mut server.client()] {
        for _ in 0..2 {
            let reply = client.ok(&question(DOG, &["CACHE", "0", "MINSCORE", "1"]));
            assert_eq!((field(&reply, "text"), text(field(&reply, "finish_reason"))), (&Value::Nil, "no_sources"));
            assert_eq!((text(field(&reply, "cache")), int(field(&reply, "cache_stored"))), ("miss", 0));
        }
    }
    assert_eq!(client.ok(&cmd!["EXISTS", "cache-settings:{docs}", "cache:{docs}", "answers:{docs}"]), Value::Int(0));
}

#[test]
fn an_answer_goes_after_an_hour_or_when_it_is_told_to() {
    let (_server, mut client) = indexed();
    assert_eq!(asked(&mut client, &[]), "miss");
    let key = answer_key(&mut client);
    let left = int(&client.ok(&cmd!["TTL", &key]));
    assert!((3000..=3600).contains(&left), "{left}");
    client.ok(&cmd!["DEL", &key]);
    assert_eq!(asked(&mut client, &["CACHETTL", "1"]), "miss");
    eventually("it has expired", || client.ok(&cmd!["EXISTS", &key]) == Value::Int(0));
    assert_eq!(asked(&mut client, &[]), "miss");
    // Without its settings none is found.
    client.ok(&cmd!["DEL", "cache-settings:{docs}"]);
    assert_eq!((asked(&mut client, &[]), asked(&mut client, &[])), ("miss".to_owned(), "exact".to_owned()));
}

#[test]
fn reranked_answers_and_those_of_blocks_are_told_with_the_same_fields() {
    let server = Server::with(&[CHAT, EMBED, RANK]);
    let mut client = server.resp3();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "KV", "CHUNK"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "animals.txt", ANIMALS]);
    client.ok(&cmd!["INFER.INGEST", "docs", "france.txt", FRANCE]);
    for options in [&["CACHE", "0"][..], &["CACHE", "0", "RERANK", "tiny-rank"], &["CACHE", "0", "RERANK", "*"]] {
        let options: Vec<&str> =
            options.iter().map(|&word| if word == "tiny-rank" { RANK.name } else { word }).collect();
        let first = client.ok(&question(CAT, &options));
        assert_eq!((text(field(&first, "cache")), int(field(&first, "cache_stored"))), ("miss", 1), "{options:?}");
        for (asked, found) in [(CAT, "exact"), (DOG, "similar")] {
            let again = client.ok(&question(asked, &options));
            assert_eq!(names(&again), names(&first));
            assert_eq!(text(field(&again, "cache")), found);
            assert_eq!(field(&again, "sources"), field(&first, "sources"));
            assert_eq!(int(field(&again, "read_blocks")), 0);
        }
    }
}

#[test]
fn answers_are_there_after_a_restart_and_on_replicas_which_keep_none_of_their_own() {
    let mut master = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = master.resp3();
    index(&mut client);
    let first = client.ok(&question(CAT, &["CACHE", "1"]));
    let replica = Server::configured(&[CHAT, EMBED], &["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let mut reader = replica.resp3();
    eventually("the replica has the answer", || {
        reader.text(&cmd!["INFO", "replication"]).contains("master_link_status:up")
            && reader.ok(&cmd!["EXISTS", "cache-settings:{docs}"]) == Value::Int(1)
    });
    // By a write after the first copy, too.
    let second = client.ok(&question(PARIS, &["CACHE", "1"]));
    assert_eq!(client.ok(&cmd!["WAIT", 1, 20_000]), Value::Int(1));
    assert_eq!(contents(&mut reader), contents(&mut client));
    for (asked, stored) in [(CAT, &first), (PARIS, &second)] {
        let again = reader.ok(&question(asked, &["CACHE", "1"]));
        assert_eq!(text(field(&again, "cache")), "exact");
        assert_eq!(
            (field(&again, "text"), field(&again, "sources")),
            (field(stored, "text"), field(stored, "sources"))
        );
    }
    assert_eq!(text(field(&reader.ok(&question(DOG, &["CACHE", "0"])), "cache")), "similar");
    let missed = reader.ok(&question(CAT, &["CACHE", "0", "SCOPE", "x"]));
    assert_eq!((text(field(&missed, "cache")), int(field(&missed, "cache_stored"))), ("miss", 0));
    assert!(!text(field(&missed, "text")).is_empty());
    assert!(!replica.log().contains("is not kept"), "a replica need not say so each time");
    for by in ["from the AOF", "from the RDB"] {
        if by == "from the AOF" {
            master.kill();
            master.start_again();
        } else {
            client.ok(&cmd!["SAVE"]);
            client.ok(&cmd!["DEBUG", "RELOAD"]);
        }
        client = master.resp3();
        for model in [CHAT, EMBED] {
            let _loaded = client.call(&model.load());
        }
        let again = client.ok(&question(CAT, &["CACHE", "1"]));
        assert_eq!((text(field(&again, "cache")), field(&again, "text")), ("exact", field(&first, "text")), "{by}");
    }
}

#[test]
fn eight_clients_that_ask_the_same_at_once_are_all_answered_and_one_answer_stays() {
    let (server, mut client) = indexed();
    let mut clients: Vec<Client> = (0..8).map(|_| server.resp3()).collect();
    for client in &mut clients {
        client.send(&question(CAT, &["CACHE", "0.9"]));
    }
    let answers: Vec<Value> = clients.iter_mut().map(|client| client.receive().unwrap()).collect();
    let again = client.ok(&question(CAT, &["CACHE", "0.9"]));
    assert_eq!(text(field(&again, "cache")), "exact");
    assert!(answers.iter().any(|answer| field(answer, "text") == field(&again, "text")));
    assert!(answers.iter().all(|answer| !text(field(answer, "text")).is_empty()));
    answer_key(&mut client);
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{docs}"]), Value::Int(1));
    assert!(keys_of(&mut client, "docs").contains(&"cache-settings:{docs}".to_owned()));
}
