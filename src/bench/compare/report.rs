//! What a row found, and the document that is made of all of them.

use std::fmt::Write;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

/// A goal and what came of it: a line of the first table.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// F1 and so on.
    pub id: &'static str,
    /// What is compared with what, and the unit when it is not a ratio.
    pub what: String,
    pub goal: Goal,
    /// `None` when it cannot be measured; `cause` says why.
    pub value: Option<f64>,
    /// Why a goal is missed, from figures of this very run. Shown only then.
    pub cause: String,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self.value {
            None => "not measured",
            Some(value) if self.goal.met(value) => "met",
            Some(_) => "**missed**",
        }
    }
}

/// Columns and rows of text.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one with these columns.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// As Markdown; the first column to the left, numbers to the right.
    pub fn markdown(&self) -> String {
        let width = |column: usize| {
            let cells = std::iter::once(&self.head).chain(&self.rows).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = widths.iter().enumerate().map(|(column, &width)| {
            if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
        });
        let mut text = line(&self.head);
        text.push_str(&format!("| {} |\n", rule.collect::<Vec<_>>().join(" | ")));
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }
}

/// A curve to draw: a name and its points.
#[derive(Clone, Debug)]
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// A plot beside the document.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Name of the file, without its ending.
    pub file: &'static str,
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    /// The x axis is logarithmic.
    pub log_x: bool,
    pub curves: Vec<Curve>,
}

/// What one row of the comparison found.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub title: &'static str,
    /// What was done, and how the figures are defined.
    pub text: Vec<String>,
    pub tables: Vec<Table>,
    pub plots: Vec<Plot>,
    pub verdicts: Vec<Verdict>,
}

impl Section {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        for paragraph in &self.text {
            text.push_str(&format!("{paragraph}\n\n"));
        }
        for table in &self.tables {
            text.push_str(&format!("{}\n", table.markdown()));
        }
        for plot in &self.plots {
            text.push_str(&format!("![{}]({}.svg)\n\n", plot.title, plot.file));
        }
        for verdict in &self.verdicts {
            let value = verdict.value.map_or("-".into(), |value| format!("{value:.2}"));
            let (id, what, goal, word) = (verdict.id, &verdict.what, verdict.goal.text(), verdict.word());
            text.push_str(&format!("{id}, {what}: {value}, goal {goal}: {word}.{}\n\n", because(verdict)));
        }
        text
    }
}

fn because(verdict: &Verdict) -> String {
    if verdict.word() == "met" || verdict.cause.is_empty() { String::new() } else { format!(" {}", verdict.cause) }
}

/// The whole document.
pub fn document(introduction: &str, sections: &[Section]) -> String {
    let mut verdicts = Table::new(&["goal", "figure", "wanted", "measured", "verdict"]);
    for verdict in sections.iter().flat_map(|section| &section.verdicts) {
        let value = verdict.value.map_or("-".into(), |value| format!("{value:.2}"));
        verdicts.row([verdict.id, &verdict.what, &verdict.goal.text(), &value, verdict.word()]);
    }
    let mut text = format!("{introduction}\n{}\n", verdicts.markdown());
    for section in sections {
        // Writing to a String does not fail.
        let _ = write!(text, "{}", section.markdown());
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(value: Option<f64>) -> Verdict {
        Verdict { id: "F1", what: "tokens".into(), goal: Goal::AtLeast(1.0), value, cause: "Because.".into() }
    }

    #[test]
    fn a_bound_itself_meets_its_goal() {
        assert!(Goal::AtLeast(1.0).met(1.0) && !Goal::AtLeast(1.0).met(0.99));
        assert!(Goal::AtMost(1.0).met(1.0) && !Goal::AtMost(1.0).met(1.01));
        assert!(!Goal::AtLeast(1.0).met(f64::NAN) && !Goal::AtMost(1.0).met(f64::NAN));
    }

    #[test]
    fn the_cause_is_told_of_a_missed_goal_only() {
        let markdown = |value| Section { verdicts: vec![verdict(value)], ..Section::default() }.markdown();
        assert!(markdown(Some(0.5)).contains("0.50, goal >= 1: **missed**. Because."));
        assert!(!markdown(Some(1.5)).contains("Because."));
        assert!(markdown(None).contains("not measured. Because."));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["side", "tok/s"]);
        table.row(["redis-infer", "7"]);
        assert_eq!(table.markdown(), "| side        | tok/s |\n| ----------- | ----: |\n| redis-infer |     7 |\n");
    }

    #[test]
    fn the_document_begins_with_all_verdicts() {
        let section = |title| Section { title, verdicts: vec![verdict(Some(1.0))], ..Section::default() };
        let text = document("Intro.\n", &[section("One"), section("Two")]);
        let first_section = text.find("## One").unwrap();
        assert_eq!(text[..first_section].matches("| F1").count(), 2);
        assert!(text.starts_with("Intro.\n") && text.ends_with("met.\n"));
    }
}
