//! The questions, and the files that hold the answers: sources of crates that this project is built with, which lie in
//! cargo's cache after a build, in the versions that Cargo.lock names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Document;

/// Folders of a crate that are read; Markdown is read everywhere.
const FOLDERS: [&str; 2] = ["src", "examples"];

/// A file of questions, `tests/data/retrieval.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionSet {
    /// Names of the crates whose files are searched.
    pub crates: Vec<String>,
    /// Extensions of the files that are read.
    pub extensions: Vec<String>,
    /// Larger files are left out, in bytes.
    pub largest_file: u64,
    questions: Vec<Labelled>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labelled {
    question: String,
    answers: Vec<Label>,
}

/// A right answer: a text that stands once in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    /// Name of the crate and path in it.
    file: String,
    holds: String,
}

/// A question and where its answers are; one of them is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// As a developer would ask it.
    pub text: String,
    /// The right places.
    pub answers: Vec<Place>,
}

/// Lines of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The document.
    pub path: String,
    /// First and last line, from 1.
    pub lines: (u32, u32),
}

impl Place {
    /// Whether the two have a line in common.
    pub fn touches(&self, other: &Self) -> bool {
        self.path == other.path && self.lines.0 <= other.lines.1 && other.lines.0 <= self.lines.1
    }
}

/// What is measured with the labelled questions.
#[derive(Debug, Args)]
pub struct Subject {
    /// The server, with the models `chat` and `embed`.
    #[arg(long)]
    pub url: String,
    /// Folder of the project, whose Cargo.lock says which crates are read.
    #[arg(long)]
    root: PathBuf,
    /// The questions, relative to the root.
    #[arg(long, default_value = "tests/data/retrieval.json")]
    questions: PathBuf,
}

impl Subject {
    /// The questions.
    pub fn questions(&self) -> Result<QuestionSet> {
        QuestionSet::read(&self.root.join(&self.questions))
    }

    /// The folders of the crates that the questions are about.
    pub fn crate_folders(&self) -> Result<BTreeMap<String, Vec<PathBuf>>> {
        crate_folders(&self.root)
    }
}

impl QuestionSet {
    /// Reads a file of questions.
    fn read(path: &Path) -> Result<Self> {
        let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&json).with_context(|| format!("{} is not a set of questions", path.display()))
    }

    /// The files to search, in the order of their paths.
    ///
    /// # Errors
    /// When a crate is not among `folders`, or there in two versions, or a file cannot be read.
    pub fn documents(&self, folders: &BTreeMap<String, Vec<PathBuf>>) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        for name in &self.crates {
            match folders.get(name).map(Vec::as_slice) {
                Some([folder]) => self.read_folder(folder, name, &mut documents)?,
                Some(_) => bail!("there are several versions of the crate {name} in Cargo.lock; take another crate"),
                None => bail!("the crate {name} is not in Cargo.lock any more; take another crate"),
            }
        }
        documents.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(documents)
    }

    /// Adds the files below `folder`, whose paths begin with `prefix`.
    fn read_folder(&self, folder: &Path, prefix: &str, documents: &mut Vec<Document>) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let (file, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let path = format!("{prefix}/{}", name.to_string_lossy());
            if file.is_dir() {
                self.read_folder(&file, &path, documents)?;
            } else if self.is_wanted(&path) && file.metadata()?.len() <= self.largest_file {
                let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                documents.push(Document { path, text });
            }
        }
        Ok(())
    }

    /// Whether a file is read; `path` begins with the name of its crate.
    fn is_wanted(&self, path: &str) -> bool {
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        let folder = path.split('/').nth(1).unwrap_or_default();
        self.extensions.iter().any(|wanted| wanted == extension) && (extension == "md" || FOLDERS.contains(&folder))
    }

    /// The questions with the lines of their answers.
    ///
    /// # Errors
    /// When the text of an answer does not stand in its file exactly once: the file has changed with its crate.
    pub fn questions(&self, documents: &[Document]) -> Result<Vec<Question>> {
        let locate = |label: &Label| {
            let document = documents.iter().find(|document| document.path == label.file);
            let text = &document.with_context(|| format!("{} is not there any more", label.file))?.text;
            let lines = lines_of(text, &label.holds)
                .ok_or_else(|| anyhow!("{} does not hold this text once: {}", label.file, label.holds))?;
            Ok(Place { path: label.file.clone(), lines })
        };
        let question = |labelled: &Labelled| {
            let answers: Result<Vec<Place>> = labelled.answers.iter().map(locate).collect();
            let answers = answers.with_context(|| format!("the question {:?} needs a new label", labelled.question))?;
            Ok(Question { text: labelled.question.clone(), answers })
        };
        self.questions.iter().map(question).collect()
    }
}

