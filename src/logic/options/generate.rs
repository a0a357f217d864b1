//! `INFER.GENERATE`, and the generation options that other commands have too.

// A span of time, not a clock.
use core::time::Duration;

use crate::logic::adjust::Penalties;
use crate::logic::args::{ArgError, Args, Keyword, non_empty, utf8};
use crate::logic::limits;
use crate::logic::options::form::OutputForm;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// `TEMP`; 0 takes the most likely token.
    pub temperature: f32,
    /// `TOPK`; 0 is off.
    pub top_k: i32,
    /// `TOPP`.
    pub top_p: f32,
    /// `MINP`.
    pub min_p: f32,
    /// `REPEATPENALTY`, `REPEATLASTN`, `PRESENCE`, `FREQUENCY`.
    pub penalties: Penalties,
    /// `LOGITBIAS`: token ids and what is added to their logits; those of the same id add up.
    pub logit_bias: Vec<(u32, f32)>,
    /// `SEED`; `None` for a random one.
    pub seed: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: limits::TEMP_DEFAULT,
            top_k: limits::TOPK_DEFAULT,
            top_p: limits::TOPP_DEFAULT,
            min_p: limits::MINP_DEFAULT,
            penalties: Penalties {
                repeat: limits::REPEAT_PENALTY_DEFAULT,
                last_n: limits::REPEAT_LAST_N_DEFAULT,
                presence: limits::PENALTY_DEFAULT,
                frequency: limits::PENALTY_DEFAULT,
            },
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// The options of every command that generates.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// `MAXTOKENS`: most tokens to generate.
    pub max_tokens: u32,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// `GRAMMAR` or `JSONSCHEMA`.
    pub form: Option<OutputForm>,
    /// `STOP`: texts that end the answer; none is empty.
    pub stop: Vec<String>,
    /// `TIMEOUT`, from arrival to answer.
    pub timeout: Option<Duration>,
    /// `WITHTOKENS`: the generated token ids in the reply.
    pub with_tokens: bool,
    /// `LOGPROBS`: for each generated token its probability, and those of so many likeliest ones.
    pub logprobs: Option<u32>,
    /// `WITHSTATS`: answer with a map.
    pub with_stats: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: limits::MAX_TOKENS_DEFAULT,
            sampling: Sampling::default(),
            form: None,
            stop: Vec::new(),
            timeout: None,
            with_tokens: false,
            logprobs: None,
            with_stats: false,
        }
    }
}

