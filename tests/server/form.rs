//! Answers of a given form: `GRAMMAR` and `JSONSCHEMA`.

use crate::harness::{CHAT, Client, Server, cmd, field, report, required, text};

/// The answer of the tiny model, which by itself writes anything.
fn answer(client: &mut Client, form: &[&str; 2], seed: u32) -> String {
    client.text(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 100, "SEED", seed, form])
}

fn greedy(client: &mut Client, form: &[&str; 2]) -> String {
    client.text(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 100, "TEMP", 0, form])
}

/// Nobody can know `root` by heart.
const LIST: &str = r#"root ::= item ("," item){2}
item ::= [a-c]{1,3} | "\u00e9\U0001F980" # two characters of several bytes
"#;

fn is_list(answer: &str) -> bool {
    let is_item = |item: &str| {
        item == "\u{e9}\u{1f980}"
            || (!item.is_empty() && item.len() <= 3 && item.bytes().all(|b| (b'a'..=b'c').contains(&b)))
    };
    answer.split(',').count() == 3 && answer.split(',').all(is_item)
}

#[test]
fn a_grammar_holds_at_any_temperature_and_ends_the_answer() {
    let server = Server::with(&[CHAT]);
    for mut client in [server.client(), server.resp3()] {
        assert!(is_list(&greedy(&mut client, &["GRAMMAR", LIST])));
        for seed in 0..50 {
            let answer = answer(&mut client, &["GRAMMAR", LIST], seed);
            assert!(is_list(&answer), "{answer}");
        }
        let stats = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "GRAMMAR", LIST, "WITHSTATS"];
        assert_eq!(text(field(&client.ok(&stats), "finish_reason")), "eos");
    }
}

#[test]
fn literals_that_share_a_beginning_stay_open() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let grammar = r#"root ::= "a" "bc" | "ab" "d""#;
    // Two ids that the vocabulary has for bytes.
    for (letter, expected) in [("99", "abc"), ("100", "abd")] {
        let biased =
            cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "TEMP", 0, "GRAMMAR", grammar, "LOGITBIAS", 1, letter, 50];
        assert_eq!(client.text(&biased), expected);
    }
}

