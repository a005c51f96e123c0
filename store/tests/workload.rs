//! One of each kind of change, and what must be there of them whatever happens in between.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use forebay_store::api::{Durability, Files, RenameMode};
use forebay_store::entry::FileAttributes;
use forebay_store::error::{Error, Result};
use forebay_store::fsck::{FsckOptions, fsck_blocking};

use crate::bench::{Bench, PACKED};
use crate::sim::SimDisk;
use crate::sim::random::Random;

/// The bytes of a key; `None` if it is not there.
pub(crate) type State = Option<Vec<u8>>;

/// What each key may hold: what it held when its last change was safe, and all that it was given
/// since.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    keys: BTreeMap<String, Vec<State>>,
    /// Files renamed, their old and new keys: one of both has the bytes.
    renamed: Vec<(String, String)>,
    /// What was refused.
    pub(crate) errors: Vec<Error>,
    bodies: u64,
}

/// A change of a key: its name and what it holds afterwards.
type Change = (&'static str, State);

impl Journal {
    /// Bytes that no other body has.
    fn body(&mut self, len: usize) -> Vec<u8> {
        self.bodies += 1;
        Random::new(self.bodies).bytes(len)
    }

    fn may(&mut self, changes: &[Change]) {
        for (key, state) in changes {
            match self.keys.entry((*key).to_owned()) {
                Entry::Occupied(states) => states.into_mut().push(state.clone()),
                Entry::Vacant(states) => {
                    states.insert(vec![None, state.clone()]);
                }
            }
        }
    }

    fn must(&mut self, changes: &[Change]) {
        for (key, _) in changes {
            let states = self.keys.get_mut(*key).expect("it was announced");
            states.drain(..states.len() - 1);
        }
    }

    fn must_all(&mut self) {
        for states in self.keys.values_mut() {
            states.drain(..states.len() - 1);
        }
    }

    /// What a key holds as far as its last change was safe or seen.
    fn latest(&self, key: &str) -> State {
        self.keys.get(key)?.last()?.clone()
    }

    /// Takes in what [`check`] has put.
    pub(crate) fn checked(&mut self) {
        let puts = CHECK_KEYS.map(|key| (key, Some(check_body())));
        self.may(&puts);
        self.must(&puts);
    }

    /// Compares what a store has with what it may have; what is wrong, in words.
    pub(crate) fn check(&self, bench: &Bench) -> std::result::Result<(), String> {
        let mut found = BTreeMap::new();
        for (key, allowed) in &self.keys {
            let state = bench
                .get(key)
                .map_err(|err| format!("{key} can't be read: {err:?}"))?;
            let is_allowed = allowed.contains(&state);
            let len = state.as_ref().map(Vec::len);
            if !is_allowed {
                let allowed: Vec<_> = allowed.iter().map(|s| s.as_ref().map(Vec::len)).collect();
                return Err(format!("{key} has bytes {len:?}, it may have {allowed:?}"));
            }
            found.insert(key.as_str(), state);
        }
        let keys = bench.keys().map_err(|err| format!("no listing: {err:?}"))?;
        let listed = keys.iter().filter(|key| !key.ends_with('/'));
        let there = found
            .iter()
            .filter(|(key, state)| state.is_some() && !key.ends_with('/'));
        let there: Vec<_> = there.map(|(key, _)| (*key).to_owned()).collect();
        if !listed.eq(&there) {
            return Err(format!("listed are {keys:?}, there are {there:?}"));
        }
        for (from, to) in &self.renamed {
            let undecided = |key| self.keys.get(key).is_some_and(|states| states.len() == 2);
            let there = |key: &String| found[key.as_str()].is_some();
            if undecided(from) && undecided(to) && there(from) == there(to) {
                return Err(format!("{from} was renamed to {to} by half"));
            }
        }
        Ok(())
    }
}

/// What goes on after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// Nothing: the power is gone.
    Stop,
    /// The next change.
    GoOn,
}

