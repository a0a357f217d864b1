//! File names without their folders: what people may see who may not load files.

/// The last part of a path.
#[must_use]
pub fn file_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// `text` with the last part only of each of `paths`, and of all else in it that looks like a path.
#[must_use]
pub fn without_folders<'a>(text: &str, paths: impl Iterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    // These may have spaces in them.
    for path in paths.filter(|path| path.contains('/')) {
        text = text.replace(path, file_name(path));
    }
    let ends_word = |c: char| c.is_whitespace() || "()'\",;:".contains(c);
    text.split_inclusive(ends_word)
        .map(|word| {
            let path = word.trim_end_matches(ends_word);
            let end = word.get(path.len()..).unwrap_or_default();
            // A slash between words, as in "and/or", is none of a folder.
            let is_path = path.starts_with('/') || path.starts_with("./") || path.starts_with("../");
            if is_path { format!("{}{end}", file_name(path)) } else { word.to_owned() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_path_the_last_part_is_left() {
        for (path, name) in [("/a/b.gguf", "b.gguf"), ("b.gguf", "b.gguf"), ("../x/y/", "y"), ("/", ""), ("", "")] {
            assert_eq!(file_name(path), name);
        }
    }

    #[test]
    fn no_folder_is_left_in_a_text() {
        let known = ["/srv/my models/chat.gguf", "rel/lora.gguf"];
        for (text, shown) in [
            ("it is empty (/srv/my models/chat.gguf)", "it is empty (chat.gguf)"),
            ("LORA: no (rel/lora.gguf); /etc/x/y: gone", "LORA: no (lora.gguf); y: gone"),
            ("failed to open '/data/m-00002-of-3.gguf'", "failed to open 'm-00002-of-3.gguf'"),
            ("../../secret/a, and/or 1/2", "a, and/or 1/2"),
            ("nothing to hide", "nothing to hide"),
            ("", ""),
        ] {
            assert_eq!(without_folders(text, known.into_iter()), shown);
        }
    }
}
