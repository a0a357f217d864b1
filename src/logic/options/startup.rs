//! The setting `infer.models`: what is loaded when the server starts.

use super::LoadOptions;
use crate::logic::args::ArgError;

/// Why a value of `infer.models` cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StartupError {
    /// One of the loads is wrong.
    #[error("model {number} ('{entry}'): {source}")]
    Entry {
        /// Which one, from 1.
        number: usize,
        /// Its text.
        entry: String,
        /// What is wrong.
        source: ArgError,
    },
    /// The second of two models could not be loaded.
    #[error("two models are named '{0}'")]
    NameTwice(String),
}

/// Parses `infer.models`: for each model the arguments of `INFER.LOAD`, parted by spaces, and a semicolon between two
/// models. They are loaded in the background, in this order.
///
/// # Errors
/// See [`StartupError`].
pub fn models_at_start(setting: &str) -> Result<Vec<LoadOptions>, StartupError> {
    let mut models: Vec<LoadOptions> = Vec::new();
    let entries = setting.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    for (entry, number) in entries.zip(1..) {
        let args: Vec<&[u8]> = entry.split_whitespace().map(str::as_bytes).collect();
        let options = LoadOptions::parse(&args).map_err(|source| StartupError::Entry {
            number,
            entry: entry.to_owned(),
            source,
        })?;
        if models.iter().any(|model| model.name == options.name) {
            return Err(StartupError::NameTwice(options.name));
        }
        models.push(LoadOptions { background: true, ..options });
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_setting_loads_nothing() {
        for empty in ["", "  ", ";", " ; ; "] {
            assert_eq!(models_at_start(empty), Ok(Vec::new()));
        }
    }

    #[test]
    fn each_entry_is_read_as_the_arguments_of_a_load() {
        let models = models_at_start("chat /m/a.gguf CTX 512  default; /m/b.gguf ;").unwrap();
        let chat =
            LoadOptions { ctx: Some(512), default: true, background: true, ..LoadOptions::new("chat", "/m/a.gguf") };
        assert_eq!(models, [chat, LoadOptions { background: true, ..LoadOptions::new("b", "/m/b.gguf") }]);
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for (setting, text) in [
            ("a p;b p CTX 1", "model 2 ('b p CTX 1'): CTX must be from 64 to 1048576"),
            ("a p QUICK", "model 1 ('a p QUICK'): unknown option 'QUICK'"),
            ("* p", "model 1 ('* p'): model name must not contain control characters or braces, and must not be '*'"),
            ("a p;/x/a.gguf", "two models are named 'a'"),
        ] {
            assert_eq!(models_at_start(setting).unwrap_err().to_string(), text);
        }
    }
}
