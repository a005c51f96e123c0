//! Wrong bytes are never served.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;

fn only_file(rig: &Rig) -> File {
    let files = data_files(&rig.path());
    assert_eq!(files.len(), 1);
    File::options()
        .read(true)
        .write(true)
        .open(&files[0])
        .unwrap()
}

fn load(disk: &Disk, version: &Arc<Version>, block: u64) -> Result<Bytes, BlockError> {
    disk.object(version).get(block).unwrap().load_blocking()
}

#[test]
fn a_flipped_bit_is_found_and_the_block_can_be_put_again() {
    for size in [MIB / 2, 3 * MIB] {
        let rig = Rig::new(64 * MIB);
        let version = version("k", size);
        let disk = rig.open();
        fill(&disk, &version);
        drop(disk);
        let file = only_file(&rig);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 5000).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 5000).unwrap();
        let disk = rig.open();
        let object = disk.object(&version);
        let block = object.get(0).unwrap();
        assert!(matches!(block.load_blocking(), Err(BlockError::Corrupt)));
        assert!(block.load_blocking().is_err() && block.ready().is_none());
        assert!(object.get(0).is_none() && !object.has(0));
        assert_eq!(disk.status().corrupt, 1);
        assert_eq!(hits(&disk, &version), version.blocks() - 1);
        assert!(object.complete_file().unwrap().is_none());
        let bytes = disk.status().bytes;
        // The one that found it may still be there.
        put(&disk, &version, 0).unwrap();
        assert_eq!(disk.status().bytes, bytes);
        drop(block);
        assert_eq!(hits(&disk, &version), version.blocks());
        drop(object);
        drop(disk);
        assert_eq!(hits(&rig.open(), &version), version.blocks());
    }
}

#[test]
fn a_complete_file_with_a_wrong_byte_is_not_given() {
    let rig = Rig::new(64 * MIB);
    let version = version("k", 3 * MIB);
    let disk = rig.open();
    fill(&disk, &version);
    drop(disk);
    only_file(&rig)
        .write_all_at(&[1, 2, 3], 2 * MIB + 9)
        .unwrap();
    let disk = rig.open();
    let err = disk.object(&version).complete_file().unwrap_err();
    assert!(matches!(err, BlockError::Corrupt));
    assert_eq!(disk.object(&version).present(), 2);
    put(&disk, &version, 2).unwrap();
    assert!(disk.object(&version).complete_file().unwrap().is_some());
}

#[test]
fn what_was_dropped_takes_no_space_after_a_restart() {
    let rig = Rig::new(64 * MIB);
    let (large, small) = (version("k", 3 * MIB), version("s", 5000));
    let disk = rig.open();
    fill(&disk, &large);
    drop(disk);
    only_file(&rig).write_all_at(&[1, 2, 3], 9).unwrap();
    let disk = rig.open();
    assert!(load(&disk, &large, 0).is_err());
    fill(&disk, &small);
    drop(disk);
    let disk = rig.open();
    assert_eq!(disk.status().bytes, 2 * MIB + 8192);
    assert!(allocated_on_disk(&rig.path()) <= disk.status().bytes + slack(&rig.path()));
}

#[test]
fn a_file_that_was_cut_is_found_before_and_while_it_is_open() {
    for open_before in [true, false] {
        let rig = Rig::new(64 * MIB);
        let version = version("k", 3 * MIB + 10);
        let disk = rig.open();
        fill(&disk, &version);
        drop(disk);
        let cut = || only_file(&rig).set_len(MIB + 4096).unwrap();
        if !open_before {
            cut();
        }
        let disk = rig.open();
        if open_before {
            assert_eq!(hits(&disk, &version), 4);
            cut();
        }
        for block in 1..4 {
            let object = disk.object(&version);
            let block = object.get(block).unwrap();
            assert!(block.ready().is_none());
            assert!(block.load_blocking().is_err());
        }
        assert_eq!(hits(&disk, &version), 1);
        fill(&disk, &version);
        assert_eq!(hits(&disk, &version), 4);
        let file = disk.object(&version).complete_file();
        assert!(file.is_err() || file.unwrap().is_some());
    }
}

#[test]
fn blocks_and_files_that_were_swapped_are_found() {
    let rig = Rig::new(64 * MIB);
    let both = [version("a", 2 * MIB), version("b", 2 * MIB)];
    let disk = rig.open();
    fill(&disk, &both[0]);
    drop(disk);
    let (mut first, mut second) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let file = only_file(&rig);
    file.read_exact_at(&mut first, 0).unwrap();
    file.read_exact_at(&mut second, MIB).unwrap();
    file.write_all_at(&first, MIB).unwrap();
    file.write_all_at(&second, 0).unwrap();
    let disk = rig.open();
    assert_eq!((hits(&disk, &both[0]), disk.status().corrupt), (0, 2));
    fill_all(&disk, &both);
    drop(disk);
    let files = data_files(&rig.path());
    let (one, other) = (
        std::fs::read(&files[0]).unwrap(),
        std::fs::read(&files[1]).unwrap(),
    );
    std::fs::write(&files[0], other).unwrap();
    std::fs::write(&files[1], one).unwrap();
    let disk = rig.open();
    assert!(both.iter().all(|version| hits(&disk, version) == 0));
}

#[test]
fn a_file_that_is_deleted_costs_a_fetch() {
    for size in [100, 2 * MIB] {
        let rig = Rig::new(64 * MIB);
        let version = version("k", size);
        let disk = rig.open();
        fill(&disk, &version);
        let held = load(&disk, &version, 0).unwrap();
        std::fs::remove_file(&data_files(&rig.path())[0]).unwrap();
        // It is open, so it is still there.
        assert_eq!(hits(&disk, &version), version.blocks());
        assert_eq!(held, content(&version, 0));
        drop(held);
        drop(disk);
        let disk = rig.open();
        assert_eq!(hits(&disk, &version), 0);
        assert_eq!(disk.status().read_errors, version.blocks());
        fill(&disk, &version);
        assert_eq!(hits(&disk, &version), version.blocks());
    }
}

#[test]
fn a_dropped_block_is_not_written_under_somebody_who_reads_it() {
    let rig = Rig::new(64 * MIB);
    let version = version("k", 2 * MIB);
    let disk = rig.open();
    fill(&disk, &version);
    let object = disk.object(&version);
    let held = load(&disk, &version, 0).unwrap();
    // As if another reader had found the disk failing.
    let other = object.get(0).unwrap();
    for path in data_files(&rig.path()) {
        std::fs::remove_file(path).unwrap();
    }
    disk.shared.files.forget(dir::FileKey::Object(1));
    assert!(matches!(other.load_blocking(), Err(BlockError::Io(_))));
    assert!(matches!(put(&disk, &version, 0), Err(PutError::Busy)));
    assert_eq!(held, content(&version, 0));
    drop(held);
    put(&disk, &version, 0).unwrap();
    assert_eq!(load(&disk, &version, 0).unwrap(), content(&version, 0));
}
