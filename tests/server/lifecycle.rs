//! Every way to end a request from outside, in each of the states it can be in: the work stops, its place is free, the
//! client has exactly one reply, and nobody hangs.

use std::time::Instant;

use redis::{Cmd, Value};

use crate::harness::{
    Client, NOT_NICED, Refusal, SLOW, Server, array, cmd, eventually, field, int, once_in_three, text, until_decoding,
};

/// What a request is doing when it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It stands behind another one.
    Queued,
    /// Its prompt is being read.
    Prefilling,
    /// Its answer is being made.
    Decoding,
    /// Its answer is made, and the server has not sent it yet.
    Finishing,
}

const STATES: [State; 4] = [State::Queued, State::Prefilling, State::Decoding, State::Finishing];

/// For [`State::Finishing`]: holds the main thread until no request is listed any more, which is when their answers are
/// made; how many were listed at first. INFER.PS forgets a request right before its answer is handed over.
fn hold() -> [Cmd; 2] {
    let script = "local held = #redis.call('INFER.PS') while #redis.call('INFER.PS') > 0 do end return held";
    [cmd!["EVAL", script, 0], cmd!["DEBUG", "SLEEP", "0.02"]]
}

/// Tokens of an answer that is made in some tenths of a second: so long an observer may be away.
const SOON: u32 = 160;

/// A request in one of the states, and those who look on.
struct Scene<'a> {
    server: &'a Server,
    /// Acts on the request.
    control: Client,
    /// Has sent the request.
    client: Client,
    client_id: i64,
    /// What INFER.PS calls it.
    id: i64,
    /// Keeps the worker busy, where the request is queued.
    _ahead: Option<Client>,
    state: State,
}

/// No two begin alike, so that nothing of a prompt is reused.
fn prompt(length: usize) -> String {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{number} {}", "x".repeat(length))
}

fn ask(prompt: &str, max_tokens: u32, options: &[&str]) -> Cmd {
    cmd!["INFER.GENERATE", "slow", 0, "TEXT", prompt, "MAXTOKENS", max_tokens, options]
}

fn requests(client: &mut Client) -> Vec<Value> {
    array(&client.ok(&cmd!["INFER.PS"])).to_vec()
}

impl<'a> Scene<'a> {
    /// Brings a request into `state`; for [`State::Finishing`], [`Scene::act`] does the rest.
    #[track_caller]
    fn of(server: &'a Server, state: State) -> Self {
        Self::with(server, state, &[])
    }

    /// As [`Scene::of`], with more options of INFER.GENERATE.
    #[track_caller]
    fn with(server: &'a Server, state: State, options: &[&str]) -> Self {
        let mut control = server.client();
        let mut ahead = None;
        if state == State::Queued {
            let mut client = server.client();
            client.send(&ask(&prompt(1), 16_000, &[]));
            until(&mut control, 0, "decoding");
            ahead = Some(client);
        }
        let place = usize::from(ahead.is_some());
        let mut client = server.client();
        let client_id = client.id();
        let id = match state {
            State::Finishing => begin_a_short_one(&mut control, &mut client, options),
            State::Queued => {
                client.send(&ask(&prompt(1), 16_000, options));
                until(&mut control, place, "queued")
            }
            State::Prefilling => {
                client.send(&ask(&prompt(12_000), 1000, options));
                until(&mut control, place, "prefilling")
            }
            State::Decoding => {
                client.send(&ask(&prompt(1), 16_000, options));
                until(&mut control, place, "decoding")
            }
        };
        Self { server, control, client, client_id, id, _ahead: ahead, state }
    }

    /// Runs `command` while the request is in the state; its reply.
    #[track_caller]
    fn act(&mut self, command: &Cmd) -> Result<Value, Refusal> {
        if self.state != State::Finishing {
            return self.control.call(command);
        }
        // Nothing is sent to anybody between these: the client is still blocked, but its request has ended.
        self.control.send_together(&[&hold()[..], std::slice::from_ref(command)].concat());
        assert_eq!(self.control.receive(), Ok(Value::Int(1)), "the request ended before the main thread was held");
        self.control.receive().unwrap();
        self.control.receive()
    }

