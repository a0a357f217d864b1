//! Redis' main thread: how long one command may keep it from everybody else, whatever its arguments.
//!
//! For each argument of each command in COMMAND DOCS the worst lines of [`worst`] are sent while another process sends one
//! PING after the other. What Redis itself takes to read such arguments is measured beside, with an RPUSH of the same.

mod worst;
mod wrong_keys;

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Cmd, Value};
use redis_infer_stress::pulse::Pulse;
use redis_infer_stress::{Line, shown};

use crate::harness::{CHAT, Client, EMBED, RANK, Server, array, cmd, eventually, field, module, pairs, text};
use worst::Parts;

/// How much longer than with RPUSH nobody may be answered.
const BUDGET: Duration = Duration::from_millis(20);
/// Attempts for one line: the machine may stop any process for a while, but hardly each time.
const ATTEMPTS: usize = 8;
/// What a command may leave behind, in KiB: freed memory that the allocator keeps.
const LEFT_BEHIND: u64 = 200 << 10;

/// A key with as many tokens as one command takes.
const TOKENS: &str = "tokens-max";
/// A key with a string of 64 MB.
const BIG: &str = "string-max";

/// A server with the three kinds of models, an index, a cache and keys with tokens, and the process that watches it.
struct Watched {
    server: Server,
    client: Client,
    pulse: Pulse,
    /// Before anything was tried, in KiB.
    memory: u64,
    /// What kept the main thread too long.
    too_long: Vec<String>,
}

impl Watched {
    fn start() -> Self {
        // What is kept for later prompts grows up to its budget, and is not what is looked for here.
        let server = Server::configured(&[CHAT, EMBED, RANK], &["--infer.kv-budget", "0"]);
        let mut client = server.client();
        let token = b"a\0\0\0";
        client.ok(&cmd!["SET", TOKENS, token.repeat(1 << 20)]);
        client.ok(&cmd!["SET", BIG, token.repeat(16 << 20)]);
        for number in 0..1024 {
            client.ok(&cmd!["SET", format!("k{number}"), token.repeat(1024)]);
        }
        let pulse = Pulse::start(&module().with_file_name("redis-infer-pulse"), server.port, server.pid()).unwrap();
        let mut watched = Self { server, client, pulse, memory: 0, too_long: Vec::new() };
        watched.prepare();
        watched.memory = watched.resident();
        watched
    }

    /// Puts back what commands remove.
    fn prepare(&mut self) {
        self.client.ok(&cmd![
            "INFER.INDEX",
            "docs",
            "EMBEDMODEL",
            "embed",
            "GENMODEL",
            "chat",
            "MAXTOKENS",
            16,
            "OVERLAP",
            0
        ]);
        let document: Vec<String> = (0..400).map(|number| format!("the cat number {number} sat on the mat")).collect();
        self.client.ok(&cmd!["INFER.INGEST", "docs", "long.md", document.join("\n\n")]);
        self.client.ok(&cmd!["INFER.CACHESET", "faq", "the dog", "bone", "EMBEDMODEL", "embed"]);
    }

    /// Waits until nothing runs any more, and only the models that stay are there.
    fn settle(&mut self) {
        let client = &mut self.client;
        eventually("all models but three are unloaded", || {
            let models = client.ok(&cmd!["INFER.MODELS"]);
            let names = array(&models).iter().map(|model| text(field(model, "name")).to_owned());
            let others: Vec<String> =
                names.filter(|name| !["chat", "embed", "rank"].contains(&name.as_str())).collect();
            for name in &others {
                let _ = client.call(&cmd!["INFER.UNLOAD", name, "FORCE"]);
            }
            others.is_empty()
        });
        eventually("no request is left", || array(&client.ok(&cmd!["INFER.PS"])).is_empty());
    }

    /// How long nobody was answered while `command` was read, carried out and answered.
    fn gap(&mut self, what: &str, command: &Cmd) -> Duration {
        // One of its own, because Redis may end the connection of who says too much.
        let mut client = self.server.client();
        self.pulse.take().unwrap();
        // It may be refused: that too has to be quick.
        let _ = client.call(command);
        assert!(self.server.is_alive(), "the server has ended at {what}");
        self.settle();
        self.pulse.take().unwrap().own
    }

