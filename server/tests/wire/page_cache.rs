//! Without an origin the cache is the page cache, and who says so leaves it as it was.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::harness::{Answer, Running, signed};
use crate::xattr::{evict, resident};

const LEN: usize = (3 << 20) + 77;

fn content(len: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from(n % 251).expect("below 256");
    (0..len).map(|n| byte(n) ^ byte(n / 4096)).collect()
}

/// The data file that is so long.
fn data_file(server: &Running) -> File {
    let dirs = std::fs::read_dir(server.data().join("files")).expect("listed");
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir.expect("a directory").path()));
    let mut found: Vec<PathBuf> = files
        .flatten()
        .map(|file| file.expect("a file"))
        .filter(|file| file.metadata().is_ok_and(|stat| stat.len() == LEN as u64))
        .map(|file| file.path())
        .collect();
    assert_eq!(found.len(), 1);
    let path = found.remove(0);
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.expect("open")
}

fn get(server: &Running, headers: &[(&str, &str)]) -> Answer {
    server
        .connect()
        .call(&signed("GET", "/bkt/k", headers, b""))
}

#[test]
fn a_read_without_a_cache_leaves_the_page_cache_as_it_was() {
    let mut server = Running::with_bucket();
    let body = content(LEN);
    let put = server.connect().call(&signed("PUT", "/bkt/k", &[], &body));
    assert_eq!(put.status, 200);
    // Nothing maps it any more.
    server.restart();
    let file = data_file(&server);
    let pages = LEN.div_ceil(4096);
    let here = || resident(&file, 0, LEN).0;
    for word in ["no-cache", "no-store", "No-Store, max-age=0"] {
        evict(&file);
        assert_eq!(here(), 0);
        let answer = get(&server, &[("cache-control", word)]);
        assert!(answer.status == 200 && answer.body == body, "{word}");
        assert!(here() < 8, "{word}: {} of {pages} pages stay", here());
        let range = [("cache-control", word), ("range", "bytes=5000-1500000")];
        let part = get(&server, &range);
        assert!(
            part.status == 206 && part.body == body[5000..=1_500_000],
            "{word}"
        );
        assert!(here() < 8, "{word}: {} of {pages} pages stay", here());
        // What others have in memory stays there.
        file.read_exact_at(&mut vec![0; LEN], 0).expect("read");
        assert_eq!(here(), pages);
        assert!(get(&server, &[("cache-control", word)]).body == body);
        assert_eq!(here(), pages, "{word}");
    }
    evict(&file);
    assert!(get(&server, &[("cache-control", "max-age=0")]).body == body);
    assert_eq!(here(), pages, "any other read fills it");
}

#[test]
fn small_objects_are_right_too() {
    let server = Running::with_bucket();
    for (key, len) in [
        ("/bkt/empty", 0),
        ("/bkt/small", 5),
        ("/bkt/packed", 300_000),
    ] {
        let body = content(len);
        let put = server.connect().call(&signed("PUT", key, &[], &body));
        assert_eq!(put.status, 200);
        let said = [("cache-control", "no-store")];
        let answer = server.connect().call(&signed("GET", key, &said, b""));
        assert!(answer.status == 200 && answer.body == body, "{key}");
    }
}
