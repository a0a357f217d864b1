//! Keys of an index that are deleted one by one, as a server does that evicts: what is found, forgotten, replaced and made anew then.

use redis::Value;

use crate::harness::{
    ANIMALS, CHAT, Client, EMBED, FRANCE, Server, array, cmd, documents, eventually, field, int, keys_of, text,
};

/// A server with an empty index `docs` whose chunks are one paragraph each.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&crate::harness::paragraph_index("docs"));
    (server, client)
}

fn ingest(client: &mut Client, path: &str, chunks: &[&str]) -> [i64; 3] {
    let reply = client.ok(&cmd!["INFER.INGEST", "docs", path, chunks.join("\n\n")]);
    ["added", "kept", "removed"].map(|name| int(field(&reply, name)))
}

/// Ids of the chunks that are found, sorted.
fn found(client: &mut Client, question: &str, k: usize) -> Vec<String> {
    let reply = client.ok(&cmd!["INFER.SEARCH", "docs", question, "K", k]);
    let mut ids: Vec<String> = array(&reply).iter().map(|hit| text(field(hit, "id")).to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn a_document_whose_hash_is_gone_is_not_found_and_can_be_forgotten() {
    let (_server, mut client) = indexed();
    for path in ["a.md", "quo\"te \\ *[x].md", "ü/雨.md"] {
        ingest(&mut client, path, &[ANIMALS, FRANCE]);
        ingest(&mut client, "other.md", &[FRANCE]);
        client.ok(&cmd!["DEL", format!("doc:{{docs}}:{path}")]);
        assert_eq!(found(&mut client, "the cat", 10), ["other.md:chunk_0"]);
        assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", path]), Value::Int(2), "{path}");
        eventually("the counters are right", || uncounted(&mut client) == 0);
        assert_eq!(documents(&mut client, "docs").len(), 1);
        assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", path]), Value::Int(0));
    }
}

fn uncounted(client: &mut Client) -> i64 {
    int(&client.ok(&cmd!["HEXISTS", "stats:{docs}", "unsure"]))
}

#[test]
fn a_document_whose_hash_is_gone_can_be_replaced_by_a_shorter_one_and_by_another_of_the_same_length() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.md", &[ANIMALS, FRANCE]);
    client.ok(&cmd!["DEL", "doc:{docs}:a.md"]);
    assert_eq!(ingest(&mut client, "a.md", &["the queue"]), [1, 0, 1]);
    assert_eq!(found(&mut client, "paris", 10), ["a.md:chunk_0"]);
    eventually("the counters are right", || uncounted(&mut client) == 0);
    assert_eq!(documents(&mut client, "docs")["a.md"], ["the queue"]);
    client.ok(&cmd!["DEL", "doc:{docs}:a.md"]);
    ingest(&mut client, "a.md", &["the memory"]);
    eventually("the counters are right", || uncounted(&mut client) == 0);
    assert_eq!(documents(&mut client, "docs")["a.md"], ["the memory"]);
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "docs", "the queue", "K", 10])).len(), 1);
}

#[test]
fn an_answer_made_from_a_document_whose_keys_are_gone_is_not_given_again() {
    let (_server, mut client) = indexed();
    for key in ["doc:{docs}:a.md", "tokens:{docs}:a.md:chunk_0"] {
        ingest(&mut client, "a.md", &[ANIMALS]);
        ingest(&mut client, "b.md", &[FRANCE]);
        let ask = cmd!["INFER.RAG", "docs", "the cat", "CACHE", 0, "MAXTOKENS", 4, "WITHSTATS", "WITHSOURCES"];
        client.ok(&ask);
        assert_eq!(text(field(&client.ok(&ask), "cache")), "exact");
        client.ok(&cmd!["DEL", key]);
        let reply = client.ok(&ask);
        assert_eq!(text(field(&reply, "cache")), "miss", "{key}");
        let paths: Vec<&str> =
            array(field(&reply, "sources")).iter().map(|source| text(field(source, "path"))).collect();
        assert_eq!(paths, ["b.md"]);
    }
}

