//! What SLOWLOG and MONITOR show of prompts with `infer.redact`.

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, text};

const SECRET: &str = "the cat is 4711";

fn commands() -> Vec<redis::Cmd> {
    vec![
        cmd!["INFER.TOKENIZE", "chat", SECRET],
        cmd!["INFER.GENERATE", "chat", 0, "TEXT", SECRET, "MAXTOKENS", 1],
        cmd!["INFER.CHAT", "chat", 0, "MESSAGE", "user", SECRET, "MAXTOKENS", 1],
        cmd!["INFER.EMBED", "embed", 2, SECRET, SECRET],
        // Refused on the main thread.
        cmd!["INFER.GENERATE", "nobody", 0, "TEXT", SECRET],
    ]
}

/// The commands of this module that the log of slow ones has, each as one line.
fn slow(client: &mut Client) -> Vec<String> {
    let entries = client.ok(&cmd!["SLOWLOG", "GET", -1]);
    let words = |entry: &redis::Value| array(&array(entry)[3]).iter().map(text).collect::<Vec<&str>>().join(" ");
    array(&entries).iter().map(words).filter(|line| line.starts_with("INFER.")).collect()
}

#[test]
fn with_infer_redact_the_slow_log_and_monitor_show_no_argument_but_the_first() {
    let server = Server::with(&[CHAT, EMBED]);
    let (mut client, mut monitor) = (server.client(), server.client());
    client.ok(&cmd!["CONFIG", "SET", "slowlog-log-slower-than", 0]);
    for (redacted, shown) in [("no", true), ("yes", false)] {
        client.ok(&cmd!["CONFIG", "SET", "infer.redact", redacted]);
        client.ok(&cmd!["SLOWLOG", "RESET"]);
        monitor.ok(&cmd!["MONITOR"]);
        for command in commands() {
            let _ = client.call(&command);
        }
        client.ok(&cmd!["ECHO", "the end"]);
        let mut seen = Vec::new();
        while seen.last().is_none_or(|line: &String| !line.contains("the end")) {
            seen.push(text(&monitor.receive().unwrap()).to_owned());
        }
        let seen: Vec<String> = seen.into_iter().filter(|line| line.contains("\"INFER.")).collect();
        for lines in [seen, slow(&mut client)] {
            assert_eq!(lines.len(), commands().len(), "{lines:?}");
            for line in lines {
                assert_eq!((line.contains(SECRET), line.contains("(redacted)")), (shown, !shown), "{line}");
                assert!(line.contains("chat") || line.contains("embed") || line.contains("nobody"), "{line}");
            }
        }
        monitor = server.client();
    }
}

#[test]
fn redacted_commands_still_work_in_transactions_and_scripts() {
    let mut server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["CONFIG", "SET", "infer.redact", "yes"]);
    client.ok(&cmd!["MULTI"]);
    client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", SECRET]);
    client.ok(&cmd!["SET", "k", "v"]);
    client.send(&cmd!["EXEC"]);
    assert!(client.receive().unwrap_err().text.contains("cannot run inside MULTI"));
    assert_eq!(client.text(&cmd!["GET", "k"]), "v");
    let script = "return redis.pcall('INFER.GENERATE', 'chat', 0, 'TEXT', ARGV[1], 'MAXTOKENS', 2)['err']";
    for _ in 0..3 {
        assert!(client.text(&cmd!["EVAL", script, 0, SECRET]).contains("script"));
    }
    let stored = client.ok(&cmd!["INFER.TOKENIZESTORE", "t", "chat", SECRET]);
    assert_eq!(client.ok(&cmd!["INFER.TOKENIZESTORE", "u", "chat", SECRET]), stored);
    assert_eq!(client.text(&cmd!["INFER.DETOKENIZE", "chat", 1, "t"]), SECRET);
    server.assert_alive();
}
