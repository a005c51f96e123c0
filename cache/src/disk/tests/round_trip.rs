//! What is put is what is got.

use super::*;

#[test]
fn what_is_put_is_got_small_and_large() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    for size in [
        1,
        4095,
        4096,
        4097,
        MIB - 1,
        MIB,
        MIB + 1,
        5 * MIB,
        17 * MIB + 3,
    ] {
        let version = version(&format!("k{size}"), size);
        let object = disk.object(&version);
        assert_eq!((object.present(), object.has(0)), (0, false));
        assert!(object.get(0).is_none());
        fill(&disk, &version);
        assert_eq!(object.present(), version.blocks());
        assert_eq!(hits(&disk, &version), version.blocks());
        let last = version.blocks() - 1;
        let ready = object.get(last).unwrap().ready().expect("just written");
        assert_eq!(ready, content(&version, last));
        assert!(object.get(version.blocks()).is_none());
    }
    let status = disk.status();
    assert_eq!((status.objects, status.blocks), (9, 9 + 1 + 4 + 17));
    let bytes = 3 * 4096 + 8192 + 2 * MIB + (MIB + 4096) + 5 * MIB + 17 * MIB + 4096;
    assert_eq!(status.bytes, bytes);
    assert_eq!(status.corrupt + status.read_errors + status.write_errors, 0);
    let on_disk = allocated_on_disk(&rig.path());
    assert!(on_disk >= bytes && on_disk <= bytes + slack(&rig.path()));
}

#[test]
fn a_block_may_come_in_pieces_and_in_any_order() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let version = version("k", 3 * MIB);
    let object = disk.object(&version);
    for block in [2, 0, 1] {
        let whole = content(&version, block);
        let pieces: Vec<_> = (0..1024)
            .map(|n| whole.slice(n * 1024..(n + 1) * 1024))
            .collect();
        object.put_blocking(block, &pieces).unwrap();
        // Again is no error, and changes nothing.
        object
            .put_blocking(block, &[Bytes::from(vec![0; 1 << 20])])
            .unwrap();
    }
    assert_eq!(hits(&disk, &version), 3);
}

#[test]
fn what_is_not_a_block_is_refused() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let object = disk.object(&version("k", MIB + 5));
    for (block, len) in [(0, 1 << 19), (0, 0), (1, 1 << 20), (1, 4), (1, 6)] {
        let err = object.put_blocking(block, &[Bytes::from(vec![1; len])]);
        assert!(matches!(err, Err(PutError::Length { .. })), "{err:?}");
    }
    let err = object.put_blocking(2, &[]);
    assert!(matches!(err, Err(PutError::NoSuchBlock(2))));
    let huge = disk.object(&version("huge", u64::MAX));
    let err = huge.put_blocking(0, &[Bytes::from(vec![1; 1 << 20])]);
    assert!(matches!(err, Err(PutError::TooLarge { .. })));
    assert!(huge.get(u64::MAX).is_none() && huge.complete_file().unwrap().is_none());
    let empty = disk.object(&version("empty", 0));
    assert!(matches!(
        empty.put_blocking(0, &[]),
        Err(PutError::NoSuchBlock(0))
    ));
    assert!(empty.get(0).is_none() && empty.complete_file().unwrap().is_none());
    assert_eq!((disk.status().bytes, disk.status().objects), (0, 0));
}

