//! What the figures were measured on.

use std::fs;

use anyhow::Result;

use super::Arguments;

/// The beginning of the document: how it is made, machine, versions.
pub fn introduction(arguments: &Arguments) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut about = vec![format!("machine: {}", processor(&cpus))];
    // What else ran: a machine that is not idle changes every figure.
    about.extend(fs::read_to_string("/proc/loadavg").ok().and_then(|load| {
        load.split(' ').next().map(|minute| format!("load of the machine in the minute before: {minute}"))
    }));
    about.extend(arguments.about.iter().cloned());
    let mode = if arguments.quick { "QUICK=1, fewer and shorter runs" } else { "a full run" };
    let lines: Vec<String> = about.iter().map(|line| format!("- {line}")).collect();
    Ok(format!(
        "# redis-infer beside llama-server\n\n\
         Written by `make bench` ({mode}); not edited by hand. `ROWS=F1,F2 make bench` measures some rows, `QUICK=1 make bench`\n\
         takes about five minutes, both leave this file alone; `LLAMA_SERVER=path` compares with another llama-server.\n\n\
         Both sides run on the same machine with the same GGUF file (SmolLM2-135M-Instruct, Q4_1, where nothing else is\n\
         said), get the same prompts, answer greedily and with the same number of tokens, which is checked. Their runs\n\
         alternate (A B A B). Figures are medians, with the 10th and 90th percentile. llama-server runs with its prompt cache, and\n\
         beside its defaults with the best of the settings that each row lists.\n\n{}\n",
        lines.join("\n")
    ))
}

/// Model and number of CPUs, from /proc/cpuinfo.
fn processor(cpuinfo: &str) -> String {
    let values = |name: &str| {
        let lines = cpuinfo.lines().filter(move |line| line.starts_with(name));
        lines.filter_map(|line| line.split_once(':')).map(|(_, value)| value.trim()).collect::<Vec<_>>()
    };
    let models = values("model name");
    format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown CPU"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_counted_and_named() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\nmodel name\t: AMD EPYC\n";
        assert_eq!(processor(cpuinfo), "2 x AMD EPYC");
        assert_eq!(processor(""), "0 x unknown CPU");
    }
}
