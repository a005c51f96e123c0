//! What a reader says about the cache.

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
