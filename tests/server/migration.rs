//! The slot of an index on its way to another node: a command sees the whole index or says what Redis says, and clients that act on
//! it lose nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::{Cmd, Value};

use crate::harness::{
    CHAT, Client, Cluster, EMBED, Follower, SLOW_EMBED, SetOnDrop, Slot, array, cmd, crowd, documents, eventually,
    field, int, paragraph_index, report, seed, text,
};

/// Two texts that are a chunk each.
const CAT: &str = "the cat and the dog in the city";
const DOG: &str = "the dog in the city of the cat";

const PATHS: [&str; 3] = ["a.md", "b.md", "c.md"];

/// An index `docs` with three documents, and the node beside that of its slot.
fn index(cluster: &Cluster) -> (Slot<'_>, usize) {
    let slot = Slot::of(cluster, "docs");
    let mut client = slot.server().client();
    client.ok(&paragraph_index("docs"));
    for path in PATHS {
        client.ok(&ingest(path, &format!("{CAT} {path}\n\n{DOG} {path}")));
    }
    let to = (slot.at + 1) % cluster.nodes.len();
    (slot, to)
}

fn ingest(path: &str, text: &str) -> Cmd {
    cmd!["INFER.INGEST", "docs", path, text]
}

fn search() -> Cmd {
    cmd!["INFER.SEARCH", "docs", "the city", "K", 100, "EF", 1000, "WITHTEXT"]
}

/// Commands that need what has and has not come with the keys of an index.
fn commands() -> Vec<Cmd> {
    vec![
        cmd!["INFER.FORGET", "docs", "c.md"],
        ingest("c.md", "the cat"),
        ingest("d.md", "the cat"),
        search(),
        cmd!["INFER.RAG", "docs", "the city", "MAXTOKENS", 2],
        cmd!["INFER.RAG", "docs", "the city", "MAXTOKENS", 2, "CACHE", 1],
        cmd!["INFER.INDEXINFO", "docs"],
        cmd!["INFER.REINDEX", "docs"],
        cmd!["INFER.DROPINDEX", "docs"],
    ]
}

/// As a client that was sent here by `ASK`.
fn asking(client: &mut Client, command: &Cmd) -> Result<Value, crate::harness::Refusal> {
    client.ok(&cmd!["ASKING"]);
    client.call(command)
}

#[test]
fn half_an_index_at_the_new_node_is_never_answered_for() {
    let cluster = Cluster::with(&[CHAT, EMBED]);
    let (mut slot, to) = index(&cluster);
    let before = documents(&mut slot.server().client(), "docs");
    let mut target = cluster.nodes[to].client();
    slot.begin(to);
    assert_eq!(asking(&mut target, &paragraph_index("docs")).unwrap_err().code, "TRYAGAIN");
    for keys in [&["vec:{docs}", "stats:{docs}", "paths:{docs}"][..], &["docs"], &["doc:{docs}:a.md"]] {
        for key in keys {
            slot.carry(key, to);
        }
        for command in commands() {
            let refusal = asking(&mut target, &command).unwrap_err();
            assert_eq!(refusal.code, "TRYAGAIN", "{refusal:?} after {keys:?}");
            target.assert_in_step();
        }
    }
    slot.finish(to);
    assert_eq!(documents(&mut target, "docs"), before);
    assert_eq!(target.ok(&cmd!["INFER.FORGET", "docs", "c.md"]), Value::Int(2));
    assert_eq!(documents(&mut target, "docs").len(), 2);
    assert_eq!(int(&target.ok(&cmd!["INFER.DROPINDEX", "docs"])), 2);
    assert!(cluster.keys().iter().all(Vec::is_empty), "{:?}", cluster.keys());
}

