//! Moments in time, and the clock that tests own.

use std::fmt;

/// A moment: nanoseconds since 1970-01-01T00:00:00Z, negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

impl Timestamp {
    /// From whole seconds and the nanoseconds within that second.
    pub const fn from_parts(seconds: i64, nanos: u32) -> Self {
        Self(seconds.saturating_mul(SECOND).saturating_add(nanos as i64))
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// Nanoseconds within the second, 0 to 999,999,999.
    #[expect(clippy::cast_possible_truncation, reason = "0 <= rem < 1e9")]
    pub const fn subsec_nanos(self) -> u32 {
        self.0.rem_euclid(SECOND) as u32
    }
}

/// Where the store takes the time from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine"
    )]
    fn now(&self) -> Timestamp {
        use std::time::{SystemTime, UNIX_EPOCH};
        let nanos = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
        };
        Timestamp(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_have_positive_nanos() {
        let half_before = Timestamp(-500_000_000);
        assert_eq!(
            (half_before.seconds(), half_before.subsec_nanos()),
            (-1, 500_000_000)
        );
        assert_eq!(Timestamp::from_parts(-1, 500_000_000), half_before);
    }
}
