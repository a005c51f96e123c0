//! Moments as S3 writes them: ISO 8601 in XML, HTTP dates in headers, the basic form in signatures.
//!
//! A moment is milliseconds since 1970 (`unix_ms`), a coarse one whole seconds (`unix_s`).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_S: i64 = 86_400;

/// Year, month, day, hour, minute, second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_index = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_index + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil(unix_s: i64) -> Civil {
    let days = unix_s.div_euclid(DAY_S) + 719_468;
    let of_day = u32::try_from(unix_s.rem_euclid(DAY_S)).expect("below 86,400");
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = u32::try_from(day_of_year - (153 * month_index + 2) / 5 + 1).expect("1 to 31");
    let month = u32::try_from((month_index + 2) % 12 + 1).expect("1 to 12");
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day,
        hour: of_day / 3600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
    }
}

/// `2025-01-02T03:04:05.000Z`, as in S3's XML.
pub(crate) fn iso8601(unix_ms: i64) -> String {
    let c = civil(unix_ms.div_euclid(1000));
    let mut text = String::with_capacity(24);
    write!(
        text,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        c.year,
        c.month,
        c.day,
        c.hour,
        c.minute,
        c.second,
        unix_ms.rem_euclid(1000)
    )
    .expect("writing to a String can't fail");
    text
}

/// `20250102T030405Z`, as in signatures.
pub(crate) fn amz_date(unix_s: i64) -> String {
    let c = civil(unix_s);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// `Thu, 02 Jan 2025 03:04:05 GMT` (RFC 9110 §5.6.7), whole seconds.
pub(crate) fn http_date(unix_s: i64) -> String {
    // What lies outside of the format's years is shown as its nearest end.
    let seconds = u64::try_from(unix_s).unwrap_or(0).min(253_402_300_799);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Whole seconds since 1970 of a moment of this machine.
pub(crate) fn unix_s(moment: SystemTime) -> i64 {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match moment.duration_since(UNIX_EPOCH) {
        Ok(after) => seconds(after),
        Err(before) => -seconds(before.duration()),
    }
}

/// Parses `yyyymmddThhmmssZ`.
pub(crate) fn parse_amz_date(text: &str) -> Option<i64> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| digits(&bytes[range]);
    compose(
        number(0..4)?,
        number(4..6)?,
        number(6..8)?,
        number(9..11)?,
        number(11..13)?,
        number(13..15)?,
    )
}

/// Parses an HTTP date in any of its three forms.
///
/// Mail's ways to write the zone (`-0000`, `+0000`) are taken too: some clients' libraries have
/// them.
pub(crate) fn parse_http_date(text: &str) -> Option<i64> {
    let zone = [" -0000", " +0000", " UTC"]
        .into_iter()
        .find_map(|zone| text.strip_suffix(zone));
    if let Some(moment) = zone {
        return parse_http_date(&format!("{moment} GMT"));
    }
    httpdate::parse_http_date(text).ok().map(unix_s)
}

/// Parses RFC 3339 in UTC or with an offset; parts of a second are dropped.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || separators.iter().any(|(at, byte)| bytes[*at] != *byte) {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let number = |range: std::ops::Range<usize>| digits(&bytes[range]);
    let local = compose(
        number(0..4)?,
        number(5..7)?,
        number(8..10)?,
        number(11..13)?,
        number(14..16)?,
        number(17..19)?,
    )?;
    let mut zone = &bytes[19..];
    if let Some(fraction) = zone.strip_prefix(b".") {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        zone = (len > 0).then(|| &fraction[len..])?;
    }
    match zone {
        b"Z" | b"z" => Some(local),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let offset = i64::from(digits(&[*h1, *h2])? * 3600 + digits(&[*m1, *m2])? * 60);
            Some(if *sign == b'+' {
                local - offset
            } else {
                local + offset
            })
        }
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0u32, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u32::from(byte - b'0'))
    })
}

fn compose(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_from_civil(i64::from(year), month, day) * DAY_S
        + i64::from(hour * 3600 + minute * 60 + second);
    // A day that the month does not have comes back as another one.
    let back = civil(seconds - i64::from(second));
    (back.month == month && back.day == day).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_one_moment_agree() {
        let unix_s = 1_369_353_600;
        assert_eq!(amz_date(unix_s), "20130524T000000Z");
        assert_eq!(iso8601(unix_s * 1000 + 7), "2013-05-24T00:00:00.007Z");
        assert_eq!(http_date(unix_s), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(parse_amz_date("20130524T000000Z"), Some(unix_s));
        assert_eq!(
            parse_http_date("Fri, 24 May 2013 00:00:00 GMT"),
            Some(unix_s)
        );
        assert_eq!(
            parse_http_date("Fri, 24 May 2013 00:00:00 -0000"),
            Some(unix_s)
        );
        assert_eq!(parse_rfc3339("2013-05-24T00:00:00Z"), Some(unix_s));
        assert_eq!(parse_rfc3339("2013-05-24T02:00:00.5+02:00"), Some(unix_s));
    }

    #[test]
    fn leap_days_exist_in_leap_years_only() {
        assert_eq!(iso8601(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(parse_amz_date("20000229T000000Z"), Some(951_782_400));
        assert_eq!(parse_amz_date("20010229T000000Z"), None);
        assert_eq!(iso8601(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "20130524T000000",
            "20131324T000000Z",
            "2013-05-24T00:00:00Z",
            "x",
        ] {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
        for text in [
            "2013-05-24",
            "2013-05-24T00:00:00",
            "2013-05-24T00:00:00.Z",
            "é",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