    /// Fails unless the client gets this error and then nothing more.
    #[track_caller]
    fn assert_refused(&mut self, code: &str, part: &str) {
        let refusal = self.client.receive().unwrap_err();
        assert!(refusal.code == code && refusal.text.contains(part), "{:?}: {refusal:?}", self.state);
        self.client.assert_in_step();
    }

    /// Fails unless the client gets this error, or its whole answer where that is made already.
    #[track_caller]
    fn assert_answered_or_refused(&mut self, code: &str, part: &str) {
        match self.state {
            State::Finishing => self.assert_answered(),
            _ => self.assert_refused(code, part),
        }
    }

    /// Ends what nothing has ended, unless it has ended by itself.
    #[track_caller]
    fn cancel(&mut self) {
        if self.state != State::Finishing {
            assert_eq!(self.control.ok(&cmd!["INFER.CANCEL", self.id]), Value::Int(1));
        }
        self.assert_answered_or_refused("CANCELLED", "INFER.CANCEL");
    }

    /// Fails unless the client gets its whole answer and then nothing more.
    #[track_caller]
    fn assert_answered(&mut self) {
        let answer = self.client.receive().unwrap_or_else(|refusal| panic!("{:?}: {refusal:?}", self.state));
        assert!(!text(&answer).is_empty());
        self.client.assert_in_step();
    }

    /// Fails unless nothing is left of the request, and the server works on.
    #[track_caller]
    fn assert_over(self) {
        let Self { server, mut control, client, id, _ahead, .. } = self;
        eventually("the request is not listed", || requests(&mut control).iter().all(|r| int(field(r, "id")) != id));
        drop((client, _ahead));
        eventually("every place is free", || server.requests("slow") == 0);
        assert_eq!(requests(&mut control), []);
        control.ok(&ask(&prompt(1), 2, &[]));
        control.assert_in_step();
    }
}

/// Waits until the request number `place` is listed with this state; its id.
#[track_caller]
fn until(control: &mut Client, place: usize, state: &str) -> i64 {
    let mut id = 0;
    eventually(state, || {
        let listed = requests(control);
        let found = listed.get(place).filter(|request| text(field(request, "state")) == state);
        id = found.map_or(0, |request| int(field(request, "id")));
        found.is_some()
    });
    id
}

/// Begins a request that ends soon, and waits until its answer is being made; its id.
#[track_caller]
fn begin_a_short_one(control: &mut Client, client: &mut Client, options: &[&str]) -> i64 {
    control.ok(&cmd!["CONFIG", "SET", "busy-reply-threshold", 0]);
    let (mut tokens, mut id) = (SOON, None);
    while id.is_none() {
        let done = control.info("infer_requests_done");
        client.send(&ask(&prompt(1), tokens, options));
        id = until_decoding(control, done);
        if id.is_none() {
            client.receive().unwrap();
            tokens *= 2;
        }
    }
    id.unwrap_or_default()
}

#[test]
fn disconnecting_ends_a_request() {
    let server = Server::with(&[SLOW]);
    for state in STATES {
        let mut scene = Scene::of(&server, state);
        let other = server.client();
        if state == State::Finishing {
            scene.control.send_together(&hold());
        }
        drop(std::mem::replace(&mut scene.client, other));
        if state == State::Finishing {
            scene.control.receive().unwrap();
            scene.control.receive().unwrap();
        }
        scene.assert_over();
    }
}

#[test]
fn client_kill_ends_a_request() {
    let server = Server::with(&[SLOW]);
    for state in STATES {
        let mut scene = Scene::of(&server, state);
        let kill = cmd!["CLIENT", "KILL", "ID", scene.client_id];
        assert_eq!(scene.act(&kill), Ok(Value::Int(1)));
        assert_eq!(scene.client.receive().unwrap_err().code, Refusal::LOST);
        scene.assert_over();
    }
}

#[test]
fn client_unblock_ends_a_request() {
    let server = Server::with(&[SLOW]);
    for state in STATES {
        for (mode, code) in [(&[][..], "CANCELLED"), (&["TIMEOUT"], "CANCELLED"), (&["ERROR"], "UNBLOCKED")] {
            let mut scene = Scene::of(&server, state);
            let unblock = cmd!["CLIENT", "UNBLOCK", scene.client_id, mode];
            assert_eq!(scene.act(&unblock), Ok(Value::Int(1)));
            if state == State::Finishing && code == "CANCELLED" {
                // Redis takes a client whose answer is on the way for unblocked already.
                scene.assert_answered();
            } else {
                scene.assert_refused(code, "CLIENT UNBLOCK");
            }
            scene.assert_over();
        }
    }
}