#[test]
fn half_an_index_at_the_old_node_is_never_answered_for() {
    let cluster = Cluster::with(&[CHAT, EMBED]);
    let (mut slot, to) = index(&cluster);
    let before = documents(&mut slot.server().client(), "docs");
    let mut client = slot.server().client();
    slot.begin(to);
    for key in ["tokens:{docs}:c.md:chunk_0", "doc:{docs}:c.md", "vec:{docs}"] {
        slot.carry(key, to);
        client.refused(&cmd!["INFER.FORGET", "docs", "c.md"], "TRYAGAIN", "");
        client.refused(&ingest("d.md", "the cat"), "TRYAGAIN", "");
        client.refused(&search(), "TRYAGAIN", "");
        client.refused(&cmd!["INFER.RAG", "docs", "the city", "K", 100, "MAXTOKENS", 2], "TRYAGAIN", "");
        client.refused(&cmd!["INFER.DROPINDEX", "docs"], "TRYAGAIN", "");
    }
    slot.carry("docs", to);
    for command in commands() {
        assert_eq!(client.refused(&command, "ASK", "").text, slot.redirection(to));
    }
    slot.finish(to);
    for command in commands() {
        assert_eq!(client.refused(&command, "MOVED", "").text, slot.redirection(to));
    }
    assert_eq!(documents(&mut cluster.nodes[to].client(), "docs"), before);
}

#[test]
fn commands_whose_keys_are_all_there_work_at_both_nodes_while_a_slot_is_on_its_way() {
    let cluster = Cluster::with(&[CHAT, EMBED]);
    let (mut slot, to) = index(&cluster);
    let mut client = slot.server().client();
    let mut target = cluster.nodes[to].client();
    slot.begin(to);
    assert_eq!(array(&client.ok(&search())).len(), 6);
    client.ok(&cmd!["INFER.RAG", "docs", "the city", "MAXTOKENS", 2]);
    client.ok(&ingest("a.md", &format!("{DOG}\n\n{CAT}")));
    assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", "b.md"]), Value::Int(2));
    // A key that is nowhere yet cannot be told from one that has gone ahead.
    client.refused(&ingest("new.md", "the cat"), "TRYAGAIN", "");
    for key in slot.keys() {
        slot.carry(&key, to);
    }
    assert_eq!(array(&asking(&mut target, &search()).unwrap()).len(), 4);
    asking(&mut target, &cmd!["INFER.RAG", "docs", "the city", "MAXTOKENS", 2]).unwrap();
    asking(&mut target, &ingest("a.md", &format!("{CAT}\n\n{CAT} paris"))).unwrap();
    assert_eq!(asking(&mut target, &cmd!["INFER.FORGET", "docs", "c.md"]).unwrap(), Value::Int(2));
    assert_eq!(asking(&mut target, &ingest("new.md", "the cat")).unwrap_err().code, "TRYAGAIN");
    // For one command only.
    assert_eq!(target.refused(&search(), "MOVED", "").text, slot.redirection(slot.at));
    slot.finish(to);
    let expected = BTreeMap::from([("a.md".to_owned(), vec![CAT.to_owned(), format!("{CAT} paris")])]);
    assert_eq!(documents(&mut target, "docs"), expected);
    target.ok(&ingest("new.md", "the cat"));
    assert_eq!(documents(&mut target, "docs").len(), 2);
}

#[test]
fn a_document_that_is_embedded_while_its_slot_leaves_is_sent_after_it() {
    let cluster = Cluster::with(&[CHAT, SLOW_EMBED]);
    let mut slot = Slot::of(&cluster, "docs");
    let mut control = slot.server().client();
    control.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "slow-embed", "GENMODEL", "chat", "MAXTOKENS", 2000]);
    control.ok(&ingest("a.md", "the cat"));
    for (gone, code) in [(&["vec:{docs}"][..], "TRYAGAIN"), (&[], "ASK")] {
        let (from, to) = (&cluster.nodes[slot.at], (slot.at + 1) % 3);
        let mut client = from.client();
        client.send(&ingest("a.md", &"the cat and the dog ".repeat(390)));
        eventually("the document is being embedded", || from.requests("slow-embed") == 1);
        slot.begin(to);
        let keys = if gone.is_empty() { slot.keys() } else { gone.iter().map(|&key| key.to_owned()).collect() };
        for key in keys {
            slot.carry(&key, to);
        }
        let refusal = client.receive().unwrap_err();
        assert_eq!(refusal.code, code, "{refusal:?}");
        assert!(code != "ASK" || refusal.text == slot.redirection(to), "{refusal:?}");
        eventually("the place is free", || from.requests("slow-embed") == 0);
        slot.finish(to);
        assert_eq!(documents(&mut slot.server().client(), "docs")["a.md"], ["the cat"]);
    }
}