impl GenerateOptions {
    /// Takes `option` with its values from `args`, if it is a generation option; else `false`, with nothing taken.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn accept(&mut self, option: &Keyword, args: &mut Args<'_>) -> Result<bool, ArgError> {
        match option.as_str() {
            "MAXTOKENS" => {
                self.max_tokens = args.integer("MAXTOKENS", limits::MAX_TOKENS_MIN, limits::MAX_TOKENS_MAX)?
            }
            "TEMP" => {
                let temperature = args.number("TEMP", limits::TEMP_MIN, limits::TEMP_MAX)?;
                self.sampling.temperature = if temperature < limits::TEMP_GREEDY_BELOW { 0.0 } else { temperature };
            }
            "TOPK" => self.sampling.top_k = args.integer("TOPK", limits::TOPK_MIN, limits::TOPK_MAX)?,
            "TOPP" => self.sampling.top_p = args.number("TOPP", limits::TOPP_MIN, limits::TOPP_MAX)?,
            "MINP" => self.sampling.min_p = args.number("MINP", limits::MINP_MIN, limits::MINP_MAX)?,
            "REPEATPENALTY" => {
                self.sampling.penalties.repeat =
                    args.number("REPEATPENALTY", limits::REPEAT_PENALTY_MIN, limits::REPEAT_PENALTY_MAX)?
            }
            "REPEATLASTN" => {
                self.sampling.penalties.last_n =
                    args.integer("REPEATLASTN", limits::REPEAT_LAST_N_MIN, limits::REPEAT_LAST_N_MAX)?
            }
            "PRESENCE" => {
                self.sampling.penalties.presence = args.number("PRESENCE", limits::PENALTY_MIN, limits::PENALTY_MAX)?
            }
            "FREQUENCY" => {
                self.sampling.penalties.frequency =
                    args.number("FREQUENCY", limits::PENALTY_MIN, limits::PENALTY_MAX)?
            }
            "LOGITBIAS" => self.sampling.logit_bias = logit_bias(args)?,
            "SEED" => self.sampling.seed = Some(args.integer("SEED", limits::SEED_MIN, limits::SEED_MAX)?),
            "GRAMMAR" => self.set_form(OutputForm::grammar(args)?)?,
            "JSONSCHEMA" => self.set_form(OutputForm::json_schema(args)?)?,
            "STOP" => self.stop = stop_strings(args)?,
            "TIMEOUT" => {
                let milliseconds = args.integer("TIMEOUT", limits::TIMEOUT_MS_MIN, limits::TIMEOUT_MS_MAX)?;
                self.timeout = Some(Duration::from_millis(milliseconds.into()));
            }
            "WITHTOKENS" => self.with_tokens = true,
            "LOGPROBS" => self.logprobs = Some(args.integer("LOGPROBS", limits::LOGPROBS_MIN, limits::LOGPROBS_MAX)?),
            "WITHSTATS" => self.with_stats = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_form(&mut self, form: OutputForm) -> Result<(), ArgError> {
        if self.form.is_some() {
            return Err(ArgError::Exclusive { one: "GRAMMAR", other: "JSONSCHEMA" });
        }
        self.form = Some(form);
        Ok(())
    }

    /// Checks what depends on more than one option.
    ///
    /// # Errors
    /// When the reply could become larger than a server should send in one go.
    pub fn check(&self) -> Result<(), ArgError> {
        let per_token = self.logprobs.map_or(0, |count| 2 + 2 * count as usize) + usize::from(self.with_tokens);
        if per_token * self.max_tokens as usize > limits::REPLY_ELEMENTS_MAX {
            let option = if self.logprobs.is_some() { "LOGPROBS" } else { "WITHTOKENS" };
            return Err(ArgError::ReplyTooLarge { option, max: limits::REPLY_ELEMENTS_MAX });
        }
        Ok(())
    }
}

fn logit_bias(args: &mut Args<'_>) -> Result<Vec<(u32, f32)>, ArgError> {
    let count = args.integer("LOGITBIAS", limits::LOGIT_BIAS_COUNT_MIN, limits::LOGIT_BIAS_COUNT_MAX)?;
    (0..count)
        .map(|_| {
            let id = args.integer("LOGITBIAS token id", limits::LOGIT_BIAS_ID_MIN, limits::LOGIT_BIAS_ID_MAX)?;
            Ok((id, args.number("LOGITBIAS bias", limits::LOGIT_BIAS_MIN, limits::LOGIT_BIAS_MAX)?))
        })
        .collect()
}

fn stop_strings(args: &mut Args<'_>) -> Result<Vec<String>, ArgError> {
    const WHAT: &str = "STOP string";
    let given = args.counted("STOP", limits::STOP_COUNT_MIN, limits::STOP_COUNT_MAX)?;
    given.iter().map(|bytes| non_empty(WHAT, utf8(WHAT, bytes, limits::STOP_BYTES_MAX)?).map(str::to_owned)).collect()
}

/// `INFER.GENERATE model numkeys [key ...] [TEXT prompt | BLOB tokens] [RAW] [generation options]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Generate<'a> {
    /// The model.
    pub model: &'a str,
    /// Keys with tokens, in order.
    pub keys: Vec<&'a [u8]>,
    /// `TEXT`: the prompt after the keys; never empty, and not together with `blob`.
    pub text: Option<&'a str>,
    /// `BLOB`: tokens after the keys; never empty, not decoded yet, see `token_blob`.
    pub blob: Option<&'a [u8]>,
    /// `RAW`: no chat template around the prompt.
    pub raw: bool,
    /// The generation options.
    pub options: GenerateOptions,
}