#[test]
fn left_recursion_and_the_empty_text_are_grammars_too() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let grown = greedy(&mut client, &["GRAMMAR", r#"root ::= root "a" | "b""#]);
    assert!(grown.starts_with('b') && grown[1..].bytes().all(|byte| byte == b'a'), "{grown}");
    assert_eq!(greedy(&mut client, &["GRAMMAR", r#"root ::= """#]), "");
}

#[test]
fn a_stop_string_still_ends_an_answer_of_a_form() {
    let server = Server::with(&[CHAT]);
    let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "GRAMMAR", r#"root ::= "abc" "def""#, "STOP", 1, "cd"];
    assert_eq!(server.client().text(&command), "ab");
}

#[test]
fn a_form_that_cannot_be_used_is_an_error_that_says_why() {
    let server = Server::with(&[CHAT]);
    for mut client in [server.client(), server.resp3()] {
        let nested = format!("root ::= {}", "(".repeat(60_000));
        let repeated = r#"root ::= ((("ab"?){2000}){2000}){2000}"#;
        // Once it ended the server by a stack overflow.
        let next = |rule: usize| format!("a{rule}::=a{}{}\n", rule + 1, "?".repeat(28));
        let chain = (0..1400).fold("root::=a0\n".to_owned(), |grammar, rule| grammar + &next(rule)) + "a1400::=.";
        // And this took 800 MiB.
        let references = vec![r##"{"anyOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}]}"##; 700].join(",");
        let properties: Vec<String> = (0..900).map(|i| format!(r#""p{i}":{{}}"#)).collect();
        let combined = format!(
            r#"{{"allOf":[{references}],"properties":{{{}}},"$defs":{{"a":{{"required":["p1"]}},"b":{{"required":["p2"]}}}}}}"#,
            properties.join(",")
        );
        let wrong_pattern = format!(r#"{{"type":"string","pattern":["{}"]}}"#, "\u{6f22}".repeat(60));
        let deep_schema = format!("{}1{}", r#"{"not":"#.repeat(100), "}".repeat(100));
        for (option, form, text) in [
            ("GRAMMAR", nested.as_str(), "GRAMMAR: line 1: parentheses are nested more than 64 deep"),
            ("GRAMMAR", "a ::= b", "GRAMMAR: line 1: rule 'b' is not defined"),
            ("GRAMMAR", "a ::= \"b\"", "GRAMMAR: line 1: there is no rule 'root'"),
            ("GRAMMAR", "root ::= root", "GRAMMAR cannot be used: "),
            ("GRAMMAR", "root ::= root \"a\"", "GRAMMAR cannot be used: "),
            ("JSONSCHEMA", "{'a'}", "JSONSCHEMA: not JSON at line 1 column 2"),
            ("JSONSCHEMA", deep_schema.as_str(), "JSONSCHEMA: nested more than 64 deep"),
            ("JSONSCHEMA", "false", "JSONSCHEMA cannot be used: "),
            ("JSONSCHEMA", r##"{"$ref":"#"}"##, "JSONSCHEMA cannot be used: "),
            ("JSONSCHEMA", r##"{"$ref":"#/none"}"##, "JSONSCHEMA cannot be used: "),
            ("JSONSCHEMA", r#"{"$ref":"file:///etc/passwd"}"#, "JSONSCHEMA cannot be used: "),
            ("JSONSCHEMA", r#"{"type":"nothing"}"#, "JSONSCHEMA cannot be used: "),
            ("JSONSCHEMA", r#"{"type":"string","pattern":"("}"#, "JSONSCHEMA cannot be used: "),
            (
                "JSONSCHEMA",
                r#"{"type":"object","dependentSchemas":{"a":false}}"#,
                "JSONSCHEMA cannot be used: 'dependentSchemas' cannot be enforced",
            ),
            // These went on for minutes, when their client had long left.
            (
                "JSONSCHEMA",
                r#"{"type":"integer","multipleOf":9999991}"#,
                "JSONSCHEMA: the values of 'multipleOf' come to more than 50000 together",
            ),
            (
                "JSONSCHEMA",
                r#"{"type":"string","allOf":[{"pattern":".*a.{8}.*"},{"pattern":".*b.{8}.*"}]}"#,
                "JSONSCHEMA cannot be used: of 'pattern', 'format' and 'multipleOf' only one can be enforced for one value",
            ),
            (
                "GRAMMAR",
                "root::=a{0,2000}\na::=b{0,2000}\nb::=\"c\"",
                "GRAMMAR: line 1: repetitions inside repetitions, also through the names of rules, come to more than 100000 items",
            ),
            ("JSONSCHEMA", wrong_pattern.as_str(), "JSONSCHEMA cannot be used: 'pattern' must be a string"),
            ("GRAMMAR", chain.as_str(), "rules, parentheses and repetitions are nested more than 512 deep"),
            (
                "JSONSCHEMA",
                combined.as_str(),
                "JSONSCHEMA: schemas that 'allOf', 'anyOf', 'oneOf' and '$ref' bring together are combined more than 128 deep",
            ),
        ] {
            client.refused(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", option, form], "ERR", text);
            client.assert_in_step();
        }
        // Larger than anybody needs: refused, or answered within the limits; never a hang.
        let _ = client.call(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "GRAMMAR", repeated, "MAXTOKENS", 4]);
        client.assert_in_step();
    }
    assert_eq!(server.requests("chat"), 0);
}

#[test]
fn a_form_is_not_looked_at_before_the_model_is_found() {
    let server = Server::start();
    let mut client = server.client();
    for (option, form) in [("GRAMMAR", "root ::= ("), ("JSONSCHEMA", "{")] {
        client.refused(&cmd!["INFER.GENERATE", "none", 0, "TEXT", "x", option, form], "NOMODEL", "no model 'none'");
    }
}

/// A schema, and whether a text is what it describes.
struct Described {
    schema: serde_json::Value,
    validator: jsonschema::Validator,
}

impl Described {
    fn new(schema: &str) -> Self {
        let schema = serde_json::from_str(schema).unwrap();
        Self { validator: jsonschema::validator_for(&schema).unwrap(), schema }
    }

    #[track_caller]
    fn assert_describes(&self, answer: &str) {
        let value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        if let Err(error) = self.validator.validate(&value) {
            panic!("{error}: {answer}");
        }
    }
}

const PERSON: &str = r#"{"type":"object","properties":{"name":{"type":"string","minLength":1,"maxLength":12},
    "age":{"type":"integer","minimum":0,"maximum":120},"likes":{"enum":["tea","coffee",null]}},
    "required":["name","age","likes"]}"#;

/// A list whose type is that of its rest.
const CHAIN: &str = r##"{"$defs":{"link":{"type":"object","properties":{"v":{"type":"boolean"},
    "rest":{"anyOf":[{"$ref":"#/$defs/link"},{"type":"null"}]}},"required":["v","rest"],"additionalProperties":false}},
    "$ref":"#/$defs/link"}"##;

#[test]
fn a_random_model_writes_json_of_the_schema() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for schema in
        [PERSON, CHAIN, r#"{"type":"array","items":{"type":"integer","minimum":-5,"maximum":5},"maxItems":4}"#]
    {
        let described = Described::new(schema);
        let schema = described.schema.to_string();
        let mut whole = 0;
        for seed in 0..20 {
            let command = cmd![
                "INFER.GENERATE",
                "chat",
                0,
                "TEXT",
                "x",
                "MAXTOKENS",
                200,
                "SEED",
                seed,
                "JSONSCHEMA",
                &schema,
                "WITHSTATS"
            ];
            let reply = client.ok(&command);
            // What MAXTOKENS cuts off is not JSON, and the reply says so.
            if text(field(&reply, "finish_reason")) == "eos" {
                described.assert_describes(text(field(&reply, "text")));
                whole += 1;
            }
        }
        assert!(whole > 5, "only {whole} answers came to their end");
    }
}

#[test]
fn smollm_writes_json_of_the_schema_a_hundred_times_out_of_a_hundred() {
    let server = Server::start();
    let path = required("REDIS_INFER_CHAT_MODEL");
    server.client().ok(&cmd!["INFER.LOAD", "m", path.to_str().unwrap(), "CTX", 512]);
    let described = Described::new(PERSON);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (server, described) = (&server, &described);
            scope.spawn(move || {
                let mut connection = server.client();
                for seed in (client..100).step_by(4) {
                    let prompt = "Invent a person. Answer with JSON.";
                    described.assert_describes(&connection.text(&cmd![
                        "INFER.GENERATE",
                        "m",
                        0,
                        "TEXT",
                        prompt,
                        "SEED",
                        seed,
                        "MAXTOKENS",
                        128,
                        "JSONSCHEMA",
                        PERSON
                    ]));
                }
            });
        }
    });
    report("JSONSCHEMA: 100 of 100 answers of SmolLM2 parse and validate");
}
