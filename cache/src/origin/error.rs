//! What can go wrong between here and the origin.

use std::error::Error;

use http::StatusCode;

use crate::source::FetchError;

/// An answer that is no success, as S3 words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// S3's code, such as `NoSuchKey`; empty where the answer has none.
    pub code: String,
    /// The text for people; may be empty.
    pub message: String,
}

impl Refusal {
    /// Code and message, or the status where there is neither.
    fn text(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => self.status.to_string(),
            (one, "") | ("", one) => one.to_owned(),
            (code, message) => format!("{code}: {message}"),
        }
    }
}

/// Why the origin did not do as it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OriginError {
    /// It can't be reached, fails or is too slow; what could be tried again was.
    #[error("the origin is unavailable: {0}")]
    Unavailable(String),
    /// What it says is not HTTP, not S3, or contradicts itself; a redirect is among these.
    #[error("the origin's answer is wrong: {0}")]
    Corrupt(String),
    /// It understood and says no.
    #[error("the origin answers {}: {}", .0.status.as_u16(), .0.text())]
    Refused(Refusal),
    /// The body to be sent broke off before its end.
    #[error("the request's body broke off: {0}")]
    Body(String),
    /// The request can't be written as HTTP.
    #[error("no request can be made of it: {0}")]
    Invalid(String),
}

impl OriginError {
    /// The status, if there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// S3's code, if there was an answer that has one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }
}

impl OriginError {
    /// What is wrong, without whose fault it is.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Unavailable(why) | Self::Corrupt(why) | Self::Body(why) | Self::Invalid(why) => {
                why
            }
            Self::Refused(refusal) => &refusal.message,
        }
    }
}

impl From<OriginError> for FetchError {
    fn from(err: OriginError) -> Self {
        match err {
            OriginError::Unavailable(why) => Self::Unavailable(why),
            OriginError::Refused(refusal) => match refusal.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied(refusal.text()),
                // S3 gives some a status that has nothing to do with it.
                _ if ["ExpiredToken", "InvalidToken"].contains(&refusal.code.as_str()) => {
                    Self::Denied(refusal.text())
                }
                StatusCode::NOT_FOUND
                | StatusCode::CONFLICT
                | StatusCode::GONE
                | StatusCode::PRECONDITION_FAILED
                | StatusCode::RANGE_NOT_SATISFIABLE => Self::Changed,
                status if status.is_server_error() => {
                    Self::Unavailable(format!("{}: {}", status.as_u16(), refusal.text()))
                }
                status => Self::Corrupt(format!("{}: {}", status.as_u16(), refusal.text())),
            },
            OriginError::Corrupt(why) | OriginError::Body(why) | OriginError::Invalid(why) => {
                Self::Corrupt(why)
            }
        }
    }
}

/// An error with all its causes, in one line.
pub(super) fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many a library repeats its cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
