//! The change feed, as one follows it who is far away.

use std::time::Duration;

use forebay_store::api::{Durability, Objects};
use forebay_store::event::{Change, ChangeKind, Position, Since};

use crate::bench::Bench;
use crate::workload;

/// All changes after a position; `None` if there is a gap.
fn since(bench: &Bench, after: Position) -> Option<Vec<Change>> {
    let answer = bench.run(bench.store.changes(after, 100, Duration::ZERO));
    match answer.unwrap() {
        Since::Changes { changes, .. } => Some(changes),
        Since::Gap { now } => {
            assert_eq!(now, bench.store.position());
            None
        }
    }
}

#[test]
fn both_faces_changes_come_in_the_order_of_their_commits() {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    let start = bench.store.position();
    bench.put("a", b"1").unwrap();
    bench.write_file("b", b"2", Durability::Deferred).unwrap();
    bench.put("a", b"3").unwrap();
    bench.delete("b").unwrap();
    let changes = since(&bench, start).unwrap();
    let seen = changes.iter().map(|change| {
        let key = change.key.as_ref().unwrap().as_str();
        (key, matches!(change.kind, ChangeKind::Deleted))
    });
    let expected = [("a", false), ("b", false), ("a", false), ("b", true)];
    assert!(seen.eq(expected), "{changes:?}");
    let later = Position {
        sequence: changes[1].sequence,
        ..start
    };
    assert_eq!(since(&bench, later).unwrap(), changes[2..]);
    bench.close().unwrap();
}

#[test]
fn after_a_restart_of_any_kind_there_is_a_gap() {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    let position = bench.store.position();
    bench.put("a", b"1").unwrap();
    bench.close().unwrap();

    let bench = Bench::on(&disk).unwrap();
    assert_eq!(since(&bench, position), None);
    // Seen by whoever follows, and taken back by the power cut.
    let position = bench.store.position();
    bench.write_file("b", b"2", Durability::Deferred).unwrap();
    let seen = since(&bench, position).unwrap();
    let after_it = Position {
        sequence: seen[0].sequence,
        ..position
    };
    let cut = disk.after_power_cut(0);
    drop(bench.close());
    let bench = Bench::on(&cut).unwrap();
    bench.put("c", b"3").unwrap();
    assert_eq!(since(&bench, after_it), None);
    bench.close().unwrap();
}