#[test]
fn a_replica_in_a_cluster_answers_clients_that_only_read() {
    let cluster = Cluster::with(&[CHAT, EMBED]);
    let (slot, to) = index(&cluster);
    let mut master = slot.server().client();
    let cache = (0..).map(|number| format!("faq{number}")).find(|name| cluster.node_of(name) == slot.at).unwrap();
    master.ok(&cmd!["INFER.CACHESET", &cache, "the cat", "meow", "EMBEDMODEL", "embed"]);
    let replica = cluster.replica_of(slot.at, &[CHAT, EMBED]);
    let mut reader = replica.client();
    let to_master = slot.redirection(slot.at);
    assert_eq!(reader.refused(&search(), "MOVED", "").text, to_master);
    reader.ok(&cmd!["READONLY"]);
    let question = cmd!["INFER.RAG", "docs", "the city", "MAXTOKENS", 2, "TEMP", 0, "WITHSOURCES"];
    for large in [false, true] {
        if large {
            // So that the search goes on without the lock.
            crowd(&mut master, "vec:{docs}", 5000);
            assert_eq!(master.ok(&cmd!["WAIT", 1, 60_000]), Value::Int(1));
        }
        assert_eq!(reader.ok(&search()), master.ok(&search()));
        assert_eq!(reader.ok(&question), master.ok(&question));
        assert_eq!(int(field(&reader.ok(&cmd!["INFER.INDEXINFO", "docs"]), "documents")), 3);
    }
    assert_eq!(reader.text(&cmd!["INFER.CACHEGET", &cache, "the cat"]), "meow");
    assert_eq!(reader.text(&cmd!["INFER.CACHEGET", &cache, "the dog", "THRESHOLD", 0]), "meow");
    let cached = cmd!["INFER.RAG", "docs", "the city", "MAXTOKENS", 2, "CACHE", 1];
    assert_eq!(reader.refused(&cached, "MOVED", "").text, to_master);
    // It is not told that the slot is on its way, and sends clients to the one that knows.
    slot.begin(to);
    for key in ["stats:{docs}", "vec:{docs}", "docs"] {
        slot.carry(key, to);
        assert_eq!(master.ok(&cmd!["WAIT", 1, 60_000]), Value::Int(1));
        assert_eq!(reader.refused(&cmd!["INFER.INDEXINFO", "docs"], "MOVED", "").text, to_master);
    }
    assert_eq!(reader.refused(&search(), "MOVED", "").text, to_master);
    assert_eq!(reader.refused(&question, "MOVED", "").text, to_master);
    reader.ok(&cmd!["READWRITE"]);
    reader.assert_in_step();
}

/// The text of `path` in one of its versions: one to four chunks, some of which stay from version to version.
fn version(path: &str, number: usize) -> Vec<String> {
    (0..1 + number % 4)
        .map(|chunk| format!("the cat {path} in the city {chunk} {}", number / (1 + chunk % 2)))
        .collect()
}

/// What a search finds of each path.
fn found(reply: &Value) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for hit in array(reply) {
        let of_path = found.entry(text(field(hit, "path")).to_owned()).or_default();
        of_path.push(text(field(hit, "text")).to_owned());
    }
    found.values_mut().for_each(|texts| texts.sort());
    found
}

/// A client that changes documents of its own and looks for them; none of its commands may fail.
struct Writer {
    follower: Follower,
    random: fastrand::Rng,
    paths: Vec<String>,
    /// What its documents are.
    now: BTreeMap<String, Vec<String>>,
    number: usize,
}

impl Writer {
    fn new(cluster: &Cluster, name: usize) -> Self {
        let paths = (0..3).map(|number| format!("{name}-{number}.md")).collect();
        let (follower, random) = (Follower::new(cluster), fastrand::Rng::with_seed(seed() + name as u64));
        Self { follower, random, paths, now: BTreeMap::new(), number: 0 }
    }

