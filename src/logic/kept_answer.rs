//! An answer of `INFER.RAG` that is kept for the next who asks: what it depends on besides its question, and what is stored of it.

use serde::{Deserialize, Serialize};

use super::options::{Budget, GenerateOptions, Kv, Selection};

/// What an answer depends on besides its question and the documents.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// Tells the answering model, as it was loaded, from every other.
    pub generator: String,
    /// The same of the reranker.
    pub reranker: Option<String>,
    /// Which chunks are looked for.
    pub selection: &'a Selection,
    /// How many of them go into the prompt.
    pub budget: Budget,
    /// How they are read.
    pub kv: Kv,
    /// How the answer is made.
    pub options: &'a GenerateOptions,
    /// The system text.
    pub system: &'a str,
    /// `SCOPE`.
    pub scope: &'a [u8],
}

impl Circumstances<'_> {
    /// All of it in bytes, which are the same only where all of it is. They are compared, not hashed, so nobody can make up
    /// circumstances that pass for those of somebody else.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { generator, reranker, selection, budget, kv, options, system, scope } = self;
        // Everything else changes what is told of an answer, not the answer. Taken apart, so that a new option is not forgotten.
        let GenerateOptions {
            max_tokens,
            sampling,
            form,
            stop,
            timeout: _,
            with_tokens: _,
            logprobs: _,
            with_stats: _,
        } = options;
        // Texts are quoted here, and so there is no line end.
        let quoted = (generator, reranker, selection, budget, kv, max_tokens, sampling, form, stop, system.len());
        [format!("{quoted:?}\n").as_bytes(), system.as_bytes(), scope].concat()
    }
}

/// The scope of an entry: an answer is found only where documents and circumstances are what they were.
///
/// `version` is another one with each change of a document, and has no space in it.
pub fn scope(version: &str, circumstances: &[u8]) -> Vec<u8> {
    [version.as_bytes(), b" ", circumstances].concat()
}

/// What is stored of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The text.
    pub text: String,
    /// Why it ended, the word in replies.
    pub finish_reason: String,
    /// What it was made from, and what there was no room for; best first.
    pub sources: Vec<Source>,
}

/// A piece of a document in the prompt of an answer, or one for which there was no room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Id of its best chunk.
    pub id: String,
    /// The document.
    pub path: String,
    /// Numbers of its chunks, from 0.
    pub chunks: Vec<u32>,
    /// First and last line in the document, from 1.
    pub lines: (u32, u32),
    /// Similarity of its best chunk, 0 to 1.
    #[serde(with = "to_its_last_digit")]
    pub score: f64,
    /// What a reranker gave its best chunk; `None` without one.
    pub rerank_score: Option<f32>,
    /// What it takes of the prompt, or would have.
    pub tokens: usize,
    /// Whether it is in the prompt.
    pub used: bool,
}

impl KeptAnswer {
    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Fails for maps whose keys are no strings, and there is none.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From JSON; `None` if it is something else.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// A number as text: that of JSON is read back with another last digit.
mod to_its_last_digit {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::logic::options::{OutputForm, Sampling};

