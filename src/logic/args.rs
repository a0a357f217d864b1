//! A cursor over the arguments of one command, and the errors a client gets for them.
//!
//! Every argument is read exactly once and none is skipped: positional ones first, then options until the end. An
//! argument that no rule takes is an error.

mod error;
#[cfg(test)]
mod tests;

pub use error::ArgError;

use super::limits;

/// Characters of a client's word that an error repeats.
const SHOWN_MAX: usize = 32;

/// The name of an option as it was given, in upper case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyword {
    upper: String,
}

impl Keyword {
    /// The option in upper case, to match against.
    pub fn as_str(&self) -> &str {
        &self.upper
    }

    /// The error for an option that the command does not have.
    pub fn unknown(&self) -> ArgError {
        ArgError::Unknown { option: shown(self.upper.as_bytes()) }
    }
}

/// The arguments of a command that have not been read yet.
#[derive(Debug, Clone)]
pub struct Args<'a> {
    command: &'static str,
    rest: &'a [&'a [u8]],
    options: Vec<String>,
}

impl<'a> Args<'a> {
    /// `args` are the arguments after the name of `command`.
    pub fn new(command: &'static str, args: &'a [&'a [u8]]) -> Self {
        Self { command, rest: args, options: Vec::new() }
    }

    /// Number of arguments not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next argument, any bytes.
    ///
    /// # Errors
    /// [`ArgError::MissingValue`] after an option, else [`ArgError::Missing`].
    pub fn required(&mut self, what: &'static str) -> Result<&'a [u8], ArgError> {
        let Some((&first, rest)) = self.rest.split_first() else {
            return Err(match self.options.last() {
                Some(option) => ArgError::MissingValue { option: option.clone() },
                None => ArgError::Missing { command: self.command, what },
            });
        };
        self.rest = rest;
        Ok(first)
    }

    /// The next argument as UTF-8 text of at most [`limits::TEXT_MAX`] bytes, possibly empty.
    ///
    /// # Errors
    /// As [`Args::required`] and [`utf8`].
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, ArgError> {
        utf8(what, self.required(what)?, limits::TEXT_MAX)
    }

    /// As [`Args::text`], but not empty and of at most `max` bytes.
    ///
    /// # Errors
    /// Also [`ArgError::Empty`].
    pub fn limited_text(&mut self, what: &'static str, max: usize) -> Result<&'a str, ArgError> {
        non_empty(what, utf8(what, self.required(what)?, max)?)
    }

    /// As [`Args::text`], but not empty.
    ///
    /// # Errors
    /// Also [`ArgError::Empty`].
    pub fn non_empty_text(&mut self, what: &'static str) -> Result<&'a str, ArgError> {
        non_empty(what, self.text(what)?)
    }

    /// The next argument as the name of a model or an index, see [`check_name`].
    ///
    /// # Errors
    /// As [`Args::required`], [`utf8`] and [`check_name`].
    pub fn name(&mut self, what: &'static str) -> Result<&'a str, ArgError> {
        let name = utf8(what, self.required(what)?, limits::NAME_MAX)?;
        check_name(what, name)?;
        Ok(name)
    }

    /// The next argument as the name of a loaded model, or [`DEFAULT_MODEL`].
    ///
    /// # Errors
    /// As [`Args::name`].
    pub fn model(&mut self, what: &'static str) -> Result<&'a str, ArgError> {
        model_name(what, self.required(what)?)
    }

    /// The next argument as a decimal integer from `min` to `max`.
    ///
    /// # Errors
    /// As [`Args::required`]; [`ArgError::NotAnInteger`]; [`ArgError::OutOfRange`].
    pub fn integer<T: Bound>(&mut self, option: &'static str, min: T, max: T) -> Result<T, ArgError> {
        let value = parse_integer(self.required(option)?).ok_or(ArgError::NotAnInteger { option })?;
        in_range(option, value, min, max)
    }

    /// As [`Args::integer`]; `None` for the word `AUTO`.
    ///
    /// # Errors
    /// As [`Args::integer`].
    pub fn integer_or_auto<T: Bound>(&mut self, option: &'static str, min: T, max: T) -> Result<Option<T>, ArgError> {
        if self.rest.first().is_some_and(|word| word.eq_ignore_ascii_case(b"AUTO")) {
            self.required(option)?;
            return Ok(None);
        }
        self.integer(option, min, max).map(Some)
    }

    /// The next argument as a finite decimal number from `min` to `max`.
    ///
    /// # Errors
    /// As [`Args::required`]; [`ArgError::NotANumber`], also for NaN and infinity; [`ArgError::OutOfRange`].
    pub fn number(&mut self, option: &'static str, min: f32, max: f32) -> Result<f32, ArgError> {
        // Compared as f64, so that 1.00000001 is not rounded into the bounds first.
        self.double(option, min.into(), max.into()).map(|value| value as f32)
    }

    /// As [`Args::number`], with all its digits.
    ///
    /// # Errors
    /// As [`Args::number`].
    pub fn double(&mut self, option: &'static str, min: f64, max: f64) -> Result<f64, ArgError> {
        let value = std::str::from_utf8(self.required(option)?)
            .ok()
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|value| value.is_finite());
        let value = value.ok_or(ArgError::NotANumber { option })?;
        if value < min || value > max {
            return Err(ArgError::OutOfRange { option, min, max });
        }
        Ok(value)
    }

    /// The next argument as one of `choices`, whose words `name` gives in upper case.
    ///
    /// # Errors
    /// As [`Args::required`]; [`ArgError::BadWord`].
    pub fn word<T: Copy>(
        &mut self,
        option: &'static str,
        choices: &[T],
        name: fn(T) -> &'static str,
    ) -> Result<T, ArgError> {
        let word = self.required(option)?;
        choices.iter().copied().find(|&choice| word.eq_ignore_ascii_case(name(choice).as_bytes())).ok_or_else(|| {
            let allowed: Vec<_> = choices.iter().map(|&choice| name(choice)).collect();
            ArgError::BadWord { option, allowed: allowed.join(", ") }
        })
    }

    /// A count from `min` to `max`, and that many arguments after it.
    ///
    /// # Errors
    /// As [`Args::required`]; [`ArgError::CountNotANumber`], [`ArgError::CountNegative`], [`ArgError::OutOfRange`],
    /// [`ArgError::CountTooLarge`].
    pub fn counted(&mut self, what: &'static str, min: u32, max: u32) -> Result<&'a [&'a [u8]], ArgError> {
        let count = parse_integer(self.required(what)?).ok_or(ArgError::CountNotANumber { what })?;
        if count < 0 {
            return Err(ArgError::CountNegative { what });
        }
        let taken = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = taken.ok_or(ArgError::CountTooLarge { what, count, left: self.rest.len() })?;
        in_range(what, count, min, max)?;
        self.rest = rest;
        Ok(taken)
    }

    /// `numkeys key [key ...]`; `numkeys` may be 0.
    ///
    /// # Errors
    /// As [`Args::counted`].
    pub fn keys(&mut self) -> Result<Vec<&'a [u8]>, ArgError> {
        self.counted("numkeys", 0, limits::KEYS_MAX).map(<[_]>::to_vec)
    }

    /// The next option, `None` at the end of the arguments. The caller must refuse options it does not know with
    /// [`Keyword::unknown`].
    ///
    /// # Errors
    /// [`ArgError::Duplicate`].
    pub fn option(&mut self) -> Result<Option<Keyword>, ArgError> {
        let Some((&first, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        self.rest = rest;
        // No option has a '?' in its name or is as long as what is left of a longer word here.
        let upper: String = first
            .iter()
            .take(SHOWN_MAX + 1)
            .map(|&byte| if byte.is_ascii() { char::from(byte.to_ascii_uppercase()) } else { '?' })
            .collect();
        if self.options.contains(&upper) {
            return Err(ArgError::Duplicate { option: shown(upper.as_bytes()) });
        }
        self.options.push(upper.clone());
        Ok(Some(Keyword { upper }))
    }

    /// Takes the next argument if it is the option `name`, which may be given many times, unlike those of
    /// [`Args::option`].
    pub fn repeated(&mut self, name: &'static str) -> bool {
        let Some((first, rest)) = self.rest.split_first() else { return false };
        if !first.eq_ignore_ascii_case(name.as_bytes()) {
            return false;
        }
        self.rest = rest;
        self.options.push(name.to_owned());
        true
    }

    /// Nothing may be left. For commands without options.
    ///
    /// # Errors
    /// [`ArgError::WrongArity`].
    pub fn end(&self) -> Result<(), ArgError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ArgError::WrongArity { command: self.command }) }
    }
}

/// An integer type whose values all fit into `i64`.
pub trait Bound: Copy + Into<i64> + TryFrom<i64> {}

impl<T: Copy + Into<i64> + TryFrom<i64>> Bound for T {}

fn in_range<T: Bound>(option: &'static str, value: i64, min: T, max: T) -> Result<T, ArgError> {
    let (low, high): (i64, i64) = (min.into(), max.into());
    T::try_from(value).ok().filter(|_| (low..=high).contains(&value)).ok_or(ArgError::OutOfRange {
        option,
        min: low as f64,
        max: high as f64,
    })
}

/// Digits with an optional minus. A number that does not fit becomes the nearest one that does, which is out of range
/// everywhere.
fn parse_integer(text: &[u8]) -> Option<i64> {
    let (digits, nearest) = match text {
        [b'-', digits @ ..] => (digits, i64::MIN),
        digits => (digits, i64::MAX),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(nearest))
}

/// `bytes` as text of at most `max` bytes.
///
/// # Errors
/// [`ArgError::TooLong`], [`ArgError::NotUtf8`].
pub fn utf8<'a>(what: &'static str, bytes: &'a [u8], max: usize) -> Result<&'a str, ArgError> {
    if bytes.len() > max {
        return Err(ArgError::TooLong { what, max });
    }
    std::str::from_utf8(bytes).map_err(|e| ArgError::NotUtf8 { what, offset: e.valid_up_to() })
}

/// All of `given` as text; they have at most `max` bytes together, which is looked at before anything else. Each is a `what`,
/// all are `together`.
///
/// # Errors
/// As [`utf8`].
pub fn texts<'a>(
    what: &'static str,
    together: &'static str,
    given: &[&'a [u8]],
    max: usize,
) -> Result<Vec<&'a str>, ArgError> {
    if bytes_of(given) > max {
        let is_one = given.iter().any(|bytes| bytes.len() > max);
        return Err(ArgError::TooLong { what: if is_one { what } else { together }, max });
    }
    given.iter().map(|bytes| utf8(what, bytes, max)).collect()
}

/// Bytes of all of these.
pub fn bytes_of(given: &[&[u8]]) -> usize {
    given.iter().map(|bytes| bytes.len()).fold(0, usize::saturating_add)
}

/// `text`, unless it is empty.
///
/// # Errors
/// [`ArgError::Empty`].
pub fn non_empty<'a>(what: &'static str, text: &'a str) -> Result<&'a str, ArgError> {
    if text.is_empty() { Err(ArgError::Empty { what }) } else { Ok(text) }
}

/// The rule for names of models and indexes: 1 to [`limits::NAME_MAX`] bytes, no control characters, no braces (they
/// would move the keys of an index to other cluster slots) and not `*` alone.
///
/// # Errors
/// [`ArgError::Empty`], [`ArgError::TooLong`], [`ArgError::BadName`].
pub fn check_name(what: &'static str, name: &str) -> Result<(), ArgError> {
    non_empty(what, name)?;
    if name.len() > limits::NAME_MAX {
        return Err(ArgError::TooLong { what, max: limits::NAME_MAX });
    }
    if name == DEFAULT_MODEL || name.chars().any(|c| c.is_control() || matches!(c, '{' | '}')) {
        return Err(ArgError::BadName { what });
    }
    Ok(())
}

/// What commands may write instead of a model's name: the default model.
pub const DEFAULT_MODEL: &str = "*";

/// The name of a loaded model, or [`DEFAULT_MODEL`].
///
/// # Errors
/// As [`utf8`] and [`check_name`].
pub fn model_name<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, ArgError> {
    let name = utf8(what, bytes, limits::NAME_MAX)?;
    if name != DEFAULT_MODEL {
        check_name(what, name)?;
    }
    Ok(name)
}

/// A client's bytes as an error may repeat them: at most 32 printable ASCII characters without quotes.
fn shown(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(SHOWN_MAX)
        .map(|&byte| {
            if (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'\'' | b'"') {
                char::from(byte)
            } else {
                '?'
            }
        })
        .collect()
}
