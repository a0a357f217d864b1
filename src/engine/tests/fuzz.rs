//! Hostile input of every kind that a client or a file gives, made at random from seeds and from what grammars are made of.
//!
//! `make test` runs each target for some dozens of cases that are always the same; `make fuzz MINUTES=10` runs all of them for
//! that long with new ones, and prints what it did. What may not happen: a panic, a stack overflow with a quarter of the stack of
//! an engine thread, more memory than [`MEMORY_MAX`], an error that is not printable ASCII or says nothing.

use std::cell::Cell;
use std::fmt::Debug;
use std::io::Write;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::engine::chat_template::ChatTemplate;
use crate::engine::constraint::tests::{accepts, bytes, with_little_stack};
use crate::logic::attributes::UserAttributes;
use crate::logic::options::{Chat, OutputForm, Search, filter_effort};
use crate::logic::prompt::{Message, Segment};
use crate::logic::{limits, token_blob};

/// Bytes that one input may take at a time, with what other tests take meanwhile.
const MEMORY_MAX: usize = 512 << 20;
/// Cases of a target in `make test`.
const CASES: u32 = 48;

/// What this process has in memory at most during `work`, more than before; other tests may run beside it.
fn most_memory<T>(work: impl FnOnce() -> T) -> (T, usize) {
    // Begins to count the most anew.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = status("VmRSS:");
    let made = work();
    (made, status("VmHWM:").saturating_sub(before))
}

/// A number of bytes from what Linux tells about this process; 0 elsewhere.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    kilobytes.map_or(0, |kilobytes: usize| kilobytes << 10)
}

#[derive(serde::Deserialize)]
struct Seeds {
    #[serde(rename = "GRAMMAR")]
    grammar: Vec<String>,
    #[serde(rename = "JSONSCHEMA")]
    schema: Vec<String>,
    #[serde(rename = "FILTER")]
    filter: Vec<String>,
    #[serde(rename = "ATTRS")]
    attrs: Vec<String>,
}

fn seeds() -> Seeds {
    serde_json::from_str(include_str!("../../../tests/data/fuzz.json")).unwrap()
}

/// Runs `check` with values of `strategy`: always the same ones, or new ones for the target's part of the time.
fn fuzz<S: Strategy>(target: &str, strategy: S, check: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Debug,
{
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let Some(seconds) = std::env::var("REDIS_INFER_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()) else {
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        return runner.run(&strategy, check).unwrap_or_else(|error| panic!("{target}: {error}"));
    };
    let (end, slowest) = (Instant::now() + Duration::from_secs(seconds), Cell::new(Duration::ZERO));
    let timed = |value| {
        let begun = Instant::now();
        let checked = check(value);
        slowest.set(slowest.get().max(begun.elapsed()));
        checked
    };
    let mut cases = 0_u64;
    while Instant::now() < end {
        let mut runner = TestRunner::new(config.clone());
        runner.run(&strategy, timed).unwrap_or_else(|error| panic!("{target}: {error}"));
        cases += u64::from(CASES);
    }
    // Past the capture of the test harness.
    let _ =
        writeln!(std::io::stderr(), "{target}: {cases} inputs without a finding, the slowest took {:?}", slowest.get());
}

/// A change of a text.
#[derive(Debug, Clone)]
enum Change {
    Delete(usize, usize),
    Repeat(usize, usize, usize),
    Insert(usize, String),
}

fn change() -> impl Strategy<Value = Change> {
    let signs = select(vec![
        "?",
        "*",
        "+",
        "{2}",
        "{0,2000}",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "|",
        "\"",
        "\\",
        ",",
        ":",
        "\u{6f22}",
        "\u{1f980}",
        "0",
        "9999999999",
        "-1",
        "1e400",
        "::=",
        "\n",
        "#",
        "$ref",
        "allOf",
        "null",
        "true",
        "{}",
        "[]",
        "%",
        "~",
        "/",
    ]);
    prop_oneof![
        (any::<usize>(), 1..40_usize).prop_map(|(at, length)| Change::Delete(at, length)),
        (any::<usize>(), 1..60_usize, 1..3000_usize).prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        (any::<usize>(), signs).prop_map(|(at, text)| Change::Insert(at, text.to_owned())),
        (any::<usize>(), "\\PC{1,4}").prop_map(|(at, text)| Change::Insert(at, text)),
    ]
}

/// One of `seeds`, changed.
fn changed(seeds: Vec<String>, max: usize) -> impl Strategy<Value = String> {
    (select(seeds), prop::collection::vec(change(), 0..6)).prop_map(move |(seed, changes)| {
        let mut text: Vec<char> = seed.chars().collect();
        for change in changes {
            let place = |at: usize| at % (text.len() + 1);
            match change {
                Change::Delete(at, length) => {
                    let at = place(at);
                    text.drain(at..(at + length).min(text.len()));
                }
                Change::Repeat(at, length, times) => {
                    let at = place(at);
                    let piece = text[at..(at + length).min(text.len())].repeat(times);
                    text.splice(at..at, piece);
                }
                Change::Insert(at, more) => {
                    let at = place(at);
                    text.splice(at..at, more.chars());
                }
            }
            text.truncate(max);
        }
        let mut text: String = text.into_iter().collect();
        while text.len() > max {
            text.pop();
        }
        text
    })
}

/// The body of a rule, for rules `a0` to `a9` and the next one in a long chain, `@`.
fn body() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "\"[a-c\u{6f22}]{0,6}\"",
        Just("[a-z0-9]".to_owned()),
        Just("[^\\n]".to_owned()),
        Just(".".to_owned()),
        Just("\"\"".to_owned()),
        (0..10_u8).prop_map(|rule| format!("a{rule}")),
        Just("@".to_owned()),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let signs = prop_oneof![
            "[?*+]{1,40}",
            Just("{2000}".to_owned()),
            (0..20_u32, 0..2000_u32).prop_map(|(least, more)| format!("{{{least},{}}}", (least + more).min(2000))),
            Just("{3,}".to_owned()),
        ];
        prop_oneof![
            (inner.clone(), signs).prop_map(|(item, signs)| format!("({item}){signs}")),
            prop::collection::vec(inner.clone(), 1..6).prop_map(|items| items.join(" ")),
            prop::collection::vec(inner.clone(), 1..6).prop_map(|items| format!("({})", items.join(" | "))),
            (inner, 1..70_usize).prop_map(|(item, deep)| format!("{}{item}{}", "(".repeat(deep), ")".repeat(deep))),
        ]
    })
}

