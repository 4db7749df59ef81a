//! Who the host is: a token that was given, or one that was signed in for.

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use weir_model::secret::Secret;

use super::sign_in::{SignIn, SignInError};

/// Where tokens come from.
#[derive(Debug)]
pub(super) enum Credentials {
    /// From the environment. When it is refused, nothing can be done here.
    Given(Secret<String>),
    /// From an authorization server.
    SignedIn(Box<SignIn>),
}

impl Credentials {
    pub(super) fn given(token: Secret<String>) -> Self {
        Self::Given(token)
    }

    pub(super) fn signed_in(sign_in: SignIn) -> Self {
        Self::SignedIn(Box::new(sign_in))
    }

    /// The `Authorization` header for an endpoint. Nothing when no token is known: the endpoint
    /// may take nobody's requests, or will say where to sign in.
    pub(super) async fn bearer(&self, url: &str) -> Option<HeaderValue> {
        match self {
            Self::Given(token) => header(token),
            Self::SignedIn(sign_in) => header(&sign_in.token(url).await?),
        }
    }

    /// Gets a better token than the one that was refused: renews it, or signs in.
    ///
    /// # Errors
    /// What a person has to do.
    pub(super) async fn renew(
        &self,
        url: &str,
        refused: Option<&HeaderValue>,
        challenge: &Challenge,
    ) -> Result<(), SignInError> {
        match self {
            Self::Given(_) => Err(SignInError::TokenRefused),
            Self::SignedIn(sign_in) => {
                let refused =
                    refused.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
                sign_in.renew(url, refused, challenge).await
            }
        }
    }

    /// Signs in at every endpoint.
    ///
    /// # Errors
    /// What a person has to do.
    pub(super) async fn sign_in_now(&self, urls: &[String]) -> Result<(), SignInError> {
        let Self::SignedIn(sign_in) = self else { return Err(SignInError::TokenGiven) };
        for url in urls {
            sign_in.begin(url).await?;
        }
        Ok(())
    }
}

fn header(token: &Secret<String>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a refusal says about tokens (RFC 6750, RFC 9728).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Where the resource describes itself.
    pub(super) metadata: Option<String>,
    /// Scopes that would do.
    pub(super) scope: Option<String>,
    /// `invalid_token`, `insufficient_scope`, ...
    pub(super) error: Option<String>,
}

impl Challenge {
    /// Reads the Bearer challenge of an answer; empty when there is none.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let all = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut challenge = Self::default();
        for text in all {
            let Some((scheme, parameters)) = text.trim().split_once(' ') else { continue };
            if !scheme.eq_ignore_ascii_case("bearer") {
                continue;
            }
            for (name, value) in Parameters(parameters) {
                match name.to_ascii_lowercase().as_str() {
                    "resource_metadata" => challenge.metadata = Some(value),
                    "scope" => challenge.scope = Some(value),
                    "error" => challenge.error = Some(value),
                    _ => {}
                }
            }
        }
        challenge
    }

    /// True when a token with more scopes would do.
    pub(super) fn wants_scope(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope")
    }
}

/// `name="value"` pairs; ends at the first thing that is none.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches([' ', ',', '\t']);
        let (name, rest) = text.split_once('=')?;
        let rest = rest.trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
            Some(quoted) => {
                let mut value = String::new();
                let mut characters = quoted.char_indices();
                let end = loop {
                    match characters.next()? {
                        (at, '"') => break at + 1,
                        (_, '\\') => value.push(characters.next()?.1),
                        (_, character) => value.push(character),
                    }
                };
                (value, &quoted[end..])
            }
        };
        self.0 = rest;
        Some((name.trim(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        Challenge::read(&headers)
    }

    #[test]
    fn challenges_are_read_in_any_spelling() {
        let full = read(&[
            "Basic realm=\"x\"",
            r#"bearer realm="a, \"b\"", error=insufficient_scope, scope="tools:call tools:list", resource_metadata="https://gw/x""#,
        ]);
        assert_eq!(full.metadata.as_deref(), Some("https://gw/x"));
        assert_eq!(full.scope.as_deref(), Some("tools:call tools:list"));
        assert!(full.wants_scope());
        for nothing in
            [&[][..], &["Basic realm=\"x\""], &["Bearer"], &["Bearer x"], &["Bearer a=\""]]
        {
            assert_eq!(read(nothing), Challenge::default(), "{nothing:?}");
        }
    }

    #[test]
    fn tokens_do_not_show() {
        let given = Credentials::given(Secret::new("weir_sa_secret".to_owned()));
        assert!(!format!("{given:?}").contains("weir_sa_secret"));
        let value = header(&Secret::new("weir_sa_secret".to_owned())).unwrap();
        assert!(!format!("{value:?}").contains("weir_sa_secret"));
    }
}
