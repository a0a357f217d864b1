//! As `lifecycle`, for requests that wait for an embedding model: INFER.EMBED, INFER.SEARCH, INFER.RAG and INFER.INGEST.

use redis::{Cmd, Value};

use crate::harness::{
    Client, NOT_NICED, Refusal, SLOW, SLOW_EMBED, Server, array, cmd, eventually, field, int, once_in_three, text,
};

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embed,
    Search,
    Ingest,
    Rag,
}

/// What a request is doing when it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It stands behind another one at the embedding model.
    Queued,
    /// Its texts are being embedded.
    Embedding,
    /// Its question is embedded, and it stands behind another one at the generation model.
    Waiting,
    /// Its answer is being made.
    Decoding,
}

/// Every request in every state that it has.
const SCENES: [(Kind, State); 10] = [
    (Kind::Embed, State::Queued),
    (Kind::Search, State::Queued),
    (Kind::Ingest, State::Queued),
    (Kind::Rag, State::Queued),
    (Kind::Embed, State::Embedding),
    (Kind::Search, State::Embedding),
    (Kind::Ingest, State::Embedding),
    (Kind::Rag, State::Embedding),
    (Kind::Rag, State::Waiting),
    (Kind::Rag, State::Decoding),
];

/// About as many tokens as the model reads, which takes it seconds.
fn long_text() -> String {
    "the cat and the dog ".repeat(400)
}

impl Kind {
    /// The request, with as much work for the embedding model as it can have, or with little.
    fn command(self, long: bool) -> Cmd {
        let text = if long { long_text() } else { "the cat".to_owned() };
        // More than anybody waits for, where there can be many texts.
        let texts = if long { 50 } else { 1 };
        match self {
            Self::Embed => cmd!["INFER.EMBED", "slow-embed", texts, vec![text; texts]],
            Self::Search => cmd!["INFER.SEARCH", "docs", text],
            Self::Ingest => cmd!["INFER.INGEST", "docs", "a.txt", vec![text; texts].join("\n\n")],
            Self::Rag => cmd!["INFER.RAG", "docs", text, "MAXTOKENS", if long { 100 } else { 12_000 }],
        }
    }
}

/// A request in one of the states, and those who look on.
struct Scene<'a> {
    server: &'a Server,
    kind: Kind,
    state: State,
    /// Acts on the request.
    control: Client,
    /// Has sent the request.
    client: Client,
    client_id: i64,
    /// What INFER.PS calls it.
    id: i64,
    /// Keeps a model busy, where the request waits.
    _ahead: Option<Client>,
}

/// A server with the models and an index that holds one short document.
fn server() -> Server {
    configured(&[])
}

/// As [`server`], with options.
fn configured(options: &[&str]) -> Server {
    let server = Server::configured(&[SLOW, SLOW_EMBED], options);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "slow-embed", "GENMODEL", "slow", "MAXTOKENS", 2000]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "paris is the capital of france"]);
    server
}

fn requests(client: &mut Client) -> Vec<Value> {
    array(&client.ok(&cmd!["INFER.PS"])).to_vec()
}

