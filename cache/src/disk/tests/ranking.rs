//! Who goes first.

use super::*;

/// Reads an object as one visit, filling what it lacks; how many blocks were hits.
fn visit(rig: &Rig, disk: &Disk, version: &Arc<Version>) -> u64 {
    let object = disk.object(version);
    let mut hits = 0;
    for number in 0..version.blocks() {
        rig.pass(Duration::from_millis(10));
        match object.get(number) {
            Some(block) => {
                assert!(block.load_blocking().unwrap() == content(version, number));
                hits += 1;
            }
            None => object
                .put_blocking(number, &[content(version, number)])
                .unwrap(),
        }
    }
    hits
}

/// Hit ratios of epochs over the objects, in percent.
fn epochs(rig: &Rig, disk: &Disk, objects: &[Arc<Version>], count: usize) -> Vec<u64> {
    let blocks: u64 = objects.iter().map(|version| version.blocks()).sum();
    (0..count)
        .map(|_| {
            rig.pass(Duration::from_secs(10));
            let hits: u64 = objects
                .iter()
                .map(|version| visit(rig, disk, version))
                .sum();
            hits * 100 / blocks
        })
        .collect()
}

#[test]
fn a_cyclic_scan_of_twice_the_limit_still_hits() {
    // Many small ones, some that are a run or two, and one that is larger than the cache.
    for (count, size) in [(1000, 65536), (40, 2 * MIB), (6, 16 * MIB), (1, 160 * MIB)] {
        let rig = Rig::in_memory(count * size / 2);
        let disk = rig.open();
        let objects: Vec<_> = (0..count)
            .map(|n| version(&format!("k{n}"), size))
            .collect();
        let ratios = epochs(&rig, &disk, &objects, 6);
        println!("{count} objects of {size}: {ratios:?}");
        let later = ratios[2..].iter().sum::<u64>() / 4;
        assert!(later >= 25, "{count} x {size}: {ratios:?}");
    }
}

#[test]
fn what_is_read_again_outlives_a_scan() {
    let rig = Rig::in_memory(20 * MIB);
    let disk = rig.open();
    let hot: Vec<_> = (0..8).map(|n| version(&format!("hot{n}"), MIB)).collect();
    for _ in 0..2 {
        rig.pass(Duration::from_secs(10));
        for version in &hot {
            visit(&rig, &disk, version);
        }
    }
    assert_eq!(disk.status().protected_bytes, 8 * MIB);
    for cold in 0..200 {
        visit(&rig, &disk, &version(&format!("cold{cold}"), MIB));
    }
    assert_eq!(disk.status().protected_bytes, 8 * MIB);
    assert!(hot.iter().all(|version| disk.object(version).has(0)));
}

#[test]
fn one_visit_protects_nothing_however_often_it_reads() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let version = version("k", 3 * MIB);
    fill(&disk, &version);
    let object = disk.object(&version);
    for _ in 0..30 {
        rig.pass(Duration::from_secs(1));
        assert!(object.get(1).is_some());
    }
    assert_eq!(disk.status().protected_bytes, 0);
    // Another one who comes at once is as good as the same.
    assert!(disk.object(&version).get(1).is_some());
    assert_eq!(disk.status().protected_bytes, 0);
    rig.pass(Duration::from_secs(6));
    assert!(disk.object(&version).get(1).is_some());
    assert_eq!(disk.status().protected_bytes, 3 * MIB);
}

#[test]
fn the_protected_are_bounded_and_the_oldest_leave() {
    let rig = Rig::new(10 * MIB);
    let disk = rig.open();
    let objects: Vec<_> = (0..10).map(|n| version(&format!("k{n}"), MIB)).collect();
    fill_all(&disk, &objects);
    rig.pass(Duration::from_secs(10));
    for version in &objects {
        rig.pass(Duration::from_secs(1));
        assert_eq!(hits(&disk, version), 1);
    }
    // The first one is young again.
    assert_eq!(hits(&disk, &objects[0]), 1);
    fill(&disk, &version("new", MIB));
    assert_eq!(disk.status().protected_bytes, 8 * MIB);
    let there: Vec<_> = objects
        .iter()
        .map(|version| disk.object(version).has(0))
        .collect();
    assert!(
        there[0] && there[3..].iter().all(|there| *there),
        "{there:?}"
    );
    assert_eq!(
        there.iter().filter(|there| !**there).count(),
        1,
        "{there:?}"
    );
}

#[test]
fn with_nobody_on_probation_the_oldest_goes() {
    let rig = Rig::new(10 * MIB);
    let disk = rig.open();
    let pinned = version("pinned", 2 * MIB);
    fill(&disk, &pinned);
    disk.object(&pinned).pin(true);
    let objects: Vec<_> = (0..8).map(|n| version(&format!("k{n}"), MIB)).collect();
    fill_all(&disk, &objects);
    rig.pass(Duration::from_secs(10));
    for version in &objects {
        rig.pass(Duration::from_secs(1));
        assert_eq!(hits(&disk, version), 1);
    }
    put(&disk, &version("new", MIB), 0).unwrap();
    assert!(!disk.object(&objects[0]).has(0));
    assert!(
        objects[1..]
            .iter()
            .all(|version| disk.object(version).has(0))
    );
    assert_eq!(hits(&disk, &pinned), 2);
}

#[test]
fn who_is_protected_is_remembered() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let objects = [version("s", 5000), version("l", 20 * MIB)];
    fill_all(&disk, &objects);
    rig.pass(Duration::from_secs(10));
    assert_eq!(hits(&disk, &objects[0]), 1);
    assert!(disk.object(&objects[1]).get(17).is_some());
    let protected = disk.status().protected_bytes;
    assert_eq!(protected, 8192 + 4 * MIB);
    drop(disk);
    assert_eq!(rig.open().status().protected_bytes, protected);
}
