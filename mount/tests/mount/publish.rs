//! Publishing while the file is being written to, and when it does not work.

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Fixture, LARGE, pattern};

/// The CRC was taken of the staging file and the bytes were copied after that: a write in between
/// made an object that read as damaged. (During `fsync` the kernel holds back `write`, not maps.)
#[test]
fn what_a_stop_publishes_is_whole_while_others_write() {
    let mut f = Fixture::new();
    for round in 0..3 {
        let file = File::create(f.path("f")).expect("created");
        file.write_all_at(&pattern(8 << 20, 1), 0).expect("written");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| write_until(&done, &file));
            let report = f.stop();
            done.store(true, Ordering::Relaxed);
            assert_eq!((report.busy, report.lost), (true, 0), "round {round}");
        });
        let report = f.store.scrub_blocking(None, |_| ControlFlow::Continue(()));
        let damage = report.expect("scrubbed").damage;
        assert!(damage.is_empty(), "round {round}: {damage:?}");
        f.mount();
    }
}

/// Writes here and there, until it is told to stop or the mount is gone.
fn write_until(done: &AtomicBool, file: &File) {
    for round in 0_u64.. {
        let at = round % 256 * 31_337;
        let new = round.to_le_bytes().repeat(512);
        if done.load(Ordering::Relaxed) || file.write_all_at(&new, at).is_err() {
            return;
        }
    }
}

/// The data file it had become was removed, and the retry found nothing to publish.
#[test]
fn what_could_not_be_published_is_kept_and_tried_again_at_the_end() {
    let mut f = Fixture::new();
    let bytes = pattern(LARGE, 3);
    let mut file = File::create(f.path("f")).expect("created");
    file.write_all(&bytes).expect("written");
    // Over S3 the name becomes a directory's.
    f.put("f/x", b"x");
    drop(file);
    assert_eq!(f.get("f"), None);
    f.delete("f/x");
    let report = f.stop();
    assert_eq!((report.published, report.lost), (1, 0));
    assert_eq!(f.get("f"), Some(bytes.clone()));
    f.mount();
    assert_eq!(fs::read(f.path("f")).expect("read"), bytes);
}