#[test]
fn chunks_that_lead_nowhere_take_no_place_from_others() {
    let (_server, mut client) = indexed();
    for number in 0..30 {
        ingest(&mut client, &format!("{number}.md"), &[&format!("the cat and the dog {number}")]);
    }
    ingest(&mut client, "far.md", &[FRANCE]);
    for number in 0..30 {
        client.ok(&cmd!["DEL", format!("doc:{{docs}}:{number}.md")]);
    }
    assert_eq!(found(&mut client, "the cat and the dog", 1), ["far.md:chunk_0"]);
    assert_eq!(found(&mut client, "the cat and the dog", 3), ["far.md:chunk_0"]);
}

#[test]
fn an_unchanged_document_is_put_back_into_the_lost_set_of_paths_and_all_others_with_it() {
    let (_server, mut client) = indexed();
    for path in ["a.md", "b.md", "c.md"] {
        ingest(&mut client, path, &[ANIMALS, FRANCE]);
    }
    client.ok(&cmd!["DEL", "paths:{docs}"]);
    assert_eq!(ingest(&mut client, "a.md", &[ANIMALS, FRANCE]), [0, 2, 0]);
    eventually("all are listed", || client.ok(&cmd!["SCARD", "paths:{docs}"]) == Value::Int(3));
    eventually("the counters are right", || uncounted(&mut client) == 0);
    assert_eq!(documents(&mut client, "docs").len(), 3);
}

#[test]
fn lost_counters_are_made_anew() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.md", &[ANIMALS, FRANCE]);
    ingest(&mut client, "b.md", &[ANIMALS]);
    client.ok(&cmd!["DEL", "stats:{docs}"]);
    assert_eq!(ingest(&mut client, "b.md", &[ANIMALS]), [0, 1, 0]);
    eventually("the counters are right", || {
        uncounted(&mut client) == 0 && client.ok(&cmd!["EXISTS", "stats:{docs}"]) == Value::Int(1)
    });
    assert_eq!(documents(&mut client, "docs").len(), 2);
}

#[test]
fn a_large_hash_in_the_place_of_an_index_is_no_index() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["HSET", "users", "name", "x"]);
    for command in
        [cmd!["INFER.INDEXINFO", "users"], cmd!["INFER.SEARCH", "users", "x"], cmd!["INFER.FORGET", "users", "x"]]
    {
        client.refused(&command, "NOINDEX", "is a hash but not an index");
    }
    client.refused(&cmd!["INFER.CACHEINFO", "users"], "NOCACHE", "is a hash but not a cache");
    assert_eq!(keys_of(&mut client, "docs"), [] as [String; 0]);
}

#[track_caller]
fn reindexed(client: &mut Client) -> (String, String) {
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    let mut ended = Default::default();
    eventually("the re-index has ended", || {
        let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
        let reindex = field(&info, "reindex");
        let error = match field(reindex, "error") {
            Value::Nil => String::new(),
            error => text(error).to_owned(),
        };
        ended = (text(field(reindex, "state")).to_owned(), error);
        ended.0 == "done" || ended.0 == "failed"
    });
    ended
}

#[test]
fn a_reindex_finds_documents_that_the_lost_set_of_paths_does_not_list() {
    let (_server, mut client) = indexed();
    for path in ["a.md", "b.md", "c.md"] {
        ingest(&mut client, path, &[ANIMALS, FRANCE]);
    }
    client.ok(&cmd!["DEL", "paths:{docs}"]);
    assert_eq!(reindexed(&mut client), ("done".to_owned(), String::new()));
    assert_eq!(documents(&mut client, "docs").len(), 3);
    client.ok(&cmd!["DEL", "paths:{docs}@2"]);
    ingest(&mut client, "d.md", &[ANIMALS]);
    assert_eq!(reindexed(&mut client), ("done".to_owned(), String::new()));
    assert_eq!(documents(&mut client, "docs").len(), 4);
    client.ok(&cmd!["DEL", "paths:{docs}@3", "stats:{docs}@3"]);
    assert_eq!(reindexed(&mut client), ("done".to_owned(), String::new()));
    assert_eq!(documents(&mut client, "docs").len(), 4);
}

