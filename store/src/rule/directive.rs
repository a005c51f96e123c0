//! What a reader says about the cache, and where it is said.
//!
//! Over S3 a request says it. A file or a directory of the mount can say it for all who open it, by
//! an extended attribute, which is kept with the object, in its user metadata.

/// The user metadata that keeps what the extended attribute says.
const METADATA: &str = "forebay-cache-control";

/// What a request's `Cache-Control` means to the cache, as `CoreWeave`'s LOTA has it.
///
/// Mind that `no-cache` still reads the cache, other than in RFC 9111.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Directive {
    /// Look in the cache, and fill it with what it lacks.
    #[default]
    Use,
    /// `no-cache`: look in the cache, but don't fill it.
    NoFill,
    /// `no-store`: leave the cache alone.
    Bypass,
}

impl Directive {
    /// Reads values of `Cache-Control`: lists of tokens, in any case. `no-store` wins over
    /// `no-cache`; what else there is has no meaning here.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::Use;
        for token in values.into_iter().flat_map(|value| value.split(',')) {
            let name = token.split('=').next().unwrap_or_default().trim();
            if name.eq_ignore_ascii_case("no-store") {
                return Self::Bypass;
            }
            if name.eq_ignore_ascii_case("no-cache") {
                found = Self::NoFill;
            }
        }
        found
    }

    /// The one word that means it: what the extended attribute and the mount's option take.
    pub fn word(self) -> &'static str {
        match self {
            Self::Use => "default",
            Self::NoFill => "no-cache",
            Self::Bypass => "no-store",
        }
    }

    /// What a word means; `None` if it is none.
    pub fn from_word(word: &[u8]) -> Option<Self> {
        [Self::Use, Self::NoFill, Self::Bypass]
            .into_iter()
            .find(|directive| directive.word().as_bytes() == word)
    }

    /// What user metadata says of it, if it does.
    pub fn kept_in(metadata: &[(String, Vec<u8>)]) -> Option<Self> {
        let (_, word) = metadata.iter().find(|(name, _)| name == METADATA)?;
        Self::from_word(word)
    }

    /// Has user metadata say `directive`, or nothing of it.
    pub fn keep_in(metadata: &mut Vec<(String, Vec<u8>)>, directive: Option<Self>) {
        metadata.retain(|(name, _)| name != METADATA);
        if let Some(directive) = directive {
            metadata.push((METADATA.to_owned(), directive.word().into()));
        }
    }

    /// Whether the cache is looked at.
    pub fn looks(self) -> bool {
        self != Self::Bypass
    }

    /// Whether what the cache lacks is put into it.
    pub fn fills(self) -> bool {
        self == Self::Use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_once_and_read_back() {
        let mut metadata = vec![("mode".to_owned(), b"33188".to_vec())];
        assert_eq!(Directive::kept_in(&metadata), None);
        for directive in [Directive::NoFill, Directive::Use, Directive::Bypass] {
            Directive::keep_in(&mut metadata, Some(directive));
            assert_eq!(Directive::kept_in(&metadata), Some(directive));
            assert_eq!(metadata.len(), 2);
        }
        Directive::keep_in(&mut metadata, None);
        assert_eq!(metadata.len(), 1);
        for word in ["", "no-stor", "NO-STORE", "no-store\n", "max-age=0"] {
            assert_eq!(Directive::from_word(word.as_bytes()), None, "{word:?}");
        }
    }

    #[test]
    fn no_store_wins_and_case_does_not_matter() {
        for (values, expected) in [
            (vec![], Directive::Use),
            (vec![""], Directive::Use),
            (vec!["max-age=0"], Directive::Use),
            (vec!["no-cache"], Directive::NoFill),
            (vec!["No-Cache"], Directive::NoFill),
            (vec!["max-age=0, no-cache"], Directive::NoFill),
            (vec!["no-cache=\"x-secret\""], Directive::NoFill),
            (vec!["no-store"], Directive::Bypass),
            (vec!["no-cache, NO-STORE"], Directive::Bypass),
            (vec!["no-store", "no-cache"], Directive::Bypass),
            (vec!["no-cachet"], Directive::Use),
        ] {
            assert_eq!(
                Directive::parse(values.iter().copied()),
                expected,
                "{values:?}"
            );
        }
    }
}
