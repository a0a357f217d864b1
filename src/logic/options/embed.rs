//! `INFER.EMBED`.

use crate::logic::args::{ArgError, Args, bytes_of, texts};
use crate::logic::limits;

/// How vectors are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbedFormat {
    /// One blob of little-endian `f32`, as `VADD` takes it.
    Fp32,
    /// One array of numbers.
    Values,
}

impl EmbedFormat {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::Fp32, Self::Values];

    /// The word in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Values => "VALUES",
        }
    }
}

/// `INFER.EMBED model count text [text ...] [FORMAT FP32|VALUES] [DIM n] [NONORM] [PREFIX s]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embed<'a> {
    /// The model.
    pub model: &'a str,
    /// The texts; an empty one has a vector as well, if the model puts tokens of its own around a text.
    pub texts: Vec<&'a str>,
    /// `FORMAT`.
    pub format: EmbedFormat,
    /// `DIM`: keep that many values of each vector.
    pub dim: Option<u32>,
    /// Scale vectors to length 1; off with `NONORM`.
    pub normalize: bool,
    /// `PREFIX`: goes before every text; may be empty.
    pub prefix: Option<&'a str>,
}

impl<'a> Embed<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.EMBED", args);
        let model = args.model("model name")?;
        let given = args.counted("count", limits::EMBED_COUNT_MIN, limits::EMBED_COUNT_MAX)?;
        let texts = texts("text", "all texts together", given, limits::TEXT_MAX)?;
        let mut parsed = Self { model, texts, format: EmbedFormat::Fp32, dim: None, normalize: true, prefix: None };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "FORMAT" => parsed.format = args.word("FORMAT", &EmbedFormat::ALL, EmbedFormat::name)?,
                "DIM" => parsed.dim = Some(args.integer("DIM", limits::DIM_MIN, limits::DIM_MAX)?),
                "NONORM" => parsed.normalize = false,
                "PREFIX" => parsed.prefix = Some(args.text("PREFIX")?),
                _ => return Err(option.unknown()),
            }
        }
        let longest = parsed.texts.len().saturating_mul(parsed.prefix.map_or(0, str::len));
        if longest > limits::TEXT_MAX {
            return Err(ArgError::TooLong { what: "PREFIX times count", max: limits::TEXT_MAX });
        }
        if bytes_of(given).saturating_add(longest) > limits::TEXT_MAX {
            return Err(ArgError::TooLong { what: "all texts with their PREFIX", max: limits::TEXT_MAX });
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_words;
    use super::*;

    #[test]
    fn all_texts_together_are_as_long_as_one_may_be() {
        let half = "x".repeat(4 << 20);
        let parse = |more: &[&[u8]]| {
            let texts: [&[u8]; 4] = [b"m", b"2", half.as_bytes(), half.as_bytes()];
            Embed::parse(&[&texts, more].concat()).map(drop)
        };
        assert_eq!(parse(&[]), Ok(()));
        assert_eq!(
            parse(&[b"PREFIX", b"p"]).unwrap_err().to_string(),
            "all texts with their PREFIX is longer than 8388608 bytes"
        );
        let many: Vec<&[u8]> = [&b"m"[..], b"3"].into_iter().chain([half.as_bytes(); 3]).collect();
        assert_eq!(Embed::parse(&many).unwrap_err().to_string(), "all texts together is longer than 8388608 bytes");
    }

    fn failure(line: &str) -> String {
        with_words(line, |args| Embed::parse(args).map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn every_option_has_a_default() {
        with_words("m 2 a DIM", |args| {
            let expected = Embed {
                model: "m",
                texts: vec!["a", "DIM"],
                format: EmbedFormat::Fp32,
                dim: None,
                normalize: true,
                prefix: None,
            };
            assert_eq!(Embed::parse(args), Ok(expected));
        });
    }

    #[test]
    fn all_options_are_taken_in_any_order_and_case() {
        with_words("m 1 a prefix query: NoNorm dim 64 FORMAT values", |args| {
            let expected = Embed {
                model: "m",
                texts: vec!["a"],
                format: EmbedFormat::Values,
                dim: Some(64),
                normalize: false,
                prefix: Some("query:"),
            };
            assert_eq!(Embed::parse(args), Ok(expected));
        });
    }

    #[test]
    fn wrong_arguments_are_told_why() {
        for (line, text) in [
            ("m 0", "count must be from 1 to 1024"),
            ("m two a b", "count is not a number"),
            ("m -1 a", "count is negative"),
            ("m 3 a b", "count is 3, but the number of arguments after it is 2"),
            ("m 1 a b", "unknown option 'B'"),
            ("m 1 a FORMAT JSON", "FORMAT must be one of FP32, VALUES"),
            ("m 1 a DIM 0", "DIM must be from 1 to 65536"),
        ] {
            assert_eq!(failure(line), text);
        }
        let prefix = "x".repeat(limits::TEXT_MAX / 2 + 1);
        let error = Embed::parse(&[b"m", b"2", b"a", b"b", b"PREFIX", prefix.as_bytes()]).unwrap_err();
        assert_eq!(error.to_string(), "PREFIX times count is longer than 8388608 bytes");
        assert_eq!(failure(&format!("m 1025 {}", "a ".repeat(1025))), "count must be from 1 to 1024");
    }
}