#[test]
fn a_reindex_loses_no_document_whose_hash_is_gone_but_tells_its_path() {
    let (_server, mut client) = indexed();
    for lost in [
        &["doc:{docs}:a.md"][..],
        &["doc:{docs}:a.md", "paths:{docs}"],
        &["doc:{docs}:a.md", "paths:{docs}", "stats:{docs}"],
    ] {
        ingest(&mut client, "a.md", &[ANIMALS, FRANCE]);
        ingest(&mut client, "b.md", &[FRANCE]);
        client.ok(&cmd!["DEL", lost]);
        let before = client.ok(&cmd!["VCARD", "vec:{docs}"]);
        let (state, error) = reindexed(&mut client);
        assert!(state == "failed" && error.contains("'a.md'"), "{lost:?}: {state} {error}");
        assert_eq!(client.ok(&cmd!["VCARD", "vec:{docs}"]), before);
        assert_eq!(client.ok(&cmd!["HGET", "docs", "generation"]), Value::BulkString("1".into()));
        assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", "a.md"]), Value::Int(2));
    }
    assert_eq!(reindexed(&mut client), ("done".to_owned(), String::new()));
    assert_eq!(documents(&mut client, "docs").len(), 1);
}

#[test]
fn a_dropped_index_leaves_nothing_whichever_of_its_keys_was_lost() {
    let (_server, mut client) = indexed();
    let lost = ["docs", "paths:{docs}", "stats:{docs}", "vec:{docs}", "doc:{docs}:a.md", "tokens:{docs}:a.md:chunk_0"];
    for number in 1..1 << lost.len() {
        client.call(&crate::harness::paragraph_index("docs")).unwrap();
        ingest(&mut client, "a.md", &[ANIMALS, FRANCE]);
        ingest(&mut client, "b.md", &[FRANCE]);
        let keys: Vec<&str> = (0..lost.len()).filter(|bit| number >> bit & 1 == 1).map(|bit| lost[bit]).collect();
        client.ok(&cmd!["DEL", &keys]);
        client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
        assert_eq!(keys_of(&mut client, "docs"), [] as [String; 0], "{keys:?}");
        client.refused(&cmd!["INFER.DROPINDEX", "docs"], "NOINDEX", "");
    }
}

#[test]
fn no_generation_of_an_index_whose_settings_were_lost_is_left_behind() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.md", &[ANIMALS]);
    for _ in 0..2 {
        assert_eq!(reindexed(&mut client).0, "done");
    }
    client.ok(&cmd!["DEL", "docs"]);
    client.refused(&crate::harness::paragraph_index("docs"), "ERR", "there are keys of an earlier index 'docs'");
    assert_eq!(client.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(1));
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
    client.ok(&crate::harness::paragraph_index("docs"));
}

#[test]
fn keys_of_another_type_hold_up_no_drop() {
    let (_server, mut client) = indexed();
    for key in ["paths:{docs}", "stats:{docs}", "vec:{docs}"] {
        client.ok(&crate::harness::paragraph_index("docs"));
        ingest(&mut client, "a.md", &[ANIMALS]);
        client.ok(&cmd!["SET", key, "mine"]);
        client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
        assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0), "{key}");
    }
}

fn lost(client: &mut Client, name: &str) -> i64 {
    match field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "lost") {
        Value::Nil => 0,
        lost => int(field(lost, name)),
    }
}