#[test]
fn another_version_and_another_origin_see_nothing() {
    let rig = Rig::new(64 * MIB);
    let ours = [version("k", 2 * MIB), version("small", 100)];
    let disk = rig.open();
    fill_all(&disk, &ours);
    for other in [
        Version {
            etag: "other".to_owned(),
            ..(*ours[0]).clone()
        },
        Version {
            bucket: "other".to_owned(),
            ..(*ours[0]).clone()
        },
        Version {
            size: 2 * MIB + 1,
            ..(*ours[0]).clone()
        },
    ] {
        assert_eq!(disk.object(&Arc::new(other)).present(), 0);
    }
    drop(disk);
    let config = DiskConfig {
        origin: "http://evil".to_owned(),
        ..rig.config()
    };
    let disk = rig.try_open(&config, false).unwrap();
    assert_eq!(disk.status().objects, 2, "they take space");
    assert!(ours.iter().all(|version| hits(&disk, version) == 0));
    assert_eq!(disk.list(Which::All, None, 9).unwrap().objects, []);
    assert_eq!(disk.evict(Which::All).unwrap(), 0);
    fill(&disk, &ours[1]);
    drop(disk);
    let disk = rig.open();
    assert!(
        ours.iter()
            .all(|version| hits(&disk, version) == version.blocks())
    );
}

#[test]
fn a_complete_object_is_a_file() {
    let rig = Rig::new(8 * MIB);
    let disk = rig.open();
    let version = version("k", 3 * MIB + 77);
    let object = disk.object(&version);
    assert!(object.complete_file().unwrap().is_none());
    fill(&disk, &version);
    drop(object);
    drop(disk);
    let disk = rig.open();
    let object = disk.object(&version);
    let file = object
        .complete_file()
        .unwrap()
        .expect("all blocks are there");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*file));
    let whole: Vec<u8> = (0..4)
        .flat_map(|block| content(&version, block).to_vec())
        .collect();
    assert!(std::fs::read(&path).unwrap() == whole);
    assert_eq!(disk.evict(Which::All).unwrap(), 0, "it is held");
    assert!(std::fs::read(&path).unwrap() == whole);
    drop(file);
    assert_eq!(disk.evict(Which::All).unwrap(), 3 * MIB + 4096);
    assert!(object.complete_file().unwrap().is_none());
    assert_eq!(data_files(&rig.path()), Vec::<PathBuf>::new());
}

#[test]
fn listings_come_in_pages_and_keys_are_exact() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    for key in ["a", "a/1", "a/2", "a/3", "b", "b%", "c"] {
        fill(&disk, &version(key, 10));
    }
    put(&disk, &version("a/big", 3 * MIB), 1).unwrap();
    let prefix = Which::Prefix {
        bucket: "bucket",
        prefix: "a/",
    };
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = disk.list(prefix, after.as_ref(), 2).unwrap();
        assert!(page.objects.len() <= 2);
        keys.extend(
            page.objects
                .into_iter()
                .map(|listed| (listed.key, listed.present_bytes)),
        );
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let expected = [("a/1", 4096), ("a/2", 4096), ("a/3", 4096), ("a/big", MIB)];
    assert_eq!(keys, expected.map(|(key, bytes)| (key.to_owned(), bytes)));
    let one = disk
        .list(
            Which::Key {
                bucket: "bucket",
                key: "b",
            },
            None,
            9,
        )
        .unwrap();
    assert_eq!(one.objects.len(), 1);
    assert_eq!(one.objects[0].last_used, rig.clock.now());
    assert_eq!(disk.list(Which::All, None, 99).unwrap().objects.len(), 8);
    assert_eq!(
        disk.evict(Which::Key {
            bucket: "bucket",
            key: "a"
        })
        .unwrap(),
        4096
    );
    assert_eq!(disk.pin_prefix(prefix, true).unwrap(), 4);
    assert_eq!(
        disk.evict(Which::Prefix {
            bucket: "bucket",
            prefix: ""
        })
        .unwrap(),
        3 * 4096
    );
    assert_eq!(disk.status().pinned_bytes, MIB + 3 * 4096);
    assert_eq!(
        disk.evict(Which::Prefix {
            bucket: "none",
            prefix: ""
        })
        .unwrap(),
        0
    );
    assert_eq!(disk.pin_prefix(Which::All, false).unwrap(), 4);
    assert_eq!(disk.evict(Which::All).unwrap(), MIB + 3 * 4096);
    assert_eq!((disk.status().bytes, disk.status().objects), (0, 0));
}