#[test]
fn cancel_ends_a_request() {
    let server = Server::with(&[SLOW]);
    for state in STATES {
        let mut scene = Scene::of(&server, state);
        let cancelled = scene.act(&cmd!["INFER.CANCEL", scene.id]);
        // One that has ended, and whose answer is on the way, is not cancelled.
        assert_eq!(cancelled, Ok(Value::Int(i64::from(state != State::Finishing))));
        scene.assert_answered_or_refused("CANCELLED", "INFER.CANCEL");
        scene.assert_over();
    }
}

#[test]
fn a_timeout_ends_a_request_and_says_how_far_it_got() {
    let server = Server::with(&[SLOW]);
    // Long enough that the state is seen before, and that a prompt is not read by then.
    for (state, timeout) in [(State::Queued, 1500), (State::Prefilling, 1500), (State::Decoding, 3000)] {
        let mut scene = Scene::with(&server, state, &["TIMEOUT", &timeout.to_string()]);
        let refusal = scene.client.receive().unwrap_err();
        assert_eq!(refusal.code, "TIMEOUT", "{state:?}");
        let words: Vec<&str> = refusal.text.split(' ').collect();
        let [waited, done] = [1, 4].map(|i| words[i].parse::<u64>().unwrap());
        assert!(waited >= timeout, "{}", refusal.text);
        assert_eq!(done > 0, state == State::Decoding, "{state:?}: {}", refusal.text);
        scene.client.assert_in_step();
        scene.assert_over();
    }
}

#[test]
fn an_answer_that_is_made_when_its_time_is_over_is_sent() {
    let server = Server::with(&[SLOW]);
    let (mut control, mut client) = (server.client(), server.client());
    control.ok(&cmd!["CONFIG", "SET", "busy-reply-threshold", 0]);
    // The main thread is to be held before the time is over, which is more and more.
    let held = [400, 800, 1600, 3200].iter().any(|timeout| {
        let mut question = ask(&prompt(1), SOON, &[]);
        client.send(question.arg("TIMEOUT").arg(timeout));
        control.send_together(&[&hold()[..], &[cmd!["DEBUG", "SLEEP", f64::from(*timeout) / 1000.0]]].concat());
        let held = control.receive() == Ok(Value::Int(1));
        control.receive().unwrap();
        control.receive().unwrap();
        let answer = client.receive();
        assert!(!held || answer.is_ok(), "{answer:?}");
        held
    });
    assert!(held, "every request was over before the main thread was held");
    client.assert_in_step();
    eventually("every place is free", || server.requests("slow") == 0);
}

#[test]
fn a_forced_unload_ends_requests() {
    let server = Server::with(&[SLOW]);
    for state in STATES {
        let mut scene = Scene::of(&server, state);
        assert_eq!(scene.act(&cmd!["INFER.UNLOAD", "slow", "FORCE"]), Ok(Value::Okay));
        scene.assert_answered_or_refused("CANCELLED", "the model was unloaded");
        scene.control.refused(&cmd!["INFER.MODEL", "slow"], "NOMODEL", "");
        scene.control.ok(&SLOW.load());
        scene.assert_over();
    }
}

#[test]
fn an_unload_waits_for_requests_that_can_still_be_cancelled() {
    let server = Server::with(&[SLOW]);
    for state in STATES {
        let mut scene = Scene::of(&server, state);
        let mut unloading = server.client();
        if state == State::Finishing {
            assert_eq!(scene.act(&cmd!["INFER.UNLOAD", "slow"]), Ok(Value::Okay));
            scene.assert_answered();
        } else {
            unloading.send(&cmd!["INFER.UNLOAD", "slow"]);
            eventually("the name is free", || scene.control.call(&cmd!["INFER.MODEL", "slow"]).is_err());
            let listed: Vec<i64> = requests(&mut scene.control).iter().map(|r| int(field(r, "id"))).collect();
            assert!(listed.contains(&scene.id), "{state:?}: {listed:?}");
            for id in listed {
                assert_eq!(scene.control.ok(&cmd!["INFER.CANCEL", id]), Value::Int(1));
            }
            scene.assert_refused("CANCELLED", "INFER.CANCEL");
            assert_eq!(unloading.receive(), Ok(Value::Okay));
            unloading.assert_in_step();
        }
        scene.control.ok(&SLOW.load());
        scene.assert_over();
    }
}

