//! `Range`: one range of bytes, or the whole (RFC 9110 §14).
//!
//! S3 serves a single range. What is not one, several ranges among it, is ignored, as if it was not
//! there; what lies outside of the object is refused.

/// What a request asks for of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ranged {
    /// All of it.
    Whole,
    /// `len` bytes from `offset`, within the object; `len` is not 0.
    Part {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Nothing that the object has.
    Unsatisfiable,
}

/// Reads a `Range` header for an object of `size` bytes.
pub(crate) fn parse(header: &str, size: u64) -> Ranged {
    let Some(spec) = header.trim().strip_prefix("bytes=") else {
        return Ranged::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Ranged::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix.min(size) {
            0 => Ranged::Unsatisfiable,
            len => Ranged::Part {
                offset: size - len,
                len,
            },
        },
        (Some(offset), last_byte) if last.is_empty() || last_byte.is_some() => {
            let last_byte = last_byte.unwrap_or(u64::MAX);
            if last_byte < offset {
                Ranged::Whole
            } else if offset >= size {
                Ranged::Unsatisfiable
            } else {
                let end = last_byte.saturating_add(1).min(size);
                Ranged::Part {
                    offset,
                    len: end - offset,
                }
            }
        }
        _ => Ranged::Whole,
    }
}

/// Reads `x-amz-copy-source-range`: both ends are needed. First and last byte.
pub(crate) fn parse_copy(header: &str) -> Option<(u64, u64)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Digits only; what is too large is the largest number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_an_object_of_100_bytes() {
        let part = |offset, len| Ranged::Part { offset, len };
        let rows = [
            ("bytes=0-9", part(0, 10)),
            ("bytes=0-0", part(0, 1)),
            ("bytes=90-", part(90, 10)),
            ("bytes=90-1000", part(90, 10)),
            ("bytes=90-99999999999999999999999", part(90, 10)),
            ("bytes=0-18446744073709551615", part(0, 100)),
            ("bytes=-10", part(90, 10)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=-0", Ranged::Unsatisfiable),
            ("bytes=100-", Ranged::Unsatisfiable),
            ("bytes=100-110", Ranged::Unsatisfiable),
            ("bytes=99999999999999999999999-", Ranged::Unsatisfiable),
            ("bytes=5-2", Ranged::Whole),
            ("bytes=a-b", Ranged::Whole),
            ("bytes=+1-2", Ranged::Whole),
            ("items=0-1", Ranged::Whole),
            ("bytes=-", Ranged::Whole),
            ("bytes=", Ranged::Whole),
            ("bytes=0-1,4-5", Ranged::Whole),
            ("bytes=1--2", Ranged::Whole),
            ("", Ranged::Whole),
        ];
        for (header, expected) in rows {
            assert_eq!(parse(header, 100), expected, "{header}");
        }
    }

    #[test]
    fn an_empty_object_has_no_range() {
        for header in ["bytes=0-", "bytes=0-5", "bytes=-5"] {
            assert_eq!(parse(header, 0), Ranged::Unsatisfiable, "{header}");
        }
    }

    #[test]
    fn a_copied_range_has_both_ends() {
        assert_eq!(parse_copy("bytes=0-9"), Some((0, 9)));
        assert_eq!(parse_copy("bytes=7-7"), Some((7, 7)));
        for bad in [
            "bytes=0-",
            "bytes=-9",
            "bytes=9-0",
            "0-9",
            "bytes=a-b",
            "bytes=1-2-3",
            "",
        ] {
            assert_eq!(parse_copy(bad), None, "{bad}");
        }
    }
}