    /// One change, and a look at what has become of it.
    fn step(&mut self, attempted: impl Fn()) {
        self.number += 1;
        let path = self.paths[self.random.usize(..self.paths.len())].clone();
        let mut answer = |command: &Cmd| {
            let reply = self.follower.call(command, &attempted);
            reply.unwrap_or_else(|refusal| panic!("{refusal:?}, seed {}", seed()))
        };
        if self.random.u8(..3) == 0 {
            let had = self.now.remove(&path).map_or(0, |chunks| chunks.len());
            assert_eq!(answer(&cmd!["INFER.FORGET", "docs", &path]), Value::Int(had as i64), "seed {}", seed());
        } else {
            let chunks = version(&path, self.number);
            answer(&ingest(&path, &chunks.join("\n\n")));
            self.now.insert(path, chunks);
        }
        let found = found(&answer(&search()));
        for path in &self.paths {
            let (found, mut now) = (found.get(path), self.now.get(path).cloned());
            now.iter_mut().for_each(|chunks| chunks.sort());
            assert_eq!(found, now.as_ref(), "{path}, seed {}", seed());
        }
    }
}

#[test]
fn a_slot_that_goes_back_and_forth_under_load_loses_and_mixes_nothing() {
    const ROUNDS: usize = 6;
    const WRITERS: usize = 2;
    let cluster = Cluster::with(&[CHAT, EMBED]);
    let mut slot = Slot::of(&cluster, "docs");
    slot.server().client().ok(&paragraph_index("docs"));
    let mut random = fastrand::Rng::with_seed(seed());
    let (over, attempts, steps) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let written = Mutex::new((BTreeMap::new(), [0; 3]));
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        let more = |counter: &AtomicUsize, wanted: usize| {
            let from = counter.load(Ordering::Relaxed);
            eventually("the writers go on", || {
                counter.load(Ordering::Relaxed) >= from + wanted || over.load(Ordering::Relaxed)
            });
        };
        for name in 0..WRITERS {
            let (cluster, over, attempts, steps, written) = (&cluster, &over, &attempts, &steps, &written);
            scope.spawn(move || {
                // If one fails, the others and the mover need not wait for it.
                let ended = SetOnDrop(over);
                let mut writer = Writer::new(cluster, name);
                while !over.load(Ordering::Relaxed) {
                    writer.step(|| {
                        attempts.fetch_add(1, Ordering::Relaxed);
                    });
                    steps.fetch_add(1, Ordering::Relaxed);
                }
                drop(ended);
                let mut written = written.lock().unwrap();
                written.0.append(&mut writer.now);
                (0..3).for_each(|kind| written.1[kind] += writer.follower.told[kind]);
            });
        }
        for _ in 0..ROUNDS {
            more(&steps, 8);
            let to = (slot.at + 1 + random.usize(..2)) % cluster.nodes.len();
            slot.begin(to);
            loop {
                let mut keys = slot.keys();
                random.shuffle(&mut keys);
                if keys.is_empty() {
                    break;
                }
                for key in keys {
                    slot.carry(&key, to);
                    if random.u8(..3) == 0 {
                        more(&attempts, 1 + random.usize(..3));
                    }
                }
            }
            slot.finish(to);
        }
        more(&steps, 4);
    });
    let (expected, told) = written.into_inner().unwrap();
    report(&format!(
        "a slot that went back and forth {ROUNDS} times: {} changes, told MOVED, ASK, TRYAGAIN {told:?}",
        steps.into_inner()
    ));
    assert!(told.iter().all(|&times| times > 0), "not all that can be told was told: {told:?}, seed {}", seed());
    let mut client = slot.server().client();
    assert_eq!(documents(&mut client, "docs"), expected, "seed {}", seed());
    let elsewhere: Vec<_> =
        (0..3).filter(|&node| node != slot.at).flat_map(|node| cluster.keys()[node].clone()).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}, seed {}", seed());
    assert_eq!(int(&client.ok(&cmd!["INFER.DROPINDEX", "docs"])), expected.len() as i64);
    assert!(cluster.keys().iter().all(Vec::is_empty), "{:?}, seed {}", cluster.keys(), seed());
}