fn grammar() -> impl Strategy<Value = String> {
    let rules = prop::collection::vec(body(), 10);
    (rules, body(), prop_oneof![Just(0_usize), 1..40_usize, 400..2200_usize]).prop_map(|(rules, link, chain)| {
        let mut text = "root ::= a0 | b0\n".to_owned();
        for (rule, body) in rules.iter().enumerate() {
            text += &format!("a{rule} ::= {}\n", body.replace('@', "b0"));
        }
        for rule in 0..chain {
            text += &format!("b{rule} ::= {}\n", link.replace('@', &format!("b{}", rule + 1)));
        }
        text + &format!("b{chain} ::= \"x\"\n")
    })
}

/// A schema with references to definitions `d0` to `d5`.
fn schema() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec![
            "true",
            "false",
            "{}",
            r#"{"type":"integer"}"#,
            r#"{"type":["string","null"]}"#,
            r#"{"const":{"a":[1,"\u6f22"]}}"#
        ])
        .prop_map(str::to_owned),
        (0..6_u8).prop_map(|to| format!(r##"{{"$ref":"#/$defs/d{to}"}}"##)),
        (-9..9_i64, -9..9_i64)
            .prop_map(|(least, most)| format!(r#"{{"type":"number","minimum":{least},"exclusiveMaximum":{most}}}"#)),
        (any::<u32>(), any::<u32>())
            .prop_map(|(least, most)| format!(r#"{{"minLength":{},"maxLength":{most}}}"#, least % 99)),
        select(vec![
            "^a+$",
            "(a{1000}){1000}",
            "[\u{6f22}]{0,9}",
            "((a|b)*c){50}",
            "(x+x+)+y",
            "\\\\d{3}",
            "(?=a)",
            "(",
            "\\\\p{L}*"
        ])
        .prop_map(|pattern| format!(r#"{{"type":"string","pattern":"{pattern}"}}"#)),
        select(vec!["date-time", "uri", "ipv6", "email", "none"])
            .prop_map(|format| format!(r#"{{"format":"{format}","minLength":3}}"#)),
        (1..400_u32).prop_map(|values| format!(
            r#"{{"enum":[{}]}}"#,
            (0..values).map(|v| v.to_string()).collect::<Vec<_>>().join(",")
        )),
        select(vec![
            "pattern",
            "type",
            "items",
            "properties",
            "required",
            "enum",
            "anyOf",
            "$ref",
            "multipleOf",
            "minItems",
            "format"
        ])
        .prop_map(|keyword| format!(r#"{{"{keyword}":["{}"]}}"#, "\u{6f22}".repeat(50))),
        select(vec!["0.001", "1e-300", "1e300", "7", "123456789"])
            .prop_map(|of| format!(r#"{{"type":"number","multipleOf":{of}}}"#)),
    ];
    let schema = leaf.prop_recursive(5, 80, 6, |inner| {
        let several =
            |least: usize| prop::collection::vec(inner.clone(), least..7).prop_map(|schemas| schemas.join(","));
        let named =
            prop::collection::vec((select(vec!["a", "b", "c", "\\u6f22", "\\\"", "allOf"]), inner.clone()), 0..7)
                .prop_map(|named| {
                    named.iter().map(|(name, one)| format!(r#""{name}":{one}"#)).collect::<Vec<_>>().join(",")
                });
        prop_oneof![
            (select(vec!["allOf", "anyOf", "oneOf", "prefixItems", "items"]), several(1))
                .prop_map(|(keyword, schemas)| format!(r#"{{"{keyword}":[{schemas}]}}"#)),
            (several(1), several(1), named.clone()).prop_map(|(all, any, named)| format!(
                r#"{{"allOf":[{all}],"anyOf":[{any}],"properties":{{{named}}}}}"#
            )),
            (named.clone(), select(vec!["[]", r#"["a"]"#, r#"["a","b","z"]"#])).prop_map(|(named, required)| format!(
                r#"{{"type":"object","properties":{{{named}}},"required":{required}}}"#
            )),
            (named, inner.clone()).prop_map(|(named, more)| format!(
                r#"{{"patternProperties":{{{named}}},"additionalProperties":{more}}}"#
            )),
            (inner.clone(), 0..3000_u32, 0..3000_u32).prop_map(|(items, least, most)| format!(
                r#"{{"items":{items},"minItems":{least},"maxItems":{most}}}"#
            )),
            (inner.clone(), 0..6_u8)
                .prop_map(|(schema, to)| format!(r##"{{"$ref":"#/$defs/d{to}","allOf":[{schema}]}}"##)),
            (inner, 1..900_usize).prop_map(|(schema, times)| {
                let schema =
                    if schema.len() * times < limits::GRAMMAR_BYTES_MAX { vec![schema; times] } else { vec![schema] };
                format!(r#"{{"allOf":[{}]}}"#, schema.join(","))
            }),
        ]
    });
    (schema.clone(), prop::collection::vec(schema, 6)).prop_map(|(root, definitions)| {
        let named: Vec<String> = definitions.iter().enumerate().map(|(i, one)| format!(r#""d{i}":{one}"#)).collect();
        format!(r#"{{"allOf":[{root}],"$defs":{{{}}}}}"#, named.join(","))
    })
}

/// Compiles a form, and reads a text with it.
fn check_form(form: OutputForm, text: &str) -> Result<(), TestCaseError> {
    let shared = bytes();
    let (outcome, memory) = with_little_stack(|| {
        most_memory(|| match shared.compile(&form) {
            Ok(mut constraint) => accepts(&mut constraint, text).map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        })
    });
    prop_assert!(memory <= MEMORY_MAX, "{memory} bytes");
    if let Err(error) = outcome {
        prop_assert!(error.is_ascii() && !error.contains("panic") && !error.ends_with(": "), "{error}");
    }
    Ok(())
}

fn short_enough(text: &str) -> bool {
    text.len() <= limits::GRAMMAR_BYTES_MAX
}

#[test]
fn grammars_are_compiled_or_refused() {
    let text = prop_oneof![
        grammar().prop_filter("too long", |text| short_enough(text)),
        changed(seeds().grammar, limits::GRAMMAR_BYTES_MAX)
    ];
    fuzz("GRAMMAR", text, |text| check_form(OutputForm::Grammar(text), "abcabc \u{6f22}x"));
}

#[test]
fn schemas_are_compiled_or_refused() {
    let text = prop_oneof![
        schema().prop_filter("too long", |text| short_enough(text)),
        changed(seeds().schema, limits::GRAMMAR_BYTES_MAX)
    ];
    fuzz("JSONSCHEMA", text, |text| check_form(OutputForm::JsonSchema(text), r#"{"a":1,"b":["x",null]}"#));
}

#[test]
fn filters_are_taken_or_refused() {
    fuzz("FILTER", changed(seeds().filter, 2 * limits::FILTER_MAX), |text| {
        let words: [&[u8]; 4] = [b"index", b"query", b"FILTER", text.as_bytes()];
        match Search::parse(&words) {
            Ok(_) => prop_assert!(filter_effort(&text) >= limits::FILTER_EFFORT_MIN),
            Err(error) => prop_assert!(error.to_string().is_ascii()),
        }
        Ok(())
    });
}

#[test]
fn attributes_are_taken_or_refused() {
    fuzz("ATTRS", changed(seeds().attrs, limits::ATTRS_MAX), |text| {
        match with_little_stack(|| UserAttributes::parse(&text)) {
            Ok(attributes) => prop_assert!(UserAttributes::parse(&attributes.to_json()).is_ok()),
            Err(error) => prop_assert!(error.to_string().is_ascii()),
        }
        Ok(())
    });
}

#[test]
fn conversations_are_rendered_or_refused() {
    const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let template = ChatTemplate::compile(TEMPLATE.to_owned(), "<s>".to_owned(), "</s>".to_owned()).unwrap();
    let content = prop_oneof![
        "\\PC{0,30}",
        Just("<|im_end|>".to_owned()),
        Just("{{ messages }}".to_owned()),
        "[\u{0}-\u{20}\u{e000}-\u{f8ff}]{1,9}"
    ];
    let role = select(vec!["user", "assistant", "system", "USER", "tool", ""]);
    let messages = prop::collection::vec((role, content), 0..40);
    fuzz("messages", messages, |messages| {
        let mut words: Vec<&[u8]> = vec![b"model", b"0"];
        for (role, content) in &messages {
            words.extend([&b"MESSAGE"[..], role.as_bytes(), content.as_bytes()]);
        }
        match Chat::parse(&words) {
            Ok(chat) => {
                let message =
                    |&(role, text): &(_, &str)| Message { role, content: vec![Segment::Text(text.to_owned())] };
                let given: Vec<Message> = chat.messages.iter().map(message).collect();
                if let Ok(prompt) = template.render(&given) {
                    // What somebody wrote is there once, and as text.
                    let texts =
                        |text: &str| prompt.iter().filter(|&one| one == &Segment::Text(text.to_owned())).count();
                    for (_, text) in chat.messages.iter().filter(|(_, text)| !text.is_empty()) {
                        prop_assert!(texts(text) >= 1, "{text:?} in {prompt:?}");
                    }
                }
            }
            Err(error) => prop_assert!(error.to_string().is_ascii()),
        }
        Ok(())
    });
}

#[test]
fn token_blobs_are_taken_or_refused() {
    fuzz("BLOB", (prop::collection::vec(any::<u8>(), 0..4000), any::<u32>()), |(blob, vocabulary)| {
        match token_blob::decode(&blob) {
            Ok(tokens) => {
                prop_assert_eq!(token_blob::encode(&tokens), blob);
                let inside = token_blob::check_vocab(&tokens, vocabulary).is_ok();
                prop_assert_eq!(inside, tokens.iter().all(|&token| token < vocabulary));
            }
            Err(error) => prop_assert!(blob.len() % 4 != 0 && error.to_string().is_ascii()),
        }
        Ok(())
    });
}

#[test]
fn headers_of_model_files_are_taken_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let shape =
        redis_infer_gguf::synthetic::BertShape { layers: 1, embd: 8, ff: 8, ctx_train: 8, ..Default::default() };
    redis_infer_gguf::synthetic::write_bert(&path, &shape, 1).unwrap();
    let model = std::fs::read(&path).unwrap();
    let changes = prop::collection::vec((0..model.len().min(4096), any::<u64>(), 0..64_u32, 1..9_usize), 1..9);
    fuzz("GGUF", (changes, 0..model.len()), |(changes, cut)| {
        let mut bytes = model.clone();
        for (at, number, shift, width) in changes {
            let width = width.min(8).min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&(number >> shift).to_le_bytes()[..width]);
        }
        // A quarter of them is cut off.
        bytes.truncate(if cut % 4 == 0 { cut } else { bytes.len() });
        std::fs::write(&path, &bytes).unwrap();
        let (checked, memory) = with_little_stack(|| most_memory(|| redis_infer_gguf::check_file(&path).map(drop)));
        prop_assert!(memory <= MEMORY_MAX, "{memory} bytes");
        prop_assert!(checked.err().is_none_or(|error| !error.to_string().is_empty()));
        Ok(())
    });
}