#[test]
fn becoming_a_replica_ends_requests_and_ceasing_to_be_one_does_not() {
    let server = Server::with(&[SLOW]);
    // Nobody listens there; the server keeps trying.
    let become_replica = cmd!["REPLICAOF", "127.0.0.1", 1];
    for state in STATES {
        let mut scene = Scene::of(&server, state);
        scene.act(&become_replica).unwrap();
        assert_eq!(scene.client.receive().unwrap_err().code, "UNBLOCKED", "{state:?}");
        assert_eq!(scene.client.receive().unwrap_err().code, Refusal::LOST, "{state:?}");
        scene.client = server.client();
        scene.control = server.client();
        scene.control.ok(&cmd!["REPLICAOF", "NO", "ONE"]);
        scene.assert_over();
    }
    for state in STATES {
        server.client().ok(&become_replica);
        let mut scene = Scene::of(&server, state);
        scene.act(&cmd!["REPLICAOF", "NO", "ONE"]).unwrap();
        scene.cancel();
        scene.assert_over();
    }
}

#[test]
fn module_unload_is_refused_while_there_is_a_request() {
    let server = Server::with(&[SLOW]);
    for state in STATES {
        let mut scene = Scene::of(&server, state);
        let refusal = scene.act(&cmd!["MODULE", "UNLOAD", "infer"]).unwrap_err();
        assert!(refusal.text.contains("blocked clients"), "{state:?}: {refusal:?}");
        scene.cancel();
        scene.assert_over();
    }
    let mut client = server.client();
    eventually("the module can be unloaded", || client.call(&cmd!["MODULE", "UNLOAD", "infer"]).is_ok());
}

/// Ends a server with a request in `state`; whether it took less than two seconds.
fn ends_at_once(state: State) -> bool {
    let mut server = Server::configured(&[SLOW], &NOT_NICED);
    let Scene { mut control, mut client, _ahead, .. } = Scene::of(&server, state);
    let shutdown = [cmd!["SHUTDOWN", "NOSAVE"]];
    control.send_together(&if state == State::Finishing { [&hold()[..], &shutdown].concat() } else { shutdown.into() });
    eventually("the server begins to end", || server.log().contains("User requested shutdown"));
    let at_once = server.ends_at_once(Instant::now());
    assert!(control.receive().is_err());
    assert!(client.receive().is_err(), "{state:?}");
    at_once
}

#[test]
fn shutdown_ends_requests_in_less_than_two_seconds() {
    for state in STATES {
        once_in_three("a busy server ends at once", || ends_at_once(state));
    }
}

#[test]
fn shutdown_with_a_full_queue_takes_less_than_two_seconds() {
    for state in [State::Prefilling, State::Decoding] {
        once_in_three("a server with a full queue ends at once", || {
            let mut server = Server::configured(&[SLOW], &NOT_NICED);
            let Scene { client, mut control, .. } = Scene::of(&server, state);
            let limit =
                text(&array(&control.ok(&cmd!["CONFIG", "GET", "infer.queue-limit"]))[1]).parse::<i64>().unwrap();
            let mut waiting: Vec<Client> = (0..limit).map(|_| server.client()).collect();
            for client in &mut waiting {
                client.send(&ask("wait", 16_000, &[]));
            }
            eventually("the queue is full", || server.requests("slow") == 1 + limit);
            control.refused(&ask("one too many", 1, &[]), "QUEUEFULL", "");
            let begun = Instant::now();
            control.send(&cmd!["SHUTDOWN", "NOSAVE"]);
            let at_once = server.ends_at_once(begun);
            for mut client in waiting.into_iter().chain([client]) {
                assert!(client.receive().is_err());
            }
            at_once
        });
    }
}