#[test]
fn indexinfo_tells_what_it_knows_to_be_lost_until_it_is_healed() {
    let (_server, mut client) = indexed();
    for (key, name, number) in [
        ("paths:{docs}", "counters", 1),
        ("stats:{docs}", "counters", 1),
        ("vec:{docs}", "vectors", 3),
        ("doc:{docs}:a.md", "chunks", 2),
        ("tokens:{docs}:a.md:chunk_1", "chunks", 1),
    ] {
        ingest(&mut client, "a.md", &[ANIMALS, FRANCE]);
        ingest(&mut client, "b.md", &[FRANCE]);
        assert_eq!(field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "lost"), &Value::Nil, "before {key}");
        client.ok(&cmd!["DEL", key]);
        found(&mut client, "the cat", 10);
        assert_eq!(lost(&mut client, name), number, "{key}");
        ingest(&mut client, "a.md", &[ANIMALS, FRANCE]);
        ingest(&mut client, "b.md", &[FRANCE]);
        eventually("nothing is lost", || field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "lost") == &Value::Nil);
        assert_eq!(documents(&mut client, "docs").len(), 2);
    }
}

/// Paths of the random test, one with everything that has a meaning in filters and patterns.
const PATHS: [&str; 5] = ["a.md", "b/c.md", "x\"y\\z*[a].md", "ü.md", "a.md:chunk_0"];

/// The text of a document in a round: all of its chunks tell both.
fn document(path: usize, round: usize) -> Vec<String> {
    (0..1 + (path + round) % 4).map(|chunk| format!("the cat {path} of {round} in the city {chunk}")).collect()
}

#[test]
fn whatever_key_is_evicted_while_clients_work_documents_are_whole_and_can_be_forgotten_and_ingested() {
    let seed = crate::harness::seed();
    println!("REDIS_INFER_SEED={seed}");
    let server = Server::with(&[CHAT, EMBED]);
    let mut control = server.resp3();
    control.ok(&crate::harness::paragraph_index("docs"));
    for series in 0..4_u64 {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = crate::harness::SetOnDrop(&stop);
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(series));
                let mut client = server.resp3();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let keys = keys_of(&mut client, "docs");
                    if let Some(key) = random.choice(&keys) {
                        client.ok(&cmd!["DEL", key]);
                    }
                }
            });
            let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(31).wrapping_add(series));
            for round in 0..60 {
                let path = random.usize(..PATHS.len());
                match random.u8(..8) {
                    0..=3 => {
                        ingest_all(&mut control, path, round);
                        // Nothing of another version is found, whatever was lost.
                        let reply = control.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 50, "WITHTEXT"]);
                        let new = document(path, round);
                        for hit in array(&reply).iter().filter(|hit| text(field(hit, "path")) == PATHS[path]) {
                            assert!(new.iter().any(|chunk| chunk == text(field(hit, "text"))), "{hit:?}");
                        }
                    }
                    4 => {
                        control.ok(&cmd!["INFER.FORGET", "docs", PATHS[path]]);
                        let reply = control.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 50]);
                        assert!(array(&reply).iter().all(|hit| text(field(hit, "path")) != PATHS[path]));
                    }
                    5 => {
                        control.ok(&cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2, "CACHE", 0]);
                    }
                    6 => {
                        reindexed(&mut control);
                    }
                    _ => {
                        control.ok(&cmd!["INFER.INDEXINFO", "docs"]);
                    }
                }
            }
        });
        for path in PATHS {
            control.ok(&cmd!["INFER.FORGET", "docs", path]);
        }
        assert_eq!(array(&control.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 0);
        for path in 0..PATHS.len() {
            ingest_all(&mut control, path, 99);
        }
        eventually("nothing is lost", || field(&control.ok(&cmd!["INFER.INDEXINFO", "docs"]), "lost") == &Value::Nil);
        let stored = documents(&mut control, "docs");
        for (number, path) in PATHS.iter().enumerate() {
            assert_eq!(stored[*path], document(number, 99), "{path}");
        }
        assert_eq!(reindexed(&mut control), ("done".to_owned(), String::new()));
        assert_eq!(documents(&mut control, "docs"), stored);
    }
    control.ok(&cmd!["INFER.DROPINDEX", "docs"]);
    assert_eq!(keys_of(&mut control, "docs"), [] as [String; 0]);
}

fn ingest_all(client: &mut Client, path: usize, round: usize) {
    client.ok(&cmd!["INFER.INGEST", "docs", PATHS[path], document(path, round).join("\n\n")]);
}
