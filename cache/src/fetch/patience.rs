//! How often a reader tries again when a request fails that he waits for.

use crate::fetch::ReadError;
use crate::fetch::flight::Failure;
use crate::source::FetchError;

/// Failures for one block until a reader gives up, his own and others' together: when the origin is
/// down, a crowd of readers asks it this often and not once each.
const FAILURES_MAX: u32 = 3;
/// Refusals of other readers until a reader asks by himself. The crowd may hold many who have no
/// right any more; he must neither wait for all of them nor take their answer for his.
const REFUSALS_MAX: u32 = 2;

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again: whoever comes first brings the block with his source.
    Again,
    /// Go past the cache, with the reader's own source.
    Alone,
    /// That is the answer.
    GiveUp(ReadError),
}

/// The failures that one reader has seen for one block.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    failures: u32,
    refusals: u32,
}

impl Patience {
    /// What to do after another failure; `own` if it was the reader's own source.
    pub(crate) fn after(&mut self, failure: Failure, own: bool) -> Verdict {
        match failure.error {
            FetchError::Changed => Verdict::GiveUp(ReadError::Changed),
            FetchError::Denied(why) if own => Verdict::GiveUp(ReadError::Denied(why)),
            FetchError::Denied(_) => {
                self.refusals += 1;
                if self.refusals < REFUSALS_MAX {
                    Verdict::Again
                } else {
                    Verdict::Alone
                }
            }
            error @ (FetchError::Unavailable(_) | FetchError::Corrupt(_)) => {
                self.failures += 1;
                // A source tries again by itself what could not begin; asking it once more would
                // only double its deadline. A transfer that broke is tried again here.
                let hopeless = own && !failure.arrived;
                if hopeless || self.failures >= FAILURES_MAX {
                    Verdict::GiveUp(error.into())
                } else {
                    Verdict::Again
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: FetchError, arrived: bool) -> Failure {
        Failure { error, arrived }
    }

    fn unavailable() -> FetchError {
        FetchError::Unavailable(String::new())
    }

    #[test]
    fn ones_own_refusal_is_final_and_others_are_not() {
        let denied = || failure(FetchError::Denied("no".to_owned()), false);
        let mut patience = Patience::default();
        assert_eq!(patience.after(denied(), false), Verdict::Again);
        assert_eq!(patience.after(denied(), false), Verdict::Alone);
        assert_eq!(
            patience.after(denied(), true),
            Verdict::GiveUp(ReadError::Denied("no".to_owned()))
        );
    }

    #[test]
    fn a_broken_transfer_is_tried_again_and_a_dead_origin_is_not() {
        let mut patience = Patience::default();
        assert_eq!(
            patience.after(failure(unavailable(), true), true),
            Verdict::Again
        );
        assert_eq!(
            patience.after(failure(unavailable(), false), false),
            Verdict::Again
        );
        let last = patience.after(failure(unavailable(), true), false);
        assert!(matches!(last, Verdict::GiveUp(_)));
        let own = Patience::default().after(failure(unavailable(), false), true);
        assert!(matches!(own, Verdict::GiveUp(_)));
    }

    #[test]
    fn a_change_is_everybodys() {
        for own in [true, false] {
            let verdict = Patience::default().after(failure(FetchError::Changed, false), own);
            assert_eq!(verdict, Verdict::GiveUp(ReadError::Changed));
        }
    }
}
