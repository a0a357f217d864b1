//! Forms with a vocabulary of single bytes: what is accepted, what is refused, and with how much stack and memory.

use super::*;
use crate::engine::threads::STACK;

/// The id of the token that ends an answer.
const END: u32 = 256;

/// One token for each byte, and one that ends an answer.
pub(in crate::engine) fn bytes() -> Shared {
    let mut words: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    words.push(Vec::new());
    Shared::of(&words, vec![END]).unwrap()
}

pub(in crate::engine) fn grammar(text: &str) -> OutputForm {
    OutputForm::Grammar(text.to_owned())
}

pub(in crate::engine) fn schema(text: &str) -> OutputForm {
    OutputForm::JsonSchema(text.to_owned())
}

/// Whether `text` is an answer of this form; an error when it is too much work to tell.
pub(in crate::engine) fn accepts(constraint: &mut Constraint, text: &str) -> Result<bool, EngineError> {
    for token in text.bytes().map(u32::from) {
        if !constraint.allows(token)? {
            return Ok(false);
        }
        constraint.accept(token)?;
    }
    constraint.allows(END)
}

/// Runs `work` with a quarter of the stack of an engine thread.
pub(in crate::engine) fn with_little_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK / 4).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap()
    })
}

/// What it comes to: compiled, or the text of the error.
fn outcome(form: &OutputForm) -> Result<(), String> {
    bytes().compile(form).map(drop).map_err(|error| error.to_string())
}

#[test]
fn the_deepest_grammars_need_less_than_a_quarter_of_the_stack() {
    let chain = |rules: usize, body: &dyn Fn(usize) -> String| {
        let rules: String = (0..rules).map(|rule| format!("a{rule} ::= {}\n", body(rule + 1))).collect();
        format!("root ::= a0\n{rules}")
    };
    for form in [
        chain(511, &|next| format!("a{next} |")) + "a511 ::= \"x\"",
        chain(100, &|next| format!("((a{next}?){{1,3}} \"y\")")) + "a100 ::= \"x\"",
        chain(255, &|next| format!("(a{next} \"y\" | a{next})")) + "a255 ::= \"x\"",
        format!("root ::= {}\"x\"{}", "(".repeat(64), "{1,2})?".repeat(64)),
        format!("root ::= .{}", "{2}".repeat(64)),
    ] {
        let compiled = with_little_stack(|| outcome(&grammar(&form)));
        // Some are too much work, but none is too deep.
        let text = compiled.err().unwrap_or_default();
        assert!(!text.contains("nested more") && !text.contains("panic"), "{text}");
    }
}

