//! Which versions of a chunk may be in the vector set, as the document's hash says it: `VERSION` when that one is there,
//! `?VERSION,VERSION` when a write began and did not end.

/// Marks a list of versions of which any may be stored.
const UNSETTLED: char = '?';

/// The versions of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    settled: bool,
    names: Vec<String>,
}

impl Versions {
    /// Reads the field of a document's hash. What is no version, because somebody else wrote it, is left out.
    pub fn parse(field: &[u8]) -> Self {
        let text = std::str::from_utf8(field).unwrap_or_default();
        let (settled, list) = text.strip_prefix(UNSETTLED).map_or((true, text), |list| (false, list));
        let is_version = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let names: Vec<String> = list.split(',').filter(is_version).map(str::to_owned).collect();
        Self { settled: settled && names.len() == 1, names }
    }

    /// The one version that is stored; `None` when there is none or a write did not end.
    pub fn settled(&self) -> Option<&str> {
        if self.settled { self.names.first().map(String::as_str) } else { None }
    }

    /// Every version that may be stored.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The field for the time in which `new` takes the place of these.
    pub fn unsettled(&self, new: Option<&str>) -> String {
        let new = new.filter(|new| self.all().all(|name| name != *new));
        let names: Vec<&str> = self.all().chain(new).collect();
        format!("{UNSETTLED}{}", names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_is_settled() {
        let versions = Versions::parse(b"0a1b");
        assert_eq!(versions.settled(), Some("0a1b"));
        assert_eq!(versions.all().collect::<Vec<_>>(), ["0a1b"]);
    }

    #[test]
    fn nothing_is_no_version() {
        let versions = Versions::parse(b"");
        assert_eq!((versions.settled(), versions.all().count()), (None, 0));
    }

    #[test]
    fn a_write_that_did_not_end_leaves_all_its_versions_and_none_settled() {
        let field = Versions::parse(b"0a").unsettled(Some("0b"));
        let versions = Versions::parse(field.as_bytes());
        assert_eq!(versions.settled(), None);
        assert_eq!(versions.all().collect::<Vec<_>>(), ["0a", "0b"]);
        assert_eq!(versions.unsettled(Some("0a")), field);
    }

    #[test]
    fn a_first_version_is_unsettled_while_it_is_written() {
        let versions = Versions::parse(Versions::parse(b"").unsettled(Some("0a")).as_bytes());
        assert_eq!((versions.settled(), versions.all().collect::<Vec<_>>()), (None, vec!["0a"]));
    }

    #[test]
    fn what_somebody_else_wrote_is_no_version() {
        for field in [&b"\xff"[..], b"a b", b"?,,", b"x:y", b"?"] {
            let versions = Versions::parse(field);
            assert_eq!((versions.settled(), versions.all().count()), (None, 0), "{field:?}");
        }
    }
}
