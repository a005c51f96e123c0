//! Moments as S3 writes them.

use std::time::UNIX_EPOCH;

use forebay_store::time::Timestamp;

const DAY: i64 = 86_400;

/// `20260131T235959Z`, as in signatures; a moment before 1970 is 1970.
pub(crate) fn amz_date(now: Timestamp) -> String {
    let seconds = now.seconds().max(0);
    let (year, month, day) = civil(seconds / DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads an HTTP date, as in headers ([RFC 9110 §5.6.7]).
///
/// [RFC 9110 §5.6.7]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
pub(crate) fn parse_http_date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text)
        .ok()?
        .duration_since(UNIX_EPOCH)
        .ok()?;
    Some(Timestamp(i64::try_from(since.as_nanos()).ok()?))
}

/// Reads `2026-01-31T23:59:59.000Z`, as in XML; the fraction may be missing or longer.
pub(crate) fn parse_iso8601(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let right = (1970..=2261).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !right || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}")[..9].parse().ok()?;
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    Some(Timestamp::from_parts(seconds, nanos))
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let digits = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<i64>().ok()).flatten()
    });
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// The Gregorian date of a day since the epoch.
///
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>, for days after 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the leap day is their last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The day since the epoch of a Gregorian date; the inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_513, (2026, 3, 1)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(day), date, "day {day}");
            assert_eq!(days(date.0, date.1, date.2), day, "day {day}");
        }
    }

    #[test]
    fn the_forms_of_a_moment_are_read() {
        let at = |seconds, nanos| Some(Timestamp::from_parts(seconds, nanos));
        for (text, expected) in [
            ("2013-05-24T00:00:00.000Z", at(1_369_353_600, 0)),
            ("2013-05-24T00:00:01Z", at(1_369_353_601, 0)),
            ("2013-05-24T00:00:01.25Z", at(1_369_353_601, 250_000_000)),
            (
                "2013-05-24T00:00:01.1234567891Z",
                at(1_369_353_601, 123_456_789),
            ),
            ("2013-05-24T00:00:01.Z", None),
            ("2013-13-24T00:00:01Z", None),
            ("2013-05-24 00:00:01Z", None),
            ("2013-05-24T00:00:01", None),
            ("2013-05-24T00:00Z", None),
            ("+13-05-24T00:00:01Z", None),
            ("", None),
        ] {
            assert_eq!(parse_iso8601(text), expected, "{text}");
        }
        assert_eq!(
            parse_http_date("Fri, 24 May 2013 00:00:00 GMT"),
            at(1_369_353_600, 0)
        );
        assert_eq!(parse_http_date("yesterday"), None);
    }

    #[test]
    fn a_signature_has_the_basic_form() {
        let at = Timestamp::from_parts(1_369_353_600 + 86_399, 999);
        assert_eq!(amz_date(at), "20130524T235959Z");
    }
}