#[test]
fn the_deepest_schemas_need_less_than_a_quarter_of_the_stack() {
    let chain = |links: usize, body: &dyn Fn(String) -> String, last: &str| {
        let links: Vec<String> = (0..links)
            .map(|link| format!(r#""d{link}":{}"#, body(format!(r##"{{"$ref":"#/$defs/d{}"}}"##, link + 1))))
            .collect();
        let number = links.len();
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d{number}":{last}}}}}"##, links.join(","))
    };
    let properties: Vec<String> = (0..1024).map(|i| format!(r#""p{i}":{{}}"#)).collect();
    for form in [
        chain(126, &|next| format!(r#"{{"items":{next}}}"#), "{}"),
        chain(126, &|next| format!(r#"{{"properties":{{"a":{next}}}}}"#), "{}"),
        chain(126, &|next| format!(r#"{{"type":"object","additionalProperties":{next}}}"#), "{}"),
        chain(120, &|next| format!(r#"{{"anyOf":[{next},{{"type":"null"}}]}}"#), "{}"),
        chain(60, &|next| format!(r#"{{"minItems":1,"allOf":[{next},{{"maxItems":5}}]}}"#), r#"{"type":"array"}"#),
        format!("{}{{}}{}", r#"{"items":"#.repeat(63), "}".repeat(63)),
        format!(r#"{{"properties":{{{}}}}}"#, properties.join(",")),
        format!(r#"{{"type":"string","pattern":"{}a{}"}}"#, "(".repeat(120), "x?)*".repeat(120)),
        format!(r#"{{"const":{}1{}}}"#, "[".repeat(62), "]".repeat(62)),
    ] {
        let compiled = with_little_stack(|| outcome(&schema(&form)));
        let text = compiled.err().unwrap_or_default();
        assert!(!text.contains("deep") && !text.contains("panic"), "{text}");
    }
}

#[test]
fn a_panic_of_the_compiler_is_an_error_in_words() {
    assert_eq!(
        reason(&"panic: assertion failed\n<backtrace>"),
        "its parts are too large for the compiler; make it simpler"
    );
}

#[test]
fn a_form_of_too_many_symbols_is_an_error_in_words() {
    // With 16 bits for their numbers llguidance would panic.
    let properties: Vec<String> = (0..700).map(|i| format!(r#""p{i}":{{"enum":[[1,2,3,4,5,6,7]]}}"#)).collect();
    let objects: Vec<String> =
        (0..2).map(|i| format!(r#""o{i}":{{"properties":{{{}}}}}"#, properties.join(","))).collect();
    let text = outcome(&schema(&format!(r#"{{"properties":{{{}}}}}"#, objects.join(",")))).err().unwrap_or_default();
    assert!(!text.contains("panic") && !text.contains("compiler"), "{text}");
}

#[test]
fn an_object_of_one_allof_does_not_open_the_others() {
    let form = schema(
        r##"{"$defs":{"A":{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]}},
            "type":"object","properties":{"a":{"allOf":[{"$ref":"#/$defs/A"}]},"b":{"$ref":"#/$defs/A"},
            "c":{"allOf":[{"$ref":"#/$defs/A"},{"properties":{"y":{"type":"null"}}}]}}}"##,
    );
    let shared = bytes();
    for (text, valid) in [
        (r#"{"a":{"x":1},"b":{"x":2},"c":{"x":3,"y":null}}"#, true),
        (r#"{"a":{"x":1,"z":1}}"#, false),
        (r#"{"b":{"x":1,"z":1}}"#, false),
        (r#"{"c":{"x":1,"z":1}}"#, false),
        (r#"{"c":{"x":1,"y":2}}"#, false),
        (r#"{"a":{"x":1},"z":1}"#, false),
    ] {
        assert_eq!(accepts(&mut shared.compile(&form).unwrap(), text), Ok(valid), "{text}");
    }
}

/// A line of `tests/data/schemas.json`: with `refused`, a word of the refusal, else answers that it allows and others.
#[derive(serde::Deserialize)]
struct Case {
    about: String,
    schema: serde_json::Value,
    #[serde(default)]
    valid: Vec<serde_json::Value>,
    #[serde(default)]
    invalid: Vec<serde_json::Value>,
    refused: Option<String>,
}

#[test]
fn two_hundred_schemas_are_answered_by_the_standard_or_refused_in_words() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/data/schemas.json")).unwrap();
    assert!(cases.len() >= 200);
    let shared = bytes();
    let mut wrong = Vec::new();
    for case in &cases {
        let compiled = |_| shared.compile(&schema(&case.schema.to_string())).map_err(|error| error.to_string());
        if let Some(word) = &case.refused {
            match compiled(()) {
                Ok(_) => wrong.push(format!("{}: not refused", case.about)),
                Err(text) if text.contains(word) && text.is_ascii() && !text.contains("panic") => {}
                Err(text) => wrong.push(format!("{}: {text}", case.about)),
            }
            continue;
        }
        let standard = jsonschema::validator_for(&case.schema).unwrap();
        let valid = case.valid.iter().map(|answer| (answer, true));
        for (answer, valid) in valid.chain(case.invalid.iter().map(|answer| (answer, false))) {
            if valid && !standard.is_valid(answer) {
                wrong.push(format!("{}: the standard forbids {answer}", case.about));
            }
            match compiled(()) {
                Ok(mut constraint) => match accepts(&mut constraint, &answer.to_string()) {
                    Ok(accepted) if accepted == valid => {}
                    Ok(accepted) => wrong.push(format!("{}: {answer} is allowed: {accepted}", case.about)),
                    Err(error) => wrong.push(format!("{}: {answer}: {error}", case.about)),
                },
                Err(text) => {
                    wrong.push(format!("{}: {text}", case.about));
                    break;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
