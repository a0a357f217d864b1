//! Inputs with which one ordinary client once ended, stalled or bloated a server, in their full size.
//!
//! `make hostile` sends each to a server of its own and prints what came of it; `make soak` mixes the smaller ones into its
//! lines, where they must be answered like any other.

use crate::Line;

/// A line from words.
fn line(words: &[&[u8]]) -> Line {
    words.iter().map(|word| word.to_vec()).collect()
}

fn generate(model: &str, option: &str, form: &str) -> Line {
    line(&[
        b"INFER.GENERATE",
        model.as_bytes(),
        b"0",
        b"TEXT",
        b"x",
        b"MAXTOKENS",
        b"4",
        option.as_bytes(),
        form.as_bytes(),
    ])
}

/// 1,800 rules in a row, each the next one with 28 `?`: deep for whoever follows references by calling itself.
#[must_use]
pub fn chain_of_rules() -> Line {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let name = |rule: usize| {
        let letter = |at: usize| char::from(LETTERS.get(at % LETTERS.len()).copied().unwrap_or(b'a'));
        [letter(rule / LETTERS.len()), letter(rule)].iter().collect::<String>()
    };
    let signs = "?".repeat(28);
    let rules: Vec<String> = (0..1800).map(|rule| format!("{}::={}{signs}\n", name(rule), name(rule + 1))).collect();
    generate("chat", "GRAMMAR", &format!("root::={}\n{}{}::=\"a\"", name(0), rules.concat(), name(1800)))
}

/// 65,000 signs behind one item, for a model that is not there.
#[must_use]
pub fn signs_without_end() -> Line {
    generate("none", "GRAMMAR", &format!("root::=\"a\"{}", "?".repeat(65_000)))
}

/// 43 KB: 700 times two references, to be brought together with 1,700 properties.
#[must_use]
pub fn schema_that_multiplies() -> Line {
    let choices = vec![r##"{"anyOf":[{"$ref":"#/a"},{"$ref":"#/b"}]}"##; 700].join(",");
    let properties: Vec<String> = (0..1700).map(|number| format!("\"{number}\":{{}}")).collect();
    let ends = r#""a":{"required":["1"]},"b":{"required":["2"]}"#;
    let properties = properties.join(",");
    generate("chat", "JSONSCHEMA", &format!("{{\"allOf\":[{choices}],\"properties\":{{{properties}}},{ends}}}"))
}

/// 20 million token ids where about a million are allowed.
#[must_use]
pub fn twenty_million_ids() -> Line {
    line(&[b"INFER.DETOKENIZE", b"chat", b"0", b"BLOB", &b"a\0\0\0".repeat(20_000_000)])
}

/// 64 texts of 8 MB, none of which a model of this kind reads.
#[must_use]
pub fn many_long_texts() -> Line {
    let text = "seven words that say next to nothing ".repeat((8 << 20) / 37).into_bytes();
    let mut line = line(&[b"INFER.EMBED", b"embed", b"64"]);
    line.extend(std::iter::repeat_n(text, 64));
    line
}

/// A text of 2 MB, which takes a moment to tokenize.
#[must_use]
pub fn long_text() -> Line {
    line(&[b"INFER.TOKENIZE", b"chat", "lorem ipsum dolor sit amet 12345 ".repeat((2 << 20) / 33).as_bytes()])
}

/// 300,000 messages where 1,024 are allowed.
#[must_use]
pub fn too_many_messages() -> Line {
    let mut line = line(&[b"INFER.CHAT", b"chat", b"0"]);
    for _ in 0..300_000 {
        line.extend([b"MESSAGE".to_vec(), b"user".to_vec(), b"hi".to_vec()]);
    }
    line
}

/// A pattern, as it must not be written, of characters of three bytes.
#[must_use]
pub fn pattern_that_is_no_text() -> Line {
    generate("chat", "JSONSCHEMA", &format!("{{\"type\":\"string\",\"pattern\":[\"{}\"]}}", "漢".repeat(200)))
}

/// Those that a client may send again and again.
#[must_use]
pub fn for_a_soak() -> Vec<Line> {
    vec![
        chain_of_rules(),
        signs_without_end(),
        schema_that_multiplies(),
        line(&[b"INFER.DETOKENIZE", b"chat", b"0", b"BLOB", &b"a\0\0\0".repeat(2_000_000)]),
        line(&[b"INFER.EMBED", b"embed", b"2", &[b'w'; 5 << 20], &[b'w'; 5 << 20]]),
        long_text(),
        too_many_messages(),
        pattern_that_is_no_text(),
        line(&[b"INFER.INDEXINFO", b"users"]),
    ]
}