impl<'a> Scene<'a> {
    /// Brings a request into `state`.
    #[track_caller]
    fn of(server: &'a Server, kind: Kind, state: State) -> Self {
        let mut control = server.client();
        let ahead = match state {
            State::Queued => Some(Kind::Embed.command(true)),
            State::Waiting => Some(cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]),
            State::Embedding | State::Decoding => None,
        };
        let ahead = ahead.map(|command| {
            let mut client = server.client();
            client.send(&command);
            let is_at_work = |request: &Value| ["prefilling", "decoding"].contains(&text(field(request, "state")));
            let runs = |listed: &[Value]| listed.iter().any(is_at_work);
            eventually("one is ahead", || runs(&requests(&mut control)));
            client
        });
        let mut client = server.client();
        let client_id = client.id();
        client.send(&kind.command(matches!(state, State::Queued | State::Embedding)));
        // INFER.RAG counts as queued until the answer begins, so it is told by the model that it waits for.
        let (embedding, word) = match state {
            State::Queued => (2, "queued"),
            State::Embedding if kind == Kind::Rag => (1, "queued"),
            State::Embedding => (1, "prefilling"),
            State::Waiting => (0, "queued"),
            State::Decoding => (0, "decoding"),
        };
        let mut id = 0;
        eventually("the request is in its state", || {
            let listed = requests(&mut control);
            let own = listed.iter().find(|request| int(field(request, "client")) == client_id);
            id = own.map_or(0, |request| int(field(request, "id")));
            own.is_some_and(|request| text(field(request, "state")) == word)
                && server.requests("slow-embed") == embedding
        });
        Self { server, kind, state, control, client, client_id, id, _ahead: ahead }
    }

    /// The model that works for it.
    fn model(&self) -> &'static str {
        if matches!(self.state, State::Queued | State::Embedding) { "slow-embed" } else { "slow" }
    }

    /// Fails unless the client gets this error and then nothing more.
    #[track_caller]
    fn assert_refused(&mut self, code: &str, part: &str) {
        let refusal = self.client.receive().unwrap_err();
        let (kind, state) = (self.kind, self.state);
        assert!(refusal.code == code && refusal.text.contains(part), "{kind:?} {state:?}: {refusal:?}");
        self.client.assert_in_step();
    }

    /// Fails unless nothing is left of the request, the index is as it was, and the server works on.
    #[track_caller]
    fn assert_over(self) {
        let Self { server, mut control, client, id, _ahead, kind, state, .. } = self;
        eventually("the request is not listed", || requests(&mut control).iter().all(|r| int(field(r, "id")) != id));
        drop((client, _ahead));
        eventually("every place is free", || ["slow-embed", "slow"].iter().all(|model| server.requests(model) == 0));
        assert_eq!(requests(&mut control), []);
        let found = control.ok(&cmd!["INFER.SEARCH", "docs", "the capital", "WITHTEXT"]);
        let [hit] = array(&found) else { panic!("{kind:?} {state:?}: not the document that was there: {found:?}") };
        assert_eq!(text(field(hit, "text")), "paris is the capital of france");
        control.assert_in_step();
        assert!(control.text(&cmd!["INFO", "clients"]).contains("blocked_clients:0\r"));
    }
}

#[test]
fn disconnecting_ends_a_request() {
    let server = server();
    for (kind, state) in SCENES {
        let mut scene = Scene::of(&server, kind, state);
        drop(std::mem::replace(&mut scene.client, server.client()));
        scene.assert_over();
    }
}

#[test]
fn client_kill_ends_a_request() {
    let server = server();
    for (kind, state) in SCENES {
        let mut scene = Scene::of(&server, kind, state);
        assert_eq!(scene.control.ok(&cmd!["CLIENT", "KILL", "ID", scene.client_id]), Value::Int(1));
        assert_eq!(scene.client.receive().unwrap_err().code, Refusal::LOST);
        scene.assert_over();
    }
}

#[test]
fn client_unblock_ends_a_request() {
    let server = server();
    for (kind, state) in SCENES {
        for (mode, code) in [("TIMEOUT", "CANCELLED"), ("ERROR", "UNBLOCKED")] {
            let mut scene = Scene::of(&server, kind, state);
            assert_eq!(scene.control.ok(&cmd!["CLIENT", "UNBLOCK", scene.client_id, mode]), Value::Int(1));
            scene.assert_refused(code, "CLIENT UNBLOCK");
            scene.assert_over();
        }
    }
}

#[test]
fn cancel_ends_a_request() {
    let server = server();
    for (kind, state) in SCENES {
        let mut scene = Scene::of(&server, kind, state);
        assert_eq!(scene.control.ok(&cmd!["INFER.CANCEL", scene.id]), Value::Int(1));
        scene.assert_refused("CANCELLED", "INFER.CANCEL");
        scene.assert_over();
    }
}