/// Makes changes and keeps the journal of them.
struct Driver<'a> {
    bench: Bench,
    journal: &'a mut Journal,
    on_error: OnError,
}

impl Driver<'_> {
    /// Makes one change; `Err` if all is over.
    fn change(
        &mut self,
        durability: Durability,
        changes: &[Change],
        call: impl FnOnce(&Bench) -> Result<()>,
    ) -> std::result::Result<(), ()> {
        self.journal.may(changes);
        match call(&self.bench) {
            Ok(()) if durability == Durability::Durable => self.journal.must(changes),
            Ok(()) => {}
            Err(err) => {
                self.journal.errors.push(err);
                if self.on_error == OnError::Stop {
                    return Err(());
                }
                self.look_again(changes.iter().map(|(key, _)| *key));
            }
        }
        Ok(())
    }

    /// After a refusal a key may be as before or as wanted; what is seen now is its latest state.
    fn look_again<'k>(&mut self, keys: impl IntoIterator<Item = &'k str>) {
        for key in keys {
            let found = self.bench.get(key);
            let found = found.unwrap_or_else(|err| panic!("{key} can't be read: {err:?}"));
            let states = self.journal.keys.get_mut(key).expect("it was announced");
            assert!(states.contains(&found), "{key} is as before or as wanted");
            states.push(found);
        }
    }

    fn put(&mut self, key: &'static str, len: usize) -> std::result::Result<(), ()> {
        let body = self.journal.body(len);
        self.change(Durability::Durable, &[(key, Some(body.clone()))], |bench| {
            bench.put(key, &body).map(drop)
        })
    }

    fn put_deferred(&mut self, key: &'static str, len: usize) -> std::result::Result<(), ()> {
        let body = self.journal.body(len);
        let change = (key, Some(body.clone()));
        self.change(Durability::Deferred, &[change], |bench| {
            bench.put_deferred(key, &body).map(drop)
        })
    }

    fn write_file(
        &mut self,
        key: &'static str,
        len: usize,
        durability: Durability,
    ) -> std::result::Result<(), ()> {
        let body = self.journal.body(len);
        self.change(durability, &[(key, Some(body.clone()))], |bench| {
            bench.write_file(key, &body, durability).map(drop)
        })
    }

    fn upload(&mut self, key: &'static str, len: usize) -> std::result::Result<(), ()> {
        let body = self.journal.body(len);
        self.change(Durability::Durable, &[(key, Some(body.clone()))], |bench| {
            bench.upload(key, &body).map(drop)
        })
    }

    fn copy(&mut self, from: &'static str, to: &'static str) -> std::result::Result<(), ()> {
        let body = self.journal.latest(from);
        if body.is_none() {
            return Ok(());
        }
        self.change(Durability::Durable, &[(to, body)], |bench| {
            let source = bench.head(from)?.expect("it was just seen");
            bench.copy(&source, to).map(drop)
        })
    }

    /// Makes an object of which a part is all of another.
    fn upload_copy(&mut self, from: &'static str, to: &'static str) -> std::result::Result<(), ()> {
        let body = self.journal.latest(from);
        if body.is_none() {
            return Ok(());
        }
        self.change(Durability::Durable, &[(to, body)], |bench| {
            let source = bench.head(from)?.expect("it was just seen");
            let upload = bench.create_upload(to)?;
            let part = bench.copy_part(&upload, 1, &source, (0, source.size))?;
            bench.complete(&upload, vec![part]).map(drop)
        })
    }

    fn delete(&mut self, key: &'static str) -> std::result::Result<(), ()> {
        self.change(Durability::Durable, &[(key, None)], |bench| {
            bench.delete(key).map(drop)
        })
    }

    fn unlink(&mut self, key: &'static str) -> std::result::Result<(), ()> {
        if self.journal.latest(key).is_none() {
            return Ok(());
        }
        self.change(Durability::Deferred, &[(key, None)], |bench| {
            bench.store.remove_file(bench.bucket, key)
        })
    }

    fn rename_file(&mut self, from: &'static str, to: &'static str) -> std::result::Result<(), ()> {
        let body = self.journal.latest(from);
        if body.is_none() {
            return Ok(());
        }
        let pair = (from.to_owned(), to.to_owned());
        self.journal.renamed.push(pair);
        self.change(Durability::Deferred, &[(from, None), (to, body)], |bench| {
            let mode = RenameMode::Replace;
            bench.store.rename(bench.bucket, from, to, mode)
        })
    }

    /// Renames the directory `d` with the keys `moved` in it to `e`.
    fn rename_directory(
        &mut self,
        moved: &[(&'static str, &'static str)],
    ) -> std::result::Result<(), ()> {
        let mut changes = Vec::new();
        for (from, to) in moved {
            changes.push((*to, self.journal.latest(from)));
            changes.push((*from, None));
        }
        self.change(Durability::Deferred, &changes, |bench| {
            let found = bench.store.lookup(bench.bucket, "d")?;
            if found.is_none() {
                return Ok(());
            }
            bench
                .store
                .rename(bench.bucket, "d", "e", RenameMode::Replace)
        })
    }

    fn make_directory(&mut self) -> std::result::Result<(), ()> {
        self.change(Durability::Deferred, &[("d/", Some(Vec::new()))], |bench| {
            let file = FileAttributes::default();
            bench
                .store
                .make_directory(bench.bucket, "d", file)
                .map(drop)
        })
    }

    fn chmod(&mut self, key: &'static str) -> std::result::Result<(), ()> {
        if self.journal.latest(key).is_none() {
            return Ok(());
        }
        self.change(Durability::Deferred, &[], |bench| {
            let file = FileAttributes {
                mode: Some(0o100_600),
                ..FileAttributes::default()
            };
            bench
                .store
                .set_attributes(bench.bucket, key, file)
                .map(drop)
        })
    }

    fn sync(&mut self) -> std::result::Result<(), ()> {
        let before = self.journal.errors.len();
        self.change(Durability::Deferred, &[], |bench| bench.store.sync())?;
        if self.journal.errors.len() == before {
            self.journal.must_all();
        } else {
            // What could not be made safe was taken back.
            let keys: Vec<String> = self.journal.keys.keys().cloned().collect();
            self.look_again(keys.iter().map(String::as_str));
        }
        Ok(())
    }

    /// Several puts that share a commit.
    fn put_together(&mut self) -> std::result::Result<(), ()> {
        const KEYS: [&str; 4] = ["t1", "t2", "t3", "t4"];
        let bodies = [100, PACKED, PACKED + 1, 3 * PACKED].map(|len| self.journal.body(len));
        let puts: Vec<Change> = KEYS.into_iter().zip(bodies.map(Some)).collect();
        self.journal.may(&puts);
        let answers = self.bench.put_together(&puts);
        let mut over = false;
        for (put, answer) in puts.iter().zip(answers) {
            let put = std::slice::from_ref(put);
            match answer {
                Ok(_) => self.journal.must(put),
                Err(err) => {
                    self.journal.errors.push(err);
                    over = self.on_error == OnError::Stop;
                    if !over {
                        self.look_again([put[0].0]);
                    }
                }
            }
        }
        if over { Err(()) } else { Ok(()) }
    }

    fn all(&mut self) -> std::result::Result<(), ()> {
        self.put("a", 700)?;
        self.put("b", 3 * PACKED)?;
        self.put("a", 900)?;
        self.copy("b", "c")?;
        self.delete("b")?;
        self.upload("m", 2 * PACKED + 5)?;
        self.write_file("f", 300, Durability::Deferred)?;
        self.write_file("g", 2 * PACKED, Durability::Deferred)?;
        self.sync()?;
        self.write_file("f", 400, Durability::Deferred)?;
        self.write_file("g", 3 * PACKED, Durability::Deferred)?;
        self.put("a", 1000)?;
        self.write_file("g", PACKED + 1, Durability::Deferred)?;
        // The bytes of what is copied are not synced yet; the copy is durable.
        self.copy("g", "gc")?;
        self.write_file("g", PACKED + 2, Durability::Deferred)?;
        self.upload_copy("g", "gm")?;
        // As an editor saves a file: the old bytes are safe until the new ones are.
        self.put("t", 800)?;
        self.write_file("tmp", 2 * PACKED, Durability::Deferred)?;
        self.rename_file("tmp", "t")?;
        self.put("v", 70)?;
        self.write_file("h", 2 * PACKED, Durability::Durable)?;
        self.write_file("i", 200, Durability::Durable)?;
        self.put_together()?;
        self.make_directory()?;
        self.rename_file("i", "j")?;
        self.rename_file("f", "d/f")?;
        self.write_file("d/g", 500, Durability::Deferred)?;
        self.chmod("h")?;
        self.rename_directory(&[("d/f", "e/f"), ("d/g", "e/g"), ("d/", "e/")])?;
        self.put_deferred("p", 2 * PACKED)?;
        self.put_deferred("q", 600)?;
        self.put("r", 100)?;
        self.unlink("h")?;
        self.copy("c", "s")?;
        self.delete("c")?;
        self.put("m", 50)?;
        self.sync()?;
        self.put("a", PACKED)?;
        self.delete("t3")
    }
}

