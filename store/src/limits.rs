//! Every limit of the store, and how they relate.
//!
//! S3's own limits: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.

/// Longest object key, in bytes of UTF-8.
pub const KEY_LEN_MAX: usize = 1024;
/// Largest object put in one request, and largest part, in bytes.
pub const PUT_SIZE_MAX: u64 = 5 << 30;
/// Largest object, in bytes.
pub const OBJECT_SIZE_MAX: u64 = 5 << 40;
/// Smallest part but the last, in bytes.
pub const PART_SIZE_MIN: u64 = 5 << 20;
/// Highest part number, and most parts of an upload.
pub const PART_NUMBER_MAX: u16 = 10_000;
/// Most entries of one listing page.
pub const LIST_PAGE_MAX: usize = 1000;
/// Largest user metadata of an object: names without their prefix, and values, in bytes.
pub const USER_METADATA_SIZE_MAX: usize = 2048;

/// Largest object kept in a segment, in bytes; larger ones have a file of their own.
pub const PACKED_SIZE_MAX: u64 = 1 << 20;
/// Size of a segment file, in bytes, allocated when it is made.
pub const SEGMENT_SIZE_MAX: u64 = 256 << 20;
/// Largest head of a segment record, in bytes: fixed fields, bucket, key and attributes.
pub const RECORD_HEAD_MAX: u64 = 64 << 10;

/// Bytes gathered of a streamed body before they are hashed and written in one go.
pub const STAGE_CHUNK_SIZE: usize = 256 << 10;
/// Bytes of a streamed body that may gather while others of it are hashed and written.
pub const STAGE_GATHER_MAX: usize = 1 << 20;
/// Largest body that is in memory as a whole without being counted, in bytes.
pub const STAGE_SMALL_MAX: u64 = 256 << 10;
/// Bytes of larger bodies that are in memory as a whole at one time; what finds no place goes to a
/// file of its own.
pub const STAGE_WHOLE_BYTES_MAX: usize = 16 << 20;
/// Bytes of all bodies that may wait to be hashed and written at one time.
pub const STAGE_BYTES_MAX: usize = 16 << 20;
/// Chunks that may wait for the thread that hashes several bodies at once: four to a lane. With
/// more, callers hash for themselves.
pub const MD5_QUEUE_MAX: usize = 64;

/// Most operations of one transaction.
pub const COMMIT_BATCH_MAX: usize = 512;
/// Bytes of objects appended in one transaction, from which on no operation is added to it: while
/// they are synced the next ones arrive.
pub const COMMIT_BATCH_BYTES_MAX: u64 = 4 << 20;
/// Operations that may wait for the committer; more callers wait for a place.
pub const COMMIT_QUEUE_MAX: usize = 4096;
/// Entries (absence included) held in memory.
pub const ENTRY_CACHE_MAX: usize = 32_768;
/// Memory maps held open.
pub const OPEN_MAPS_MAX: usize = 512;
/// Space kept aside so that deletes still commit on a full disk, in bytes.
pub const RESERVE_SIZE: u64 = 64 << 20;
/// Largest file that opening for change or `fsync` copies in one piece, in bytes.
pub const COPY_CHUNK_SIZE: usize = 8 << 20;

const _: () = {
    // A record always fits into an empty segment, so `append` never has to split one.
    assert!(RECORD_HEAD_MAX + PACKED_SIZE_MAX <= SEGMENT_SIZE_MAX);
    // A single-request object is never larger than an object may be.
    assert!(PUT_SIZE_MAX <= OBJECT_SIZE_MAX);
    // All parts of the largest object fit between the smallest and the largest part.
    assert!(PART_SIZE_MIN <= PUT_SIZE_MAX);
};