#[test]
fn a_timeout_ends_a_question_wherever_it_is() {
    let server = server();
    // One that waits for the embedding model, and one that waits for the other.
    for (ahead, question) in [
        (Kind::Embed.command(true), "the cat"),
        (cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000], "the dog"),
    ] {
        let (mut busy, mut client, mut control) = (server.client(), server.client(), server.client());
        busy.send(&ahead);
        eventually("one is ahead", || {
            requests(&mut control).iter().any(|request| text(field(request, "state")) != "queued")
        });
        client.send(&cmd!["INFER.RAG", "docs", question, "TIMEOUT", 300]);
        let refusal = client.receive().unwrap_err();
        assert_eq!(refusal.code, "TIMEOUT", "{refusal:?}");
        client.assert_in_step();
        drop(busy);
        eventually("every place is free", || ["slow-embed", "slow"].iter().all(|model| server.requests(model) == 0));
    }
}

#[test]
fn a_forced_unload_ends_a_request() {
    let server = server();
    for (kind, state) in SCENES {
        let mut scene = Scene::of(&server, kind, state);
        let model = scene.model();
        scene.control.ok(&cmd!["INFER.UNLOAD", model, "FORCE"]);
        scene.assert_refused("CANCELLED", "the model was unloaded");
        let loaded = if model == "slow" { SLOW } else { SLOW_EMBED };
        scene.control.ok(&loaded.load());
        scene.assert_over();
    }
}

#[test]
fn a_question_whose_answering_model_is_unloaded_while_it_is_embedded_is_cancelled() {
    let server = server();
    for state in [State::Queued, State::Embedding] {
        let mut scene = Scene::of(&server, Kind::Rag, state);
        scene.control.ok(&cmd!["INFER.UNLOAD", "slow", "FORCE"]);
        scene.assert_refused("CANCELLED", "the model was unloaded");
        scene.control.ok(&SLOW.load());
        scene.assert_over();
    }
}

#[test]
fn becoming_a_replica_ends_a_request() {
    let server = server();
    for (kind, state) in SCENES {
        let mut scene = Scene::of(&server, kind, state);
        // Nobody listens there; the server keeps trying.
        scene.control.ok(&cmd!["REPLICAOF", "127.0.0.1", 1]);
        assert_eq!(scene.client.receive().unwrap_err().code, "UNBLOCKED", "{kind:?} {state:?}");
        assert_eq!(scene.client.receive().unwrap_err().code, Refusal::LOST, "{kind:?} {state:?}");
        scene.client = server.client();
        scene.control = server.client();
        scene.control.ok(&cmd!["REPLICAOF", "NO", "ONE"]);
        scene.assert_over();
    }
}

#[test]
fn module_unload_is_refused_while_there_is_a_request() {
    let server = server();
    for (kind, state) in SCENES {
        let mut scene = Scene::of(&server, kind, state);
        scene.control.refused(&cmd!["MODULE", "UNLOAD", "infer"], "ERR", "blocked clients");
        assert_eq!(scene.control.ok(&cmd!["INFER.CANCEL", scene.id]), Value::Int(1));
        scene.assert_refused("CANCELLED", "INFER.CANCEL");
        scene.assert_over();
    }
}

#[test]
fn shutdown_with_queues_full_of_every_kind_takes_less_than_two_seconds() {
    once_in_three("a server with full queues ends at once", || {
        let mut server = configured(&NOT_NICED);
        let mut control = server.client();
        control.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 20]);
        let mut clients: Vec<Client> = Vec::new();
        let kinds = [Kind::Embed, Kind::Search, Kind::Ingest, Kind::Rag];
        // One more than wait, because one runs.
        for kind in kinds.iter().cycle().take(21) {
            let mut client = server.client();
            client.send(&kind.command(true));
            clients.push(client);
        }
        eventually("the queue is full", || server.requests("slow-embed") == 21);
        control.refused(&Kind::Search.command(false), "QUEUEFULL", "");
        // Before that the server's lock is waited for, which a server that stops does not give any more.
        eventually("the documents wait for the model", || {
            let requests = control.ok(&cmd!["INFER.PS"]);
            let ingests = array(&requests).iter().filter(|request| text(field(request, "command")) == "INFER.INGEST");
            ingests.map(|request| int(field(request, "prompt_tokens"))).all(|tokens| tokens > 0)
        });
        let begun = std::time::Instant::now();
        control.send(&cmd!["SHUTDOWN", "NOSAVE"]);
        let at_once = server.ends_at_once(begun);
        for client in &mut clients {
            assert_eq!(client.receive().unwrap_err().code, Refusal::LOST);
        }
        at_once
    });
}
