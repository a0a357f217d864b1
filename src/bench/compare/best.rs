//! llama-server at its best: the settings that a user would try, each tried once before a row is measured.

use anyhow::{Context, Result};

use super::Bench;
use super::ours::Model;
use super::peer::Peer;
use super::report::Table;

/// The settings that won.
#[derive(Clone, Debug)]
pub struct Best {
    /// Their flags.
    pub flags: Vec<String>,
    /// All that were tried, with what they reached.
    pub tried: Table,
}

/// Tries each of the settings, and takes the one with the highest figure.
pub fn best(
    bench: &Bench,
    model: &Model,
    settings: &[String],
    figure: &str,
    mut trial: impl FnMut(&Peer) -> Result<f64>,
) -> Result<Best> {
    let mut tried = Table::new(&["llama-server, tried once", figure]);
    let mut winner: Option<(f64, Vec<String>)> = None;
    for setting in settings {
        let flags = words(setting);
        let peer = bench.peer(&model.path, &flags)?;
        trial(&peer).context("warming up")?;
        let value = trial(&peer)?;
        let name = if setting.is_empty() { "defaults".into() } else { format!("`{setting}`") };
        tried.row([name, format!("{value:.1}")]);
        if winner.as_ref().is_none_or(|(most, _)| value > *most) {
            winner = Some((value, flags));
        }
    }
    let (_, flags) = winner.context("no settings to try")?;
    Ok(Best { flags, tried })
}

/// Flags as a list.
pub fn words(flags: &str) -> Vec<String> {
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Numbers of threads worth trying: all CPUs, half of them, one.
pub fn thread_counts(cpus: usize) -> Vec<usize> {
    let mut counts = vec![cpus, cpus / 2, 1];
    counts.retain(|&count| count > 0);
    counts.dedup();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_threads_is_tried_twice() {
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(2), [2, 1]);
        assert_eq!(thread_counts(8), [8, 4, 1]);
    }
}
