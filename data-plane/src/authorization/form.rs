//! Parameters of the OAuth endpoints: queries and forms.

use std::collections::BTreeMap;

/// Bytes of a query or form that are read.
pub(super) const FORM_BYTES_MAX: usize = 64 * 1024;
/// Parameters of one request.
const FIELDS_MAX: usize = 64;

/// Parameters by name. A parameter that was given twice is an error (RFC 6749, section 3.1).
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads `application/x-www-form-urlencoded` text.
    ///
    /// # Errors
    /// A sentence for the client's developer.
    pub(super) fn read(text: &[u8]) -> Result<Self, &'static str> {
        if text.len() > FORM_BYTES_MAX {
            return Err("too many parameters");
        }
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text) {
            if value.is_empty() {
                continue;
            }
            if fields.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err("a parameter is given twice");
            }
            if fields.len() > FIELDS_MAX {
                return Err("too many parameters");
            }
        }
        Ok(Self(fields))
    }

    /// The value of a parameter; an empty one counts as not given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter that has to be there.
    ///
    /// # Errors
    /// A sentence that names it.
    pub(super) fn need(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("{name} is missing"))
    }
}

/// `url` with parameters added to its query.
pub(super) fn with_query(url: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
    }
    let separator = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{url}{separator}{}", query.finish())
}

/// A form body.
pub(super) fn encoded(parameters: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(parameters.iter().filter(|(_, value)| !value.is_empty()));
    form.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_once_each() {
        let fields = Fields::read(b"a=1&b=x%20y+z&c=").unwrap();
        assert_eq!((fields.get("a"), fields.get("b")), (Some("1"), Some("x y z")));
        assert_eq!(fields.get("c"), None);
        assert_eq!(fields.need("c").unwrap_err(), "c is missing");
        assert!(Fields::read(b"a=1&a=1").is_err());
        let many: String = (0..100).map(|at| format!("p{at}=1&")).collect();
        assert!(Fields::read(many.as_bytes()).is_err());
    }

    #[test]
    fn queries_are_added_to() {
        for (url, expect) in [
            ("https://a/b", "https://a/b?code=x%26y"),
            ("https://a/b?c=d", "https://a/b?c=d&code=x%26y"),
            ("https://a/b?", "https://a/b?code=x%26y"),
            ("cursor://host/callback", "cursor://host/callback?code=x%26y"),
        ] {
            assert_eq!(with_query(url, &[("code", "x&y"), ("state", "")]), expect);
        }
    }
}