/// Opens a store on `disk`, makes every kind of change, closes it, opens it again and makes some
/// more.
pub(crate) fn run(disk: &SimDisk, journal: &mut Journal, on_error: OnError) {
    for round in 0..2 {
        let bench = match Bench::on(disk) {
            Ok(bench) => bench,
            Err(err) => {
                journal.errors.push(err);
                return;
            }
        };
        let mut driver = Driver {
            bench,
            journal: &mut *journal,
            on_error,
        };
        let done = if round == 0 {
            driver.all()
        } else {
            driver.put("a", 40).and_then(|()| driver.put("u", 5000))
        };
        if on_error == OnError::GoOn
            && let Err(wrong) = driver.journal.check(&driver.bench)
        {
            panic!("while the store is open: {wrong}");
        }
        match driver.bench.close() {
            Ok(()) if done.is_ok() => journal.must_all(),
            Ok(()) => {}
            Err(err) => journal.errors.push(err),
        }
        if done.is_err() || disk.is_off() {
            return;
        }
    }
}

/// A disk with a store that has never been used.
pub(crate) fn fresh_store() -> SimDisk {
    let disk = SimDisk::new();
    let bench = Bench::on(&disk).expect("an empty disk");
    bench.close().expect("a healthy disk");
    disk
}

/// What [`check`] puts, and where.
const CHECK_KEYS: [&str; 2] = ["a", "new"];