/// The lines in which `part` stands, if it stands in `text` exactly once.
fn lines_of(text: &str, part: &str) -> Option<(u32, u32)> {
    let at = text.find(part)?;
    if part.is_empty() || text.rfind(part) != Some(at) {
        return None;
    }
    let line = |at: usize| u32::try_from(text.get(..at)?.matches('\n').count() + 1).ok();
    Some((line(at)?, line(at + part.len())?))
}

/// The folders of all crates that this project is built with on this machine, by name. Asks cargo, which fetches what
/// is not there.
fn crate_folders(root: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let version = run(root, "rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    let metadata = run(root, "cargo", &["metadata", "--format-version", "1", "--locked", "--filter-platform", host])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let mut folders = BTreeMap::<String, Vec<PathBuf>>::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let (Some(name), Some(manifest)) = (package["name"].as_str(), package["manifest_path"].as_str()) else {
            bail!("a package of cargo metadata has no name or no manifest");
        };
        let folder = Path::new(manifest).parent().context("a manifest is in no folder")?;
        folders.entry(name.to_owned()).or_default().push(folder.to_owned());
    }
    Ok(folders)
}

/// The standard output of a program that is run in `folder`.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(path: &str, text: &str) -> Document {
        Document { path: path.into(), text: text.into() }
    }

    fn set(file: &str, holds: &str) -> QuestionSet {
        let questions = format!(r#"[{{"question":"why?","answers":[{{"file":"{file}","holds":"{holds}"}}]}}]"#);
        let json = format!(r#"{{"crates":[],"extensions":["rs","md"],"largest_file":9,"questions":{questions}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn an_answer_is_the_lines_in_which_its_text_stands() {
        let documents = [document("a/src/b.rs", "one\ntwo\nthree\n")];
        let questions = set("a/src/b.rs", "wo\\nth").questions(&documents).unwrap();
        let answers = vec![Place { path: "a/src/b.rs".into(), lines: (2, 3) }];
        assert_eq!(questions, [Question { text: "why?".into(), answers }]);
    }

    #[test]
    fn a_text_that_is_not_there_exactly_once_is_an_error_that_names_the_question() {
        let documents = [document("a", "x x y")];
        for (file, holds) in [("a", "x"), ("a", "z"), ("a", ""), ("b", "y")] {
            let error = format!("{:#}", set(file, holds).questions(&documents).unwrap_err());
            assert!(error.contains("why?"), "{error}");
        }
    }

    #[test]
    fn sources_examples_and_markdown_are_read_and_nothing_else() {
        let set = set("", "");
        for wanted in ["a/src/x/y.rs", "a/examples/e.rs", "a/README.md", "a/tests/t.md"] {
            assert!(set.is_wanted(wanted), "{wanted}");
        }
        for unwanted in ["a/build.rs", "a/tests/t.rs", "a/src/x.json", "a/LICENSE"] {
            assert!(!set.is_wanted(unwanted), "{unwanted}");
        }
    }

    #[test]
    fn places_touch_when_they_share_a_line() {
        let place = |path: &str, lines| Place { path: path.into(), lines };
        assert!(place("a", (1, 5)).touches(&place("a", (5, 9))));
        assert!(place("a", (5, 9)).touches(&place("a", (6, 7))));
        assert!(!place("a", (1, 4)).touches(&place("a", (5, 9))));
        assert!(!place("a", (1, 5)).touches(&place("b", (1, 5))));
    }

    /// Guards tests/data/retrieval.json against a Cargo.lock with other versions.
    #[test]
    fn every_answer_of_the_question_set_is_in_its_file() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let set = QuestionSet::read(&root.join("tests/data/retrieval.json")).unwrap();
        let documents = set.documents(&crate_folders(&root).unwrap()).unwrap();
        assert!(documents.len() >= 300, "{} files are too few", documents.len());
        assert!(set.questions(&documents).unwrap().len() >= 60);
    }
}
