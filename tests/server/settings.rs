//! The settings infer.*: where they come from and what they accept.

use crate::harness::{CHAT, Client, Server, array, cmd, module, text};

fn setting(client: &mut Client, name: &str) -> String {
    let reply = client.ok(&cmd!["CONFIG", "GET", name]);
    text(&array(&reply)[1]).to_owned()
}

/// A setting, with its default and its bounds.
struct Setting {
    name: &'static str,
    default: i64,
    min: i64,
    max: i64,
    /// Whether CONFIG SET may change it.
    at_start_only: bool,
}

/// All there are; a test holds it against the server.
const SETTINGS: [Setting; 4] = [
    Setting { name: "infer.kv-budget", default: 1 << 30, min: 0, max: 1 << 50, at_start_only: false },
    Setting { name: "infer.max-memory", default: 0, min: 0, max: 1 << 50, at_start_only: false },
    Setting { name: "infer.nice", default: 10, min: 0, max: 20, at_start_only: true },
    Setting { name: "infer.queue-limit", default: 128, min: 1, max: 65_536, at_start_only: false },
];

/// The settings that are texts; empty by default, and at start only.
const TEXTS: [&str; 3] = ["infer.cpulist", "infer.model-dir", "infer.models"];

/// What there is to see when the numbers are these and the texts have their defaults.
fn expected(number: impl Fn(&Setting) -> i64) -> Vec<(String, String)> {
    let numbers = SETTINGS.iter().map(|setting| (setting.name.to_owned(), number(setting).to_string()));
    let texts = TEXTS.iter().map(|&name| (name.to_owned(), String::new()));
    let switch = ("infer.redact".to_owned(), "no".to_owned());
    let mut all: Vec<(String, String)> = numbers.chain(texts).chain([switch]).collect();
    all.sort();
    all
}

/// Names and values, sorted by name.
fn all(client: &mut Client) -> Vec<(String, String)> {
    let reply = client.ok(&cmd!["CONFIG", "GET", "infer.*"]);
    let pairs = array(&reply).as_chunks::<2>().0.iter();
    let mut all: Vec<(String, String)> =
        pairs.map(|[name, value]| (text(name).to_owned(), text(value).to_owned())).collect();
    all.sort();
    all
}

#[test]
fn every_setting_has_its_default() {
    let server = Server::start();
    assert_eq!(all(&mut server.client()), expected(|setting| setting.default));
}

#[test]
fn the_command_line_of_the_server_sets_them_up_to_their_bounds() {
    for bound in [|setting: &Setting| setting.min, |setting: &Setting| setting.max] {
        let values: Vec<(String, String)> =
            SETTINGS.iter().map(|setting| (format!("--{}", setting.name), bound(setting).to_string())).collect();
        let options: Vec<&str> = values.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
        let server = Server::configured(&[], &options);
        assert_eq!(all(&mut server.client()), expected(bound));
    }
}

#[test]
fn a_value_out_of_bounds_keeps_the_server_from_starting_and_the_log_names_it() {
    for Setting { name, min, max, .. } in SETTINGS {
        for value in [(min - 1).to_string(), (max + 1).to_string(), "many".to_owned()] {
            let log = Server::refuses_to_start(&[&format!("--{name}"), &value]);
            assert!(log.contains(&format!("Issue during loading of configuration {name} ")), "{value}: {log}");
        }
    }
}

#[test]
fn config_set_takes_values_within_the_bounds_and_no_others() {
    let server = Server::start();
    let mut client = server.client();
    for Setting { name, min, max, at_start_only, .. } in SETTINGS {
        if at_start_only {
            client.refused(&cmd!["CONFIG", "SET", name, min], "ERR", "can't set immutable config");
            continue;
        }
        for value in [min, max] {
            client.ok(&cmd!["CONFIG", "SET", name, value]);
            assert_eq!(setting(&mut client, name), value.to_string());
        }
        // Redis takes no digits at all for a size of 0.
        let empty = if ["infer.kv-budget", "infer.max-memory"].contains(&name) { "-" } else { "" };
        for value in [(min - 1).to_string(), (max + 1).to_string(), "many".to_owned(), empty.to_owned()] {
            client.refused(&cmd!["CONFIG", "SET", name, value], "ERR", name);
        }
        assert_eq!(setting(&mut client, name), max.to_string());
    }
}

#[test]
fn settings_that_are_texts_are_for_the_start_only() {
    let server = Server::start();
    let mut client = server.client();
    for name in TEXTS {
        client.refused(&cmd!["CONFIG", "SET", name, "x"], "ERR", "can't set immutable config");
    }
}

#[test]
fn config_rewrite_keeps_every_setting_over_a_restart() {
    let folder = CHAT.path().parent().unwrap().to_str().unwrap();
    let models = "m tiny-chat.gguf CTX 512; tiny-embed.gguf";
    let options = ["--infer.nice", "3", "--infer.cpulist", "0", "--infer.model-dir", folder, "--infer.models", models];
    let mut server = Server::configured(&[], &options);
    let mut client = server.client();
    client.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 9]);
    client.ok(&cmd!["CONFIG", "SET", "infer.max-memory", "8gb"]);
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", "100mb"]);
    client.ok(&cmd!["CONFIG", "SET", "infer.redact", "yes"]);
    let before = all(&mut client);
    for (value, default) in before.iter().zip(expected(|setting| setting.default)) {
        assert_ne!(*value, default, "a default would prove nothing");
    }
    client.ok(&cmd!["CONFIG", "REWRITE"]);
    server.restart_from_file();
    assert_eq!(all(&mut server.client()), before);
}

#[test]
fn arguments_of_loadmodule_are_refused_and_not_ignored() {
    let mut server = Server::start();
    let mut client = server.client();
    let path = module();
    let path = path.to_str().unwrap();
    client.ok(&cmd!["MODULE", "UNLOAD", "infer"]);
    client.refused(&cmd!["MODULE", "LOAD", path, "infer.nice", 5], "ERR", "");
    assert!(server.log().contains("the module takes no arguments"));
    client.ok(&cmd!["MODULE", "LOADEX", path, "CONFIG", "infer.nice", 5]);
    assert_eq!(setting(&mut client, "infer.nice"), "5");
    server.assert_alive();
}