fn check_body() -> Vec<u8> {
    Random::new(9).bytes(PACKED + 100)
}

/// Whether a store opens on `disk`, has what the journal says, takes more, and is sound.
pub(crate) fn check(disk: &SimDisk, journal: &Journal) -> std::result::Result<(), String> {
    let bench = Bench::on(disk).map_err(|err| format!("it does not open: {err:?}"))?;
    journal.check(&bench)?;
    let body = check_body();
    for key in CHECK_KEYS {
        let put = bench.put(key, &body);
        put.map_err(|err| format!("{key} can't be put: {err:?}"))?;
        let got = bench.get(key).map_err(|err| format!("{err:?}"))?;
        if got.as_ref() != Some(&body) {
            return Err(format!("{key} is not what was just put"));
        }
    }
    let closed = bench.close();
    closed.map_err(|err| format!("it does not close: {err:?}"))?;
    let report = fsck_blocking(&FsckOptions {
        deep: true,
        disk: Arc::new(disk.clone()),
        ..FsckOptions::new(&disk.root().join("data"))
    });
    let report = report.map_err(|err| format!("it can't be checked: {err:?}"))?;
    match report.exit_code() {
        0 => Ok(()),
        _ => Err(format!("fsck finds {:?}", report.findings)),
    }
}