impl<'a> Generate<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.GENERATE", args);
        let mut parsed = Self {
            model: args.model("model name")?,
            keys: args.keys()?,
            text: None,
            blob: None,
            raw: false,
            options: GenerateOptions::default(),
        };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "TEXT" => parsed.text = Some(args.non_empty_text("TEXT")?),
                "BLOB" => parsed.blob = Some(args.required("BLOB")?),
                "RAW" => parsed.raw = true,
                _ if parsed.options.accept(&option, &mut args)? => {}
                _ => return Err(option.unknown()),
            }
        }
        if parsed.text.is_some() && parsed.blob.is_some() {
            return Err(ArgError::Conflict { a: "TEXT", b: "BLOB" });
        }
        if parsed.blob.is_some_and(<[u8]>::is_empty) {
            return Err(ArgError::Empty { what: "BLOB" });
        }
        if parsed.keys.is_empty() && parsed.text.is_none() && parsed.blob.is_none() {
            return Err(ArgError::Required { what: "a prompt (a key, TEXT or BLOB)" });
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_words;
    use super::*;

    fn options(line: &str) -> Result<GenerateOptions, ArgError> {
        with_words(&format!("m 0 TEXT t {line}"), |args| Generate::parse(args).map(|parsed| parsed.options))
    }

    fn failure(line: &str) -> String {
        with_words(line, |args| Generate::parse(args).map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn every_option_has_a_default() {
        let sampling = Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            penalties: Penalties { repeat: 1.0, last_n: 64, presence: 0.0, frequency: 0.0 },
            logit_bias: Vec::new(),
            seed: None,
        };
        let expected = GenerateOptions {
            max_tokens: 256,
            sampling,
            form: None,
            stop: Vec::new(),
            timeout: None,
            with_tokens: false,
            logprobs: None,
            with_stats: false,
        };
        assert_eq!(options(""), Ok(expected));
    }

    #[test]
    fn all_options_are_taken_in_any_order_and_case() {
        let line = "withstats Timeout 1500 STOP 2 END MAXTOKENS seed 4294967294 minp 0 topp 1 TOPK 0 temp 0.25 \
                    maxtokens 7 LogitBias 2 5 -100 0 0.5 repeatpenalty 1.25 REPEATLASTN -1 presence 2 frequency -0.5 \
                    JsonSchema true WithTokens logprobs 3";
        let sampling = Sampling {
            temperature: 0.25,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            penalties: Penalties { repeat: 1.25, last_n: -1, presence: 2.0, frequency: -0.5 },
            logit_bias: vec![(5, -100.0), (0, 0.5)],
            seed: Some(u32::MAX - 1),
        };
        let expected = GenerateOptions {
            max_tokens: 7,
            sampling,
            form: Some(OutputForm::JsonSchema("true".into())),
            stop: vec!["END".into(), "MAXTOKENS".into()],
            timeout: Some(Duration::from_millis(1500)),
            with_tokens: true,
            logprobs: Some(3),
            with_stats: true,
        };
        assert_eq!(options(line), Ok(expected));
    }

    #[test]
    fn a_temperature_too_small_to_divide_by_is_greedy() {
        for (given, expected) in [("0", 0.0), ("1e-40", 0.0), ("-0", 0.0), ("0.001", 0.001)] {
            assert_eq!(
                options(&format!("TEMP {given}")).unwrap().sampling.temperature.to_bits(),
                f32::to_bits(expected)
            );
        }
    }

    #[test]
    fn a_reply_of_too_many_numbers_is_refused() {
        let check = |line: &str| options(line).unwrap().check().map_err(|error| error.to_string());
        assert_eq!(check("MAXTOKENS 100000 WITHTOKENS"), Ok(()));
        let text = "WITHTOKENS would make a reply of more than 100000 numbers; lower it or MAXTOKENS";
        assert_eq!(check("MAXTOKENS 100001 WITHTOKENS"), Err(text.to_owned()));
        assert_eq!(check("MAXTOKENS 2325 LOGPROBS 20 WITHTOKENS"), Ok(()));
        assert!(check("MAXTOKENS 2326 LOGPROBS 20 WITHTOKENS").is_err());
    }

    #[test]
    fn every_number_is_taken_between_its_bounds_once_and_nothing_else_is() {
        for (option, least, most) in [
            ("MAXTOKENS", "1", "1048576"),
            ("TEMP", "0", "100"),
            ("TOPK", "0", "1000000"),
            ("TOPP", "0", "1"),
            ("MINP", "0", "1"),
            ("REPEATPENALTY", "0.0625", "16"),
            ("REPEATLASTN", "-1", "1048576"),
            ("PRESENCE", "-100", "100"),
            ("FREQUENCY", "-100", "100"),
            ("SEED", "0", "4294967294"),
            ("TIMEOUT", "1", "86400000"),
            ("LOGPROBS", "0", "20"),
            ("LOGITBIAS 1 0", "-100", "100"),
            ("STOP", "1 x", "64 x"),
        ] {
            for bound in [least, most] {
                let given = options(&format!(
                    "{option} {bound} {}",
                    if bound == "64 x" { "x ".repeat(63) } else { String::new() }
                ));
                assert!(given.is_ok(), "{option} {bound}: {given:?}");
            }
            for wrong in [
                "nan",
                "-nan",
                "inf",
                "-inf",
                "Infinity",
                "1e400",
                "-1e400",
                "1e9",
                "-1000",
                "99999999999999999999",
                "''",
                "-",
                "+",
                "1e",
                "0x1",
                "1_0",
                "1,5",
                "one",
                "\u{ff11}",
            ] {
                let given = options(&format!("{option} {wrong}"));
                assert!(given.is_err(), "{option} {wrong}: {given:?}");
            }
            let text = options(&format!("{option} {least} {option} {least}")).unwrap_err().to_string();
            assert_eq!(text, format!("option {} is given twice", option.split(' ').next().unwrap_or_default()));
        }
    }

    #[test]
    fn wrong_options_are_told_why() {
        for (line, text) in [
            ("TEMP 100.5", "TEMP must be from 0 to 100"),
            ("TEMP inf", "TEMP is not a number"),
            ("TOPK -1", "TOPK must be from 0 to 1000000"),
            ("TOPP 1.5", "TOPP must be from 0 to 1"),
            ("MINP -0.5", "MINP must be from 0 to 1"),
            ("MAXTOKENS 0", "MAXTOKENS must be from 1 to 1048576"),
            ("SEED -1", "SEED must be from 0 to 4294967294"),
            ("SEED 4294967296", "SEED must be from 0 to 4294967294"),
            ("TIMEOUT 0", "TIMEOUT must be from 1 to 86400000"),
            ("STOP", "option STOP needs a value"),
            ("STOP 0", "STOP must be from 1 to 64"),
            ("STOP x", "STOP is not a number"),
            ("STOP 2 a", "STOP is 2, but the number of arguments after it is 1"),
            ("STOP 1 ''", "STOP string must not be empty"),
            ("STOP 1 a STOP 1 b", "option STOP is given twice"),
            ("REPEATPENALTY 0", "REPEATPENALTY must be from 0.0625 to 16"),
            ("REPEATPENALTY -1", "REPEATPENALTY must be from 0.0625 to 16"),
            ("REPEATPENALTY 1e9", "REPEATPENALTY must be from 0.0625 to 16"),
            ("REPEATPENALTY NaN", "REPEATPENALTY is not a number"),
            ("REPEATPENALTY ''", "REPEATPENALTY is not a number"),
            ("REPEATPENALTY 1 repeatpenalty 1", "option REPEATPENALTY is given twice"),
            ("REPEATLASTN -2", "REPEATLASTN must be from -1 to 1048576"),
            ("REPEATLASTN 1048577", "REPEATLASTN must be from -1 to 1048576"),
            ("REPEATLASTN 1.5", "REPEATLASTN is not an integer"),
            ("REPEATLASTN ''", "REPEATLASTN is not an integer"),
            ("REPEATLASTN 1 REPEATLASTN 1", "option REPEATLASTN is given twice"),
            ("PRESENCE inf", "PRESENCE is not a number"),
            ("PRESENCE -101", "PRESENCE must be from -100 to 100"),
            ("PRESENCE", "option PRESENCE needs a value"),
            ("PRESENCE 0 PRESENCE 0", "option PRESENCE is given twice"),
            ("FREQUENCY nan", "FREQUENCY is not a number"),
            ("FREQUENCY 101", "FREQUENCY must be from -100 to 100"),
            ("FREQUENCY ''", "FREQUENCY is not a number"),
            ("FREQUENCY 0 FREQUENCY 0", "option FREQUENCY is given twice"),
            ("LOGITBIAS", "option LOGITBIAS needs a value"),
            ("LOGITBIAS 0", "LOGITBIAS must be from 1 to 1024"),
            ("LOGITBIAS 1025", "LOGITBIAS must be from 1 to 1024"),
            ("LOGITBIAS ''", "LOGITBIAS is not an integer"),
            ("LOGITBIAS 1", "option LOGITBIAS needs a value"),
            ("LOGITBIAS 2 1 1 2", "option LOGITBIAS needs a value"),
            ("LOGITBIAS 1 -1 1", "LOGITBIAS token id must be from 0 to 2147483647"),
            ("LOGITBIAS 1 2147483648 1", "LOGITBIAS token id must be from 0 to 2147483647"),
            ("LOGITBIAS 1 x 1", "LOGITBIAS token id is not an integer"),
            ("LOGITBIAS 1 1 nan", "LOGITBIAS bias is not a number"),
            ("LOGITBIAS 1 1 -inf", "LOGITBIAS bias is not a number"),
            ("LOGITBIAS 1 1 100.5", "LOGITBIAS bias must be from -100 to 100"),
            ("LOGITBIAS 1 1 1 LOGITBIAS 1 1 1", "option LOGITBIAS is given twice"),
            ("GRAMMAR", "option GRAMMAR needs a value"),
            ("GRAMMAR ''", "GRAMMAR must not be empty"),
            ("JSONSCHEMA ''", "JSONSCHEMA must not be empty"),
            ("JSONSCHEMA true JSONSCHEMA true", "option JSONSCHEMA is given twice"),
            ("JSONSCHEMA true GRAMMAR root::=[a]", "GRAMMAR and JSONSCHEMA exclude each other"),
            ("LOGPROBS -1", "LOGPROBS must be from 0 to 20"),
            ("LOGPROBS 21", "LOGPROBS must be from 0 to 20"),
            ("LOGPROBS nan", "LOGPROBS is not an integer"),
            ("LOGPROBS 1 LOGPROBS 1", "option LOGPROBS is given twice"),
            ("WITHTOKENS WITHTOKENS", "option WITHTOKENS is given twice"),
            ("K 3", "unknown option 'K'"),
        ] {
            assert_eq!(options(line).unwrap_err().to_string(), text);
        }
        assert_eq!(
            options(&format!("STOP 1 {}", "x".repeat(257))).unwrap_err(),
            ArgError::TooLong { what: "STOP string", max: 256 }
        );
        assert!(options(&format!("STOP 64 {}", "x ".repeat(64))).is_ok());
        assert_eq!(
            options(&format!("STOP 65 {}", "x ".repeat(65))).unwrap_err().to_string(),
            "STOP must be from 1 to 64"
        );
    }

    #[test]
    fn a_prompt_is_keys_and_then_text_or_tokens() {
        with_words("m 2 a b RAW text hello", |args| {
            let parsed = Generate::parse(args).unwrap();
            assert_eq!(parsed.keys, [b"a", b"b"]);
            assert_eq!((parsed.text, parsed.blob, parsed.raw), (Some("hello"), None, true));
        });
        with_words("m 0 BLOB abcd", |args| {
            let parsed = Generate::parse(args).unwrap();
            assert_eq!((parsed.text, parsed.blob, parsed.raw), (None, Some(&b"abcd"[..]), false));
        });
        assert!(with_words("m 1 a", |args| Generate::parse(args).is_ok()));
    }

    #[test]
    fn a_prompt_that_is_empty_or_double_is_refused() {
        assert_eq!(failure("m 0"), "a prompt (a key, TEXT or BLOB) is required");
        assert_eq!(failure("m 0 RAW"), "a prompt (a key, TEXT or BLOB) is required");
        assert_eq!(failure("m 0 TEXT ''"), "TEXT must not be empty");
        assert_eq!(failure("m 1 a BLOB ''"), "BLOB must not be empty");
        assert_eq!(failure("m 0 BLOB abcd TEXT t"), "TEXT and BLOB cannot be used together");
    }
}
