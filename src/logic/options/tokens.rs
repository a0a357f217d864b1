//! `INFER.TOKENIZE`, `INFER.TOKENIZESTORE`, `INFER.DETOKENIZE`.

use crate::logic::args::{ArgError, Args};
use crate::logic::limits;

/// `INFER.TOKENIZE model text [NOSPECIAL]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokenize<'a> {
    /// The model.
    pub model: &'a str,
    /// The text, possibly empty.
    pub text: &'a str,
    /// Add what the model wants around a text (BOS, EOS); off with `NOSPECIAL`.
    pub special: bool,
}

impl<'a> Tokenize<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.TOKENIZE", args);
        let mut parsed = Self { model: args.model("model name")?, text: args.text("text")?, special: true };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "NOSPECIAL" => parsed.special = false,
                _ => return Err(option.unknown()),
            }
        }
        Ok(parsed)
    }
}

/// `INFER.TOKENIZESTORE key model text [EX seconds]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenizeStore<'a> {
    /// The key that gets the tokens.
    pub key: &'a [u8],
    /// The model.
    pub model: &'a str,
    /// The text, possibly empty.
    pub text: &'a str,
    /// `EX`: seconds until the key expires.
    pub expire: Option<u64>,
}

impl<'a> TokenizeStore<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.TOKENIZESTORE", args);
        let mut parsed = Self {
            key: args.required("key")?,
            model: args.model("model name")?,
            text: args.text("text")?,
            expire: None,
        };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "EX" => {
                    parsed.expire =
                        Some(args.integer("EX", limits::EXPIRE_SECONDS_MIN, limits::EXPIRE_SECONDS_MAX)?.into())
                }
                _ => return Err(option.unknown()),
            }
        }
        Ok(parsed)
    }
}

/// `INFER.DETOKENIZE model numkeys [key ...] [BLOB bytes]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detokenize<'a> {
    /// The model.
    pub model: &'a str,
    /// Keys with tokens, in order.
    pub keys: Vec<&'a [u8]>,
    /// Tokens after those of the keys; not decoded yet, see `token_blob`.
    pub blob: Option<&'a [u8]>,
}

impl<'a> Detokenize<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.DETOKENIZE", args);
        let mut parsed = Self { model: args.model("model name")?, keys: args.keys()?, blob: None };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "BLOB" => parsed.blob = Some(args.required("BLOB")?),
                _ => return Err(option.unknown()),
            }
        }
        if parsed.keys.is_empty() && parsed.blob.is_none() {
            return Err(ArgError::Required { what: "a key or BLOB" });
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_words;
    use super::*;

    #[test]
    fn tokenize_adds_special_tokens_unless_told_not_to() {
        with_words("m text", |args| {
            assert_eq!(Tokenize::parse(args), Ok(Tokenize { model: "m", text: "text", special: true }));
        });
        with_words("m '' nospecial", |args| {
            assert_eq!(Tokenize::parse(args), Ok(Tokenize { model: "m", text: "", special: false }));
        });
    }

    #[test]
    fn tokenizestore_takes_seconds_up_to_ten_years() {
        with_words("key m text EX 315360000", |args| {
            let expected = TokenizeStore { key: b"key", model: "m", text: "text", expire: Some(315_360_000) };
            assert_eq!(TokenizeStore::parse(args), Ok(expected));
        });
        with_words("key m text", |args| assert_eq!(TokenizeStore::parse(args).map(|parsed| parsed.expire), Ok(None)));
        for bad in ["EX 0", "EX 315360001"] {
            let error = with_words(&format!("key m text {bad}"), |args| TokenizeStore::parse(args).map(|_| ()));
            assert_eq!(error.unwrap_err().to_string(), "EX must be from 1 to 315360000");
        }
    }

    #[test]
    fn a_key_for_tokens_may_be_any_bytes() {
        let parsed = TokenizeStore::parse(&[b"\xff\0", b"m", b"text"]).map(|parsed| parsed.key.to_vec());
        assert_eq!(parsed, Ok(b"\xff\0".to_vec()));
    }

    #[test]
    fn detokenize_takes_keys_and_a_blob() {
        let parsed = Detokenize::parse(&[b"m", b"2", b"BLOB", b"b", b"blob", b"\x01\0\0\0"])
            .map(|parsed| (parsed.keys.len(), parsed.blob.map(<[u8]>::len)));
        assert_eq!(parsed, Ok((2, Some(4))));
    }

    #[test]
    fn detokenize_of_nothing_is_an_error() {
        let error = with_words("m 0", |args| Detokenize::parse(args).map(drop)).unwrap_err();
        assert_eq!(error.to_string(), "a key or BLOB is required");
    }
}
