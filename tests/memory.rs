//! The server's own memory does not grow with the size of an object.
//!
//! `FOREBAY_TEST_MEMORY_MIB` is the object's size, 256 by default; 5120 is the full test.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Home, number};

/// Anonymous memory: mapped file pages are the kernel's to take back.
const RSS_ANON_KIB_MAX: u64 = 200 * 1024;

/// Bytes whose value is known at every offset, so that nothing of the object is kept here.
struct Pattern {
    offset: u64,
}

impl Pattern {
    fn byte(offset: u64) -> u8 {
        // Not periodic with any power of two: a block that is misplaced does not fit.
        (offset % 251).to_le_bytes()[0] ^ (offset >> 20).to_le_bytes()[0]
    }
}

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for slot in buffer.iter_mut() {
            *slot = Self::byte(self.offset);
            self.offset += 1;
        }
        Ok(buffer.len())
    }
}

impl Write for Pattern {
    fn write(&mut self, found: &[u8]) -> io::Result<usize> {
        for byte in found {
            if *byte != Self::byte(self.offset) {
                return Err(io::Error::other(format!("wrong byte at {}", self.offset)));
            }
            self.offset += 1;
        }
        Ok(found.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn rss_anon_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_large_upload_and_download_keep_the_server_small() {
    let size = number("FOREBAY_TEST_MEMORY_MIB").unwrap_or(256) << 20;
    let home = Home::new();
    let server = home.serve();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    let done = AtomicBool::new(false);
    let pid = server.pid();
    let peak = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(rss_anon_kib(pid));
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let work = scope.spawn(|| {
            let body = (size, Pattern { offset: 0 }.take(size));
            s3.stream("PUT", "/bkt/large", &[], body, &mut io::sink())
                .unwrap()
                .expect(200);
            let mut check = Pattern { offset: 0 };
            s3.stream("GET", "/bkt/large", &[], (0, io::empty()), &mut check)
                .unwrap()
                .expect(200);
            assert_eq!(check.offset, size);
        });
        let worked = work.join();
        done.store(true, Ordering::Relaxed);
        let peak = watch.join().unwrap();
        worked.unwrap();
        peak
    });
    eprintln!(
        "peak RssAnon {} MiB for an object of {} MiB",
        peak >> 10,
        size >> 20
    );
    assert!(peak < RSS_ANON_KIB_MAX, "{peak} KiB");
    server.stop_ok();
}