    #[test]
    fn whatever_changes_an_answer_changes_the_circumstances() {
        let options = GenerateOptions::default();
        let with = |change: fn(&mut GenerateOptions)| {
            let mut options = options.clone();
            change(&mut options);
            options
        };
        let many = [
            options.clone(),
            with(|o| o.max_tokens = 7),
            with(|o| o.sampling.temperature = 0.0),
            with(|o| o.sampling.top_k = 1),
            with(|o| o.sampling.top_p = 0.5),
            with(|o| o.sampling.min_p = 0.5),
            with(|o| o.sampling.penalties.repeat = 1.5),
            with(|o| o.sampling.penalties.last_n = 7),
            with(|o| o.sampling.penalties.presence = 0.5),
            with(|o| o.sampling.penalties.frequency = 0.5),
            with(|o| o.sampling.logit_bias = vec![(1, 1.0)]),
            with(|o| o.sampling.seed = Some(1)),
            with(|o| o.form = Some(OutputForm::Grammar("root ::= \"a\"".into()))),
            with(|o| o.form = Some(OutputForm::JsonSchema(r#"{"type":"integer"}"#.into()))),
            with(|o| o.stop = vec!["a".into(), "b".into()]),
            with(|o| o.stop = vec!["a\", \"b".into()]),
        ];
        let selection = Selection::default();
        let of = |options| Circumstances {
            generator: "chat".into(),
            reranker: None,
            selection: &selection,
            budget: Budget::All,
            kv: Kv::Exact,
            options,
            system: "be brief",
            scope: b"a",
        };
        let mut all: Vec<Vec<u8>> = many.iter().map(|options| of(options).to_bytes()).collect();
        let selections = [
            Selection { k: 7, ..selection.clone() },
            Selection { filter: Some("1".into()), ..selection.clone() },
            Selection { ef: Some(7), ..selection.clone() },
            Selection { min_score: 0.5, ..selection.clone() },
            Selection { rerank: Some("r".into()), ..selection.clone() },
        ];
        all.extend(selections.iter().map(|selection| Circumstances { selection, ..of(&options) }.to_bytes()));
        let others = [
            Circumstances { generator: "other".into(), ..of(&options) },
            Circumstances { reranker: Some("other".into()), ..of(&options) },
            Circumstances { budget: Budget::Auto, ..of(&options) },
            Circumstances { budget: Budget::Tokens(9), ..of(&options) },
            Circumstances { kv: Kv::Chunk { reread: 0 }, ..of(&options) },
            Circumstances { kv: Kv::Chunk { reread: 1 }, ..of(&options) },
            Circumstances { system: "be brie", scope: b"fa", ..of(&options) },
            Circumstances { system: "be\nbrief", ..of(&options) },
            Circumstances { scope: b"b", ..of(&options) },
            Circumstances { scope: b"", ..of(&options) },
        ];
        all.extend(others.iter().map(Circumstances::to_bytes));
        let number = all.len();
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), number);
    }

    #[test]
    fn what_is_told_of_an_answer_and_how_long_one_waits_changes_nothing() {
        let selection = Selection::default();
        let of = |options: &GenerateOptions| {
            let (generator, reranker, budget) = ("chat".into(), None, Budget::All);
            let (kv, system, scope) = (Kv::Exact, "", &b""[..]);
            Circumstances { generator, reranker, selection: &selection, budget, kv, options, system, scope }.to_bytes()
        };
        let (timeout, sampling) = (Some(Duration::from_secs(1)), Sampling::default());
        let told = GenerateOptions { timeout, with_stats: true, sampling, ..GenerateOptions::default() };
        assert_eq!(of(&told), of(&GenerateOptions::default()));
    }

    #[test]
    fn other_documents_have_another_scope() {
        assert_ne!(scope("1.2", b"a"), scope("1.3", b"a"));
        assert_ne!(scope("1.2", b"3 a"), scope("1.23", b"a"));
    }

    #[test]
    fn what_is_no_kept_answer_is_none() {
        for json in ["", "null", "{}", "[]", r#"{"text":"a","finish_reason":"eos"}"#, "\u{0}"] {
            assert_eq!(KeptAnswer::from_json(json.as_bytes()), None, "{json:?}");
        }
        let source =
            r#"{"id":"a","path":"a","chunks":[],"lines":[1,1],"score":"x","rerank_score":null,"tokens":1,"used":true}"#;
        let json = format!(r#"{{"text":"a","finish_reason":"eos","sources":[{source}]}}"#);
        assert_eq!(KeptAnswer::from_json(json.as_bytes()), None);
        assert!(KeptAnswer::from_json(json.replace("\"x\"", "\"0.5\"").as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn an_answer_is_read_back_as_it_was(
            texts in any::<(String, String, String)>(), chunks in prop::collection::vec(any::<u32>(), 0..4),
            lines in any::<(u32, u32)>(), score in 0.0_f64..1.0, rerank_score in prop::option::of(-20.0_f32..20.0),
            tokens in 0_usize..1 << 20, used in any::<bool>(), count in 0_usize..3
        ) {
            let (text, id, path) = texts;
            let source = Source { id, path, chunks, lines, score, rerank_score, tokens, used };
            let answer = KeptAnswer { text, finish_reason: "eos".into(), sources: vec![source; count] };
            prop_assert_eq!(KeptAnswer::from_json(&answer.to_json()), Some(answer));
        }
    }
}
