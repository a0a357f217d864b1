//! Where `$ref` leads inside of a schema: by JSON pointer, `$anchor` and `$id`, with percent-escapes.

use std::collections::HashMap;

use serde_json::Value;

use super::keywords::Holds;
use super::{SchemaError, shown};

/// Names a schema inside of the text: two with the same key are the same.
pub(super) type Key = usize;

pub(super) fn key(schema: &Value) -> Key {
    std::ptr::from_ref(schema).addr()
}

/// The places of a schema that have names.
#[derive(Debug)]
pub(super) struct Places<'a> {
    root: &'a Value,
    /// Schemas with an `$id`, by their address.
    resources: HashMap<String, &'a Value>,
    /// Schemas with an `$anchor`, by the address of their resource and the anchor.
    anchors: HashMap<(String, String), &'a Value>,
    /// The address of the resource that a schema with a reference stands in; not for those of the root's.
    bases: HashMap<Key, String>,
    root_base: String,
}

impl<'a> Places<'a> {
    pub(super) fn of(root: &'a Value) -> Self {
        let mut places = Self {
            root,
            resources: HashMap::new(),
            anchors: HashMap::new(),
            bases: HashMap::new(),
            root_base: String::new(),
        };
        places.root_base = places.collect(root, "");
        places.resources.insert(String::new(), root);
        places
    }

    /// Takes note of the names in `schema` and below; returns its address.
    fn collect(&mut self, schema: &'a Value, base: &str) -> String {
        let Some(members) = schema.as_object() else { return base.to_owned() };
        let text = |keyword: &str| members.get(keyword).and_then(Value::as_str);
        let mut base = base.to_owned();
        if let Some(id) = text("$id") {
            let (address, fragment) = split(id);
            if !address.is_empty() {
                base = join(&base, address);
                self.resources.insert(base.clone(), schema);
            }
            // An anchor, in old drafts.
            if !fragment.is_empty() {
                self.anchors.insert((base.clone(), fragment.to_owned()), schema);
            }
        }
        for anchor in ["$anchor", "$dynamicAnchor"].into_iter().filter_map(text) {
            self.anchors.insert((base.clone(), anchor.to_owned()), schema);
        }
        if members.contains_key("$ref") && !base.is_empty() {
            self.bases.insert(key(schema), base.clone());
        }
        for (keyword, value) in members {
            for schema in Holds::of(keyword).schemas(value) {
                self.collect(schema, &base);
            }
        }
        base
    }

    /// Where `reference` in `schema` leads.
    pub(super) fn find(&self, schema: &Value, reference: &str) -> Result<&'a Value, SchemaError> {
        let base = self.bases.get(&key(schema)).unwrap_or(&self.root_base);
        let (address, fragment) = split(reference);
        let address = if address.is_empty() { base.clone() } else { join(base, address) };
        let resource = if address == self.root_base { Some(self.root) } else { self.resources.get(&address).copied() };
        let Some(resource) = resource else {
            return Err(SchemaError::Unusable(format!(
                "'$ref' to {} leads out of the schema; put what it means into '$defs'",
                shown(reference)
            )));
        };
        let fragment = unescaped(fragment);
        let found = match fragment.as_deref() {
            Some("") => Some(resource),
            Some(pointer) if pointer.starts_with('/') => resource.pointer(pointer),
            Some(anchor) => self.anchors.get(&(address, anchor.to_owned())).copied(),
            None => None,
        };
        found.ok_or_else(|| SchemaError::Unusable(format!("'$ref' to {} leads nowhere", shown(reference))))
    }
}

/// An address, and what follows `#`.
fn split(reference: &str) -> (&str, &str) {
    reference.split_once('#').unwrap_or((reference, ""))
}

/// The address that `reference` means in a document at `base`, as RFC 3986 says; `.` and `..` are not followed, because
/// addresses are only compared.
fn join(base: &str, reference: &str) -> String {
    let has_scheme = |text: &str| {
        text.split_once(':').is_some_and(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        })
    };
    if has_scheme(reference) || base.is_empty() {
        return reference.to_owned();
    }
    // Where the authority begins, and where the path does.
    let authority = base.find("//");
    let path = match authority {
        Some(at) => base[at + 2..].find('/').map_or(base.len(), |slash| at + 2 + slash),
        None => base.find(':').map_or(0, |colon| colon + 1),
    };
    if reference.starts_with("//") {
        return format!("{}{reference}", &base[..authority.unwrap_or(0)]);
    }
    if reference.starts_with('/') {
        return format!("{}{reference}", &base[..path]);
    }
    match base[path..].rfind('/') {
        Some(last) => format!("{}{reference}", &base[..=path + last]),
        None if authority.is_some() => format!("{}/{reference}", &base[..path]),
        None => format!("{}{reference}", &base[..path]),
    }
}

/// `text` without percent-escapes; `None` if they are none, or not UTF-8.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            digit()? << 4 | digit()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_as_in_web_pages() {
        for (base, reference, expected) in [
            ("", "a.json", "a.json"),
            ("https://x.org/a/b.json", "c.json", "https://x.org/a/c.json"),
            ("https://x.org/a/b.json", "/c.json", "https://x.org/c.json"),
            ("https://x.org/a/b.json", "//y.org/c", "https://y.org/c"),
            ("https://x.org/a/b.json", "urn:c", "urn:c"),
            ("https://x.org", "c.json", "https://x.org/c.json"),
            ("b.json", "c.json", "c.json"),
            ("a/b.json", "c.json", "a/c.json"),
        ] {
            assert_eq!(join(base, reference), expected, "{base} {reference}");
        }
    }

    #[test]
    fn percent_escapes_are_bytes_of_text() {
        assert_eq!(unescaped("/a%20b%25%e6%bc%A2").as_deref(), Some("/a b%\u{6f22}"));
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(unescaped(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_addresses_can_be_joined(base in "[a-z:/#\u{6f22}.]{0,12}", reference in "[a-z:/#\u{6f22}.]{0,12}") {
            join(&base, &reference);
        }
    }
}
