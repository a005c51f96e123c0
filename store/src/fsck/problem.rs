//! What can be wrong with a store at rest, in one line each.

use std::fmt;
use std::path::PathBuf;

/// What became of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is still there.
    Left,
    /// It was put right.
    Repaired,
    /// It is what a crash leaves; the next start removes it by itself.
    Leftover,
}

/// A problem, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// What became of it.
    pub outcome: Outcome,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Left => "",
            Outcome::Repaired => ": repaired",
            Outcome::Leftover => ": the next start removes it",
        };
        write!(f, "{}{outcome}", self.problem)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The index itself can't be read, or its trees contradict each other.
    IndexDamaged(String),
    /// Numbers in use are not below the limit from which the next start gives new ones.
    NumbersReused {
        /// The highest number in use.
        highest: u64,
        /// The limit on record.
        limit: u64,
    },
    /// An object, a version, a part or a fallback whose bytes are not all there.
    BytesLost {
        /// Which, as a person would name it.
        what: String,
        /// Why.
        why: &'static str,
    },
    /// A key that no client can have given.
    KeyInvalid {
        /// Which row.
        what: String,
    },
    /// A row whose headers and metadata can't be read.
    RowUnreadable {
        /// Which row.
        what: String,
    },
    /// A row in a bucket that is not there.
    BucketMissing {
        /// Which row.
        what: String,
    },
    /// Uploads to a bucket that is not there, or fallbacks of a version that is not marked.
    Stray(String),
    /// An extent is named by more or fewer rows than are counted.
    RefsWrong {
        /// The extent's number.
        extent: u64,
        /// Rows that name it.
        counted: i64,
        /// Rows on record.
        recorded: i64,
    },
    /// No row names an extent.
    ExtentUnreferenced {
        /// The extent's number.
        extent: u64,
    },
    /// A data file that extents lie in is not there.
    FileMissing {
        /// The file.
        path: PathBuf,
        /// Extents in it.
        extents: u64,
    },
    /// An extent reaches beyond the end of its file.
    ExtentOutOfFile {
        /// The file.
        path: PathBuf,
        /// Where the extent begins.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The file's length in bytes.
        size: u64,
    },
    /// Two extents share bytes of a file.
    ExtentsOverlap {
        /// The file.
        path: PathBuf,
        /// Where the second begins.
        offset: u64,
    },
    /// The record before an extent in a segment does not describe it.
    RecordDamaged {
        /// The segment.
        path: PathBuf,
        /// Where the extent begins.
        offset: u64,
    },
    /// Bytes differ from their CRC, or can't be read.
    DataDamaged {
        /// The file.
        path: PathBuf,
        /// Where the extent begins.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// What was found.
        why: String,
    },
    /// The index counts other extents, or a shorter length, than a data file has.
    FileCountsWrong {
        /// The file.
        path: PathBuf,
    },
    /// A data file that the index knows nothing of.
    FileUnlisted {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IndexDamaged(text) => write!(
                f,
                "the index is damaged ({text}); `forebay fsck --rebuild-index` makes a new one of the data"
            ),
            Self::NumbersReused { highest, limit } => write!(
                f,
                "number {highest} is in use, and new ones would begin at {limit}"
            ),
            Self::BytesLost { what, why } => write!(
                f,
                "{what} is lost: {why}; a repair removes it from the index, put it again"
            ),
            Self::KeyInvalid { what } => write!(f, "{what} has a key that is no key"),
            Self::RowUnreadable { what } => {
                write!(f, "{what} has metadata that can't be read; put it again")
            }
            Self::BucketMissing { what } => write!(f, "{what} is in a bucket that is not there"),
            Self::Stray(what) => f.write_str(what),
            Self::RefsWrong {
                extent,
                counted,
                recorded,
            } => write!(
                f,
                "extent {extent} is named by {counted} rows, the index counts {recorded}"
            ),
            Self::ExtentUnreferenced { extent } => write!(f, "extent {extent} is named by no row"),
            Self::FileMissing { path, .. }
            | Self::ExtentOutOfFile { path, .. }
            | Self::ExtentsOverlap { path, .. }
            | Self::RecordDamaged { path, .. }
            | Self::DataDamaged { path, .. }
            | Self::FileCountsWrong { path }
            | Self::FileUnlisted { path } => {
                write!(f, "{}: {}", path.display(), self.of_file())
            }
        }
    }
}

impl Problem {
    /// What is wrong with a data file; nothing for other problems.
    fn of_file(&self) -> String {
        match self {
            Self::FileMissing { extents, .. } => {
                format!("is missing, and {extents} extents lie in it; bring it back or repair")
            }
            Self::ExtentOutOfFile {
                offset, len, size, ..
            } => format!("has {size} bytes, and an extent of {len} lies at {offset}"),
            Self::ExtentsOverlap { offset, .. } => {
                format!("two extents share the bytes at {offset}")
            }
            Self::RecordDamaged { offset, .. } => format!(
                "the record of the bytes at {offset} is damaged; the object is whole, but could not be found without the index"
            ),
            Self::DataDamaged {
                offset, len, why, ..
            } => format!("{len} bytes at {offset} are damaged ({why}); put the object again"),
            Self::FileCountsWrong { .. } => {
                "the index counts other extents than lie in it".to_owned()
            }
            Self::FileUnlisted { .. } => "nothing in the index names it".to_owned(),
            _ => String::new(),
        }
    }
}
