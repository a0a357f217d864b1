//! The rooms of `src/` and who may use whom. Arrows go down only:
//!
//! ```text
//! lib.rs -> commands -> redis_api -> logic
//!           commands -> engine    -> logic
//! ```
//!
//! This reads the source text, so a rule holds before the code compiles. Comments and strings do not count.
//! Unit tests count: a test that reaches into another room holds it in place as code does.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this is two files.
const MOST_LINES: usize = 700;

/// Places are paths below `src`: `engine` is `engine.rs` and all files below `engine/`.
struct Rule {
    /// The words, as they stand in the source, white space aside.
    words: &'static [&'static str],
    /// Where they may not stand. Empty: anywhere.
    forbidden_in: &'static [&'static str],
    /// Where they may stand all the same.
    except: &'static [&'static str],
    reason: &'static str,
}

const RULES: [Rule; 8] = [
    Rule {
        words: &["redis_module"],
        forbidden_in: &[],
        except: &["lib.rs", "commands", "redis_api"],
        reason: "only lib.rs, commands and redis_api may use redis_module",
    },
    Rule {
        words: &["llama_cpp_2", "llama_cpp_sys_2"],
        forbidden_in: &[],
        except: &["engine"],
        reason: "only engine may use llama.cpp",
    },
    Rule {
        words: &["crate::redis_api", "crate::engine", "super::redis_api", "super::engine"],
        forbidden_in: &["logic"],
        except: &[],
        reason: "logic uses no other room",
    },
    Rule {
        words: &[
            "std::thread",
            "std::sync",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "Instant",
            "SystemTime",
        ],
        forbidden_in: &["logic"],
        except: &[],
        reason: "logic has no threads, clock, files, network, environment or shared state",
    },
    Rule {
        words: &["crate::redis_api", "super::redis_api"],
        forbidden_in: &["engine"],
        except: &[],
        reason: "engine uses logic only",
    },
    Rule {
        words: &["crate::engine", "super::engine"],
        forbidden_in: &["redis_api"],
        except: &[],
        reason: "redis_api uses logic only",
    },
    Rule {
        words: &["crate::commands", "super::commands"],
        forbidden_in: &[],
        except: &["lib.rs", "commands"],
        reason: "only lib.rs uses commands",
    },
    Rule {
        words: &["unsafe"],
        forbidden_in: &[],
        except: &["redis_api", "engine"],
        reason: "unsafe code is in redis_api and engine only",
    },
];

/// All that is wrong with the sources below `src`, each with file and line.
fn violations(src: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(src) {
        let place = file.strip_prefix(src).unwrap().to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&file).unwrap();
        check_form(&place, &text, &mut found);
        if place.ends_with(".rs") {
            check_uses(&place, &code_of(&text), &mut found);
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files.extend(self::files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs" || extension == "cpp") {
            files.push(entry);
        }
    }
    files
}

fn check_form(place: &str, text: &str, found: &mut Vec<String>) {
    let opening = if place.ends_with(".cpp") { "//" } else { "//!" };
    if !text.starts_with(opening) {
        found.push(format!("{place}: does not begin with {opening} and what the file is for"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        found.push(format!("{place}: {lines} lines, more than {MOST_LINES}"));
    }
}

fn check_uses(place: &str, code: &str, found: &mut Vec<String>) {
    for rule in &RULES {
        let governed = rule.forbidden_in.is_empty() || is_in(place, rule.forbidden_in);
        if !governed || is_in(place, rule.except) {
            continue;
        }
        for word in rule.words {
            for line in lines_naming(code, word) {
                found.push(format!("{place}:{line}: {word}: {}", rule.reason));
            }
        }
    }
}

fn is_in(place: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|room| {
        let rest = place.strip_prefix(room);
        rest.is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
    })
}

/// The lines on which a path is named: written out, or taken apart as in `use crate::{engine, logic}`.
fn lines_naming(code: &str, path: &str) -> Vec<usize> {
    let lines = |starts: Vec<usize>| starts.into_iter().map(|at| code[..at].matches('\n').count() + 1).collect();
    let whole = occurrences(code, path);
    let Some((first, second)) = path.split_once("::") else {
        return lines(whole);
    };
    let grouped = occurrences(code, &format!("{first}::{{"))
        .into_iter()
        .filter(|&at| {
            let group = braces(&code[at..]);
            top_level(group).any(|item| item.trim().split("::").next() == Some(second))
        })
        .collect::<Vec<_>>();
    lines([whole, grouped].concat())
}

/// Where `word` stands in `code`, not as a part of a longer name.
fn occurrences(code: &str, word: &str) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let may_go_on = !word.ends_with(is_name);
    let found = code.match_indices(word).filter(|(at, _)| {
        let begins = code[..*at].chars().next_back().is_none_or(|before| !is_name(before));
        let ends = code[at + word.len()..].chars().next().is_none_or(|after| !is_name(after));
        begins && (may_go_on || ends)
    });
    found.map(|(at, _)| at).collect()
}

/// What stands between the first `{` of `code` and its `}`.
fn braces(code: &str) -> &str {
    let Some(open) = code.find('{') else { return "" };
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &code[open + 1..open + at];
        }
    }
    &code[open + 1..]
}