    /// Notes it when nobody is answered for too long.
    fn check(&mut self, what: &str, command: &Cmd) {
        let mut measured = Vec::new();
        let holds = (0..ATTEMPTS).any(|_| {
            let control = self.gap(what, &as_rpush(command));
            self.client.ok(&cmd!["UNLINK", "control"]);
            let gap = self.gap(what, command);
            measured.push((gap, control));
            gap <= control + BUDGET
        });
        if !holds {
            self.too_long.push(format!("{what}: nobody was answered for, and with RPUSH of the same: {measured:?}"));
        }
    }

    fn assert_memory_is_back(&mut self, after: &str) {
        self.client.ok(&cmd!["MEMORY", "PURGE"]);
        eventually(&format!("memory is back after {after}"), || self.resident() < self.memory + LEFT_BEHIND);
    }

    /// In KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A command of Redis itself with the same arguments.
fn as_rpush(command: &Cmd) -> Cmd {
    let mut control = cmd!["RPUSH", "control", "first"];
    for argument in command.args_iter().skip(1) {
        if let redis::Arg::Simple(bytes) = argument {
            control.arg(bytes);
        }
    }
    control
}

/// The arguments of a command as COMMAND DOCS lists them: those with a token by their token, others by their name.
fn documented(arguments: &[Value], found: &mut BTreeSet<String>) {
    for argument in arguments {
        let facts = pairs(argument);
        let fact = |name: &str| facts.iter().find(|(fact, _)| text(fact) == name).map(|(_, value)| *value);
        if let Some(token) = fact("token") {
            found.insert(text(token).to_owned());
        } else if let Some(parts) = fact("arguments") {
            documented(array(parts), found);
        } else {
            found.insert(text(fact("name").unwrap()).to_owned());
        }
    }
}

/// Every command with its arguments.
fn commands(client: &mut Client) -> Vec<(String, BTreeSet<String>)> {
    let names = client.ok(&cmd!["COMMAND", "LIST", "FILTERBY", "MODULE", "infer"]);
    let mut names: Vec<String> = array(&names).iter().map(|name| text(name).to_owned()).collect();
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let docs = client.ok(&cmd!["COMMAND", "DOCS", &name]);
        let facts = pairs(field(&docs, &name));
        let arguments = facts.iter().find(|(fact, _)| text(fact) == "arguments");
        let mut found = BTreeSet::new();
        documented(arguments.map_or(&[], |(_, arguments)| array(arguments)), &mut found);
        all.push((name, found));
    }
    all
}

/// A line of `base` in which `parts` stand instead of those of the same name, or behind them.
fn line(command: &str, base: &Parts, parts: &Parts) -> Cmd {
    let mut all = base.clone();
    for (name, words) in parts {
        match all.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => old.clone_from(words),
            None => all.push((name, words.clone())),
        }
    }
    let words: Line = all.into_iter().flat_map(|(_, words)| words).collect();
    cmd![command, words]
}

#[test]
fn every_argument_of_every_command_has_a_worst_case_and_no_other_has() {
    let server = Server::start();
    for (command, arguments) in commands(&mut server.client()) {
        let base = worst::base(&command).unwrap_or_else(|| panic!("{command} has no base line in worst.rs"));
        for (name, _) in &base {
            assert!(arguments.contains(*name), "{command} has no argument {name} any more");
        }
        for argument in &arguments {
            let worst = worst::worst(&command, argument);
            assert!(!worst.is_empty(), "{command} {argument} has no worst case: add one to worst.rs");
            for (name, _) in worst.iter().flatten() {
                assert!(
                    arguments.contains(*name) || base.iter().any(|(other, _)| other == name) || name == argument,
                    "{command} {argument}: there is no argument {name}"
                );
            }
        }
    }
}

#[test]
fn no_argument_keeps_the_main_thread_from_other_clients() {
    let mut watched = Watched::start();
    for (command, arguments) in commands(&mut watched.server.client()) {
        let base = worst::base(&command).unwrap();
        for argument in arguments {
            for parts in worst::worst(&command, &argument) {
                let line = line(&command, &base, &parts);
                if ["infer.forget", "infer.dropindex", "infer.cachedel"].contains(&command.as_str()) {
                    watched.prepare();
                }
                let words: Line = parts.iter().flat_map(|(_, words)| words.iter().take(4).cloned()).collect();
                watched.check(&format!("{command} {}", shown(&words)), &line);
            }
        }
        watched.assert_memory_is_back(&command);
        watched.prepare();
    }
    assert!(watched.too_long.is_empty(), "{}", watched.too_long.join("\n"));
}
