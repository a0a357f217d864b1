//! Thousands of random command lines from several clients at once: the server lives, each line has one proper reply.

use std::collections::BTreeMap;
use std::sync::Mutex;

use redis_infer_stress::{Line, Lines, Models, shown};

use crate::harness::{CHAT, Client, EMBED, RANK, Refusal, Server, array, cmd, eventually, report, seed, text};

const CLIENTS: u64 = 8;
const LINES: usize = 20_000;

/// Codes of errors that may come. INTERNAL is not among them: it is a fault of the module.
const CODES: [&str; 17] = [
    "BADTOKENS",
    "CANCELLED",
    "CTXLIMIT",
    "ERR",
    "LOADFAIL",
    "MISMATCH",
    "MODELLOADING",
    "NOCACHE",
    "NOINDEX",
    "NOMODEL",
    "NOPERM",
    "NOVECTORSETS",
    "OOM",
    "QUEUEFULL",
    "TIMEOUT",
    "UNBLOCKED",
    "WRONGTYPE",
];

/// Names the seed and the lines under way when a thread panics.
struct Flight {
    seed: u64,
    client: u64,
    lines: Vec<Line>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("REDIS_INFER_SEED={} repeats this; client {} had sent:", self.seed, self.client);
            for line in &self.lines {
                eprintln!("  {}", shown(line));
            }
        }
    }
}

fn command(line: &Line) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    command.arg(line);
    command
}

/// Sends `count` lines in groups, some of which it does not wait for; counts the replies by code.
fn storm(server: &Server, seed: u64, client: u64, count: usize) -> BTreeMap<String, usize> {
    let [chat, embed, rank] = [CHAT, EMBED, RANK].map(|model| model.path().to_str().unwrap().to_owned());
    let mut lines = Lines::new(seed.wrapping_mul(CLIENTS).wrapping_add(client), Models { chat, embed, rank }, 0.25);
    let connect = || if client.is_multiple_of(2) { server.client() } else { server.resp3() };
    let mut flight = Flight { seed, client, lines: Vec::new() };
    let mut connection = connect();
    let mut replies = BTreeMap::new();
    let mut left = count;
    while left > 0 {
        let group = lines.rng().usize(1..=16).min(left);
        left -= group;
        flight.lines = (0..group).map(|_| lines.next_line()).collect();
        for line in &flight.lines {
            connection.send(&command(line));
        }
        if lines.rng().u8(0..50) == 0 {
            connection = connect();
            continue;
        }
        for line in &flight.lines {
            let code = match connection.receive() {
                Ok(_) => "reply".to_owned(),
                Err(Refusal { code, text }) => {
                    assert!(CODES.contains(&code.as_str()), "{code} {text}\n  for {}", shown(line));
                    assert!(!text.chars().any(char::is_control), "{text:?}\n  for {}", shown(line));
                    code
                }
            };
            *replies.entry(code).or_insert(0) += 1;
        }
        Client::assert_in_step(&mut connection);
    }
    replies
}

#[test]
fn twenty_thousand_random_lines_by_eight_clients_get_one_proper_reply_each() {
    let seed = seed();
    let mut server = Server::with(&[CHAT, EMBED, RANK]);
    let replies = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, replies) = (&server, &replies);
            scope.spawn(move || {
                let own = storm(server, seed, client, LINES / CLIENTS as usize);
                for (code, count) in own {
                    *replies.lock().unwrap().entry(code).or_insert(0) += count;
                }
            });
        }
    });
    let replies = replies.into_inner().unwrap();
    report(&format!("seed {seed}: {replies:?}"));
    server.assert_alive();
    let mut client = server.client();
    eventually("no request is left", || array(&client.ok(&cmd!["INFER.PS"])).is_empty());
    let clients = client.text(&cmd!["INFO", "clients"]);
    assert!(clients.contains("blocked_clients:0\r"), "{clients}");
    // Many lines are right: when hardly any of them works, this tests nothing.
    assert!(replies["reply"] > LINES / 4, "{replies:?}");
    client.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 128]);
    let answer = client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "still there?", "MAXTOKENS", 4]);
    text(&answer);
}
