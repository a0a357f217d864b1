//! What people read: at most 80 columns wide, sizes and times in units.

use std::io::{self, ErrorKind, Write};

use crate::failure::Failure;

/// Columns of a line.
pub const WIDTH: usize = 80;

/// Writes to standard output. A reader that has gone away, such as `head`, is no error.
///
/// # Errors
/// When the output cannot be written, for instance to a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// `text` with its long lines wrapped, each line after `margin`; the parts of a line keep its indentation.
pub fn wrapped(text: &str, margin: &str) -> String {
    let mut lines = Vec::new();
    for line in text.trim_end().lines() {
        let line = clean(line);
        let content = line.trim_start();
        let indent = format!("{margin}{}", &line[..line.len() - content.len()]);
        let options = textwrap::Options::new(WIDTH).initial_indent(&indent).subsequent_indent(&indent);
        lines.extend(textwrap::wrap(content, options).into_iter().map(|line| line.trim_end().to_owned()));
    }
    lines.join("\n")
}

/// Text from elsewhere without what could steer a terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// Rows of cells in columns, two blanks between them.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |cell: &String| textwrap::core::display_width(cell);
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..count).map(|at| rows.iter().filter_map(|row| row.get(at)).map(width).max().unwrap_or(0)).collect();
    let mut lines = Vec::new();
    for row in rows {
        let mut line = String::new();
        for (cell, widest) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(widest - width(cell) + 2));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// A number of bytes in the largest unit of which it has one.
pub fn bytes(count: u64) -> String {
    for (unit, name) in [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")] {
        if count >= unit {
            return format!("{:.1} {name}", count as f64 / unit as f64);
        }
    }
    format!("{count} B")
}

/// A time in microseconds, as milliseconds or seconds.
pub fn microseconds(count: u64) -> String {
    if count < 1_000_000 { format!("{:.1} ms", count as f64 / 1e3) } else { format!("{:.2} s", count as f64 / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_and_keep_their_indentation() {
        let text = format!("{}\n  {}\nlast\n\n", "word ".repeat(20), "deep ".repeat(20));
        let wrapped = wrapped(&text, "> ");
        let lines: Vec<&str> = wrapped.lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("> ") && line.chars().count() <= WIDTH), "{lines:#?}");
        assert_eq!(lines.len(), 5);
        assert!(lines[2].starts_with(">   deep") && lines[3].starts_with(">   deep"), "{lines:#?}");
        assert_eq!(lines[4], "> last");
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_shown() {
        assert_eq!(wrapped("a\u{1b}[2Jb\tc\r\nd\u{7}", ""), "a[2Jb c\nd");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["name", "state"], ["一", "ready"], ["x", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "name  state\n一    ready\nx");
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!([bytes(999), bytes(1500), bytes(2_340_000)], ["999 B", "1.5 KB", "2.3 MB"]);
        assert_eq!([microseconds(420), microseconds(4_720_000)], ["0.4 ms", "4.72 s"]);
    }
}
