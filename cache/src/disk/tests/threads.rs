//! Many at once.

use std::sync::atomic::AtomicU64;

use super::*;

#[test]
fn readers_and_writers_at_once_see_only_right_bytes() {
    let rig = Rig::in_memory(12 * MIB);
    let disk = rig.try_open(&rig.config(), true).unwrap();
    let objects: Vec<_> = (0..40_u64)
        .map(|n| {
            version(
                &format!("k{n}"),
                [900, 70_000, 2 * MIB, 3 * MIB + 1][(n % 4) as usize],
            )
        })
        .collect();
    let (hit, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (disk, objects, hit, missed) = (&disk, &objects, &hit, &missed);
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut held = Vec::new();
                for round in 0..250 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let version = &objects[(random >> 33) as usize % objects.len()];
                    let number = (random >> 20) % version.blocks();
                    let object = disk.object(version);
                    let expected = content(version, number);
                    if let Some(block) = object.get(number) {
                        let bytes = block.load_blocking().unwrap();
                        assert!(bytes == expected);
                        hit.fetch_add(1, Ordering::Relaxed);
                        held.push((bytes, expected));
                    } else {
                        missed.fetch_add(1, Ordering::Relaxed);
                        match object.put_blocking(number, &[expected]) {
                            Ok(())
                            | Err(
                                PutError::Busy | PutError::NoRoom { .. } | PutError::Pinned { .. },
                            ) => {}
                            Err(err) => panic!("{err}"),
                        }
                    }
                    if round % 5 == 0 {
                        assert!(held.drain(..).all(|(bytes, expected)| bytes == expected));
                        object.pin(random & 1 << 40 != 0 && version.size < MIB);
                    }
                    assert!(disk.status().bytes <= disk.status().limit);
                }
            });
        }
    });
    assert!(hit.into_inner() > 0 && missed.into_inner() > 0);
    let status = disk.status();
    assert_eq!(
        status.corrupt + status.read_errors + status.write_errors,
        0,
        "{status:?}"
    );
    let there: u64 = objects
        .iter()
        .map(|version| disk.object(version).present())
        .sum();
    assert_eq!(there, status.blocks);
    super::limit::check(&rig, &disk);
    drop(disk);
    let disk = rig.open();
    let again: u64 = objects.iter().map(|version| hits(&disk, version)).sum();
    assert_eq!(again, there);
    let on_disk = allocated_on_disk(&rig.path());
    assert!(on_disk <= disk.status().bytes + slack(&rig.path()));
}

#[test]
fn who_writes_the_same_block_at_once_leaves_it_whole() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    for round in 0..50 {
        let version = version(
            &format!("k{round}"),
            if round % 2 == 0 { 5000 } else { 2 * MIB },
        );
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| match put(&disk, &version, 0) {
                    Ok(()) | Err(PutError::Busy) => {}
                    Err(err) => panic!("{err}"),
                });
            }
        });
        assert_eq!(disk.object(&version).present(), 1);
        assert_eq!(hits(&disk, &version), 1);
    }
    assert_eq!(disk.status().blocks, 50);
}