/// The items of a group, not those of groups within it.
fn top_level(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    group.split(move |c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
}

/// `text` with comments and the contents of strings and characters blanked out, line breaks kept.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = literal(rest, code.chars().next_back());
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            // A quote stays, so that what follows is not taken for a part of the word before.
            code.push('"');
            code.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// Bytes of the comment, string or character that `rest` begins with; 0 if it begins with code.
fn literal(rest: &str, before: Option<char>) -> usize {
    let to = |end: Option<usize>, length: usize| end.map_or(rest.len(), |at| at + length);
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return to(rest.find('\n'), 0);
    }
    if rest.starts_with("/*") {
        return to(rest.find("*/"), 2);
    }
    if rest.starts_with('"') {
        return quoted(rest);
    }
    let hashes = rest.strip_prefix('r').map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    if !in_word && rest.starts_with('r') && rest[1 + hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = 2 + hashes;
        return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    0
}

/// Bytes of the string that `rest` begins with.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    rest.len()
}

/// Bytes of the character that `rest` begins with; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let body = &rest[1..];
    if body.starts_with('\\') {
        // The character after the backslash may be a quote.
        return body.char_indices().skip(2).find(|&(_, c)| c == '\'').map_or(rest.len(), |(at, _)| at + 2);
    }
    let length = body.chars().next().map_or(0, char::len_utf8);
    if body[length..].starts_with('\'') { length + 2 } else { 0 }
}

#[test]
fn the_rooms_of_src_use_each_other_downwards_only() {
    let found = violations(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// What is wrong with a tree of this one file.
fn violations_of(place: &str, text: &str) -> Vec<String> {
    let src = tempfile::tempdir().unwrap();
    let file = src.path().join(place);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!("//! A file.\n{text}\n")).unwrap();
    violations(src.path())
}

#[test]
fn each_forbidden_use_is_found() {
    for (place, text) in [
        ("logic/a.rs", "use redis_module::Context;"),
        ("engine/a.rs", "use redis_module::Context;"),
        ("gguf/a.rs", "use redis_module::Context;"),
        ("engine.rs", "use redis_module::Context;"),
        ("commands/a.rs", "use llama_cpp_2::model::LlamaModel;"),
        ("redis_api/a.rs", "fn a() { llama_cpp_sys_2::llama_decode(); }"),
        ("logic/deep/er/a.rs", "use crate::engine::Engine;"),
        ("logic.rs", "use crate::redis_api;"),
        ("logic/a.rs", "use crate::{commands, logic};"),
        ("logic/a.rs", "use crate::{\n    logic::limits,\n    engine::{Engine, Served},\n};"),
        ("logic/a.rs", "use std::sync::Mutex;"),
        ("logic/a.rs", "use std::{fmt, thread};"),
        ("logic/a.rs", "use std::time::{Duration, Instant};"),
        ("logic/a.rs", "fn a() { std::fs::read(\"a\"); }"),
        ("engine/a.rs", "use crate::redis_api::reply::Value;"),
        ("redis_api/a.rs", "use crate::engine::EngineError;"),
        ("redis_api/a.rs", "use crate::commands::runtime;"),
        ("engine/a.rs", "use super::super::commands::runtime;"),
        ("logic/a.rs", "use super::super::{engine, logic};"),
        ("commands/a.rs", "unsafe { a() }"),
        ("lib.rs", "#![allow(unsafe_code)]\nunsafe fn a() {}"),
    ] {
        assert_eq!(violations_of(place, text).len(), 1, "{place}: {text}\n{:?}", violations_of(place, text));
    }
}

#[test]
fn each_allowed_use_is_let_through() {
    for (place, text) in [
        ("lib.rs", "use redis_module::redis_module; mod commands; fn a() { commands::a() }"),
        ("commands/a.rs", "use redis_module::Context; use crate::{engine::Engine, logic::limits, redis_api::reply};"),
        ("redis_api/a.rs", "use crate::logic::limits; fn a() { unsafe { redis_module::raw::a() } }"),
        (
            "engine/a.rs",
            "use crate::logic::limits; use std::{sync::Arc, thread}; fn a() { unsafe { llama_cpp_2::a() } }",
        ),
        ("logic/a.rs", "use std::time::Duration; use std::collections::{BTreeMap, HashMap}; use super::limits;"),
        ("logic/a.rs", "// unsafe, crate::engine\n/* std::thread */ fn a<'a>() -> &'a str { \"crate::engine\" }"),
        ("logic/a.rs", "fn a() { b('\"'); b(\"\\\" unsafe\"); b(r#\"a \" unsafe\"#); b('\\''); b(\"unsafe\"); }"),
        ("logic/a.rs", "#![forbid(unsafe_code)]\nfn an_instant() {} fn redis_module_like() {}"),
        ("engineer/a.rs", "fn a() {}"),
    ] {
        assert_eq!(violations_of(place, text), [""; 0], "{place}: {text}");
    }
}

#[test]
fn a_violation_is_reported_with_file_line_and_reason() {
    let found = violations_of("logic/a.rs", "/* two\nlines */\n\nuse std::{\n    fs,\n};");
    let expected = "logic/a.rs:5: std::fs: logic has no threads, clock, files, network, environment or shared state";
    assert_eq!(found, [expected]);
}

#[test]
fn a_file_must_say_what_it_is_for_and_be_of_readable_length() {
    let src = tempfile::tempdir().unwrap();
    fs::write(src.path().join("a.rs"), "fn a() {}\n").unwrap();
    fs::write(src.path().join("b.rs"), format!("//! B.\n{}", "\n".repeat(MOST_LINES))).unwrap();
    fs::write(src.path().join("c.cpp"), "// C.\n").unwrap();
    let found = violations(src.path());
    let expected = ["a.rs: does not begin with //! and what the file is for", "b.rs: 701 lines, more than 700"];
    assert_eq!(found, expected);
}
