//! The arguments of each command as a struct that is valid once it exists: `parse` checks all there is to check without
//! Redis and without a model.

mod cache;
mod chat;
mod embed;
mod form;
mod generate;
mod index;
mod load;
mod rag;
mod rerank;
mod search;
mod startup;
mod tokens;

pub use cache::{CacheDel, CacheGet, CacheInfo, CacheSet};
pub use chat::Chat;
pub use embed::{Embed, EmbedFormat};
pub use form::{FormError, OutputForm, PlainForm};
pub use generate::{Generate, GenerateOptions, Sampling};
pub use index::{CreateIndex, Forget, IndexName, Ingest, Kv, Quant, Reindex};
pub use load::{KvType, LoadOptions, Lora, ModelKind, ModelName, Pooling, Speculation, Unload};
pub use rag::{Budget, Caching, Rag};
pub use rerank::Rerank;
pub use search::{Search, Selection, filter_effort};
pub use startup::models_at_start;
pub use tokens::{Detokenize, Tokenize, TokenizeStore};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logic::args::ArgError;

    /// Parses the words of `line` with a command's parser. Quotes have no meaning; `''` is the empty argument.
    pub(super) fn with_words<T>(line: &str, parse: impl FnOnce(&[&[u8]]) -> T) -> T {
        let words: Vec<&[u8]> =
            line.split_whitespace().map(|word| if word == "''" { &b""[..] } else { word.as_bytes() }).collect();
        parse(&words)
    }

    type Check = fn(&[&[u8]]) -> Result<(), ArgError>;

    const ALL: [Check; 21] = [
        |args| LoadOptions::parse(args).map(drop),
        |args| ModelName::parse(args).map(|_| ()),
        |args| Unload::parse(args).map(|_| ()),
        |args| IndexName::parse("INFER.INDEXINFO", args).map(|_| ()),
        |args| Reindex::parse(args).map(|_| ()),
        |args| CacheDel::parse(args).map(drop),
        |args| CacheInfo::parse(args).map(drop),
        |args| Tokenize::parse(args).map(|_| ()),
        |args| TokenizeStore::parse(args).map(|_| ()),
        |args| Detokenize::parse(args).map(drop),
        |args| Generate::parse(args).map(drop),
        |args| Embed::parse(args).map(drop),
        |args| CreateIndex::parse(args).map(|_| ()),
        |args| Ingest::parse(args).map(|_| ()),
        |args| Forget::parse(args).map(|_| ()),
        |args| Search::parse(args).map(drop),
        |args| Rag::parse(args).map(drop),
        |args| CacheGet::parse(args).map(drop),
        |args| CacheSet::parse(args).map(drop),
        |args| Chat::parse(args).map(drop),
        |args| Rerank::parse(args).map(drop),
    ];

    /// Where the names of all options and of their values stand.
    const PARSERS: [&str; 10] = [
        include_str!("cache.rs"),
        include_str!("chat.rs"),
        include_str!("embed.rs"),
        include_str!("generate.rs"),
        include_str!("index.rs"),
        include_str!("load.rs"),
        include_str!("rag.rs"),
        include_str!("rerank.rs"),
        include_str!("search.rs"),
        include_str!("tokens.rs"),
    ];

    /// Mostly words of the grammar, so that many lines get far.
    fn argument() -> impl Strategy<Value = Vec<u8>> {
        let is_option =
            |word: &&str| !word.is_empty() && word.bytes().all(|b| b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0189_".contains(&b));
        let mut words: Vec<&str> = PARSERS.iter().flat_map(|parser| parser.split('"')).filter(is_option).collect();
        words.sort_unstable();
        words.dedup();
        assert!(["LOGITBIAS", "TEXT", "Q8_0"].iter().all(|known| words.contains(known)), "{words:?}");
        // The rest is made of these; they come as often as all options together.
        let others = "m 0 1 2 3 20 -1 0.5 1e99 nan user assistant root::=[a] true {}".split(' ');
        let others: Vec<Vec<u8>> = others.map(|word| word.as_bytes().to_vec()).collect();
        let words: Vec<Vec<u8>> = words.into_iter().map(|word| word.as_bytes().to_vec()).collect();
        prop_oneof![
            5 => prop::sample::select(words),
            4 => prop::sample::select(others),
            1 => prop::collection::vec(any::<u8>(), 0..6)
        ]
    }

    #[test]
    fn every_command_needs_arguments_and_most_more_than_one() {
        for (number, parse) in ALL.iter().enumerate() {
            let text = parse(&[]).unwrap_err().to_string();
            assert!(text.starts_with("wrong number of arguments"), "{number}: {text}");
        }
        for parse in &ALL[7..] {
            parse(&[b"m"]).unwrap_err();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn no_argument_is_ignored(given in prop::collection::vec(argument(), 0..9)) {
            let mut args: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
            for parse in ALL {
                if parse(&args).is_ok() {
                    args.push(b"SURPLUS");
                    // One argument is INFER.LOAD's path, two are name and path; everything else refuses the word.
                    prop_assert!(args.len() == 2 || parse(&args).is_err());
                    args.pop();
                }
            }
        }

        #[test]
        fn error_texts_are_one_line_of_printable_ascii(given in prop::collection::vec(argument(), 0..9)) {
            let args: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
            for parse in ALL {
                if let Err(error) = parse(&args) {
                    prop_assert!(error.to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                }
            }
        }
    }
}
