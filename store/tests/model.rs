//! The store against a map: random calls on both, and after each the same answers.
//!
//! `FOREBAY_TEST_SEED` gives back a run, `FOREBAY_TEST_RUNS` and `FOREBAY_TEST_STEPS` make it
//! longer.

mod reference;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use forebay_store::api::{Durability, Files, ListItem, Node, Objects, RenameMode};
use forebay_store::entry::{ETag, FileAttributes, Upload};
use forebay_store::error::{Error, Result};
use forebay_store::name::UploadId;
use forebay_store::rule::posix::{S_IFDIR, S_IFREG};
use forebay_store::rule::precondition::{ETagMatch, Precondition};

use crate::bench::{Bench, PACKED};
use crate::setting;
use crate::sim::SimDisk;
use crate::sim::random::Random;
use reference::{Answer, Mode, Model, Named, Object, parent};

/// Keys that S3 uses: each is a beginning, a neighbour or a directory of another.
const KEYS: [&str; 18] = [
    "a", "a/", "a/b", "a/b/", "a/b/c", "a-", "a.", "a//b", "a/../b", "b", "b/c", "d/", "d/e/f",
    "-", ".", "é", "e/\0", "a0",
];
/// Paths that the mount uses.
const PATHS: [&str; 11] = [
    "a", "b", "a/b", "a/b/c", "b/c", "d", "d/e", "d/e/f", "a-", "é", "f",
];

/// An upload in progress, as the model knows it.
#[derive(Debug)]
struct Pending {
    id: UploadId,
    key: String,
    parts: BTreeMap<u16, Vec<u8>>,
}

struct Run {
    random: Random,
    disk: SimDisk,
    bench: Option<Bench>,
    model: Model,
    uploads: Vec<Pending>,
}

/// The name of an error's variant.
fn kind(err: &Error) -> String {
    let text = format!("{err:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Both answered the same.
fn agree<T: Debug>(expected: Answer, found: Result<T>) -> Option<T> {
    match (expected, found) {
        (Ok(()), Ok(found)) => Some(found),
        (Err(expected), Err(found)) if expected == kind(&found) => None,
        (expected, found) => panic!("the map says {expected:?}, the store {found:?}"),
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new();
        let bench = Bench::on(&disk).expect("an empty disk");
        Self {
            random: Random::new(seed),
            disk,
            bench: Some(bench),
            model: Model::default(),
            uploads: Vec::new(),
        }
    }

    fn bench(&self) -> &Bench {
        self.bench.as_ref().expect("open between two steps")
    }

    /// A body of any of the lengths at which something changes.
    fn body(&mut self) -> Vec<u8> {
        let any = self.random.below(2000);
        let lengths = [
            0,
            1,
            any,
            any,
            PACKED - 1,
            PACKED,
            PACKED + 1,
            3 * PACKED + any,
        ];
        let len = *self.random.pick(&lengths);
        self.random.bytes(len)
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.random.below(KEYS.len())]
    }

    /// A path whose parent is a directory, as the kernel sees to.
    fn path(&mut self) -> &'static str {
        loop {
            let path = *self.random.pick(&PATHS);
            if self.model.named(parent(path)) == Named::Directory {
                return path;
            }
        }
    }

    fn mode(&mut self) -> u32 {
        u32::try_from(self.random.below(0o1000)).expect("small")
    }

    fn step(&mut self) {
        match self.random.below(26) {
            0..4 => self.put(),
            4 => self.put_if(),
            5 => self.range(),
            6 | 7 => self.delete(),
            8 | 9 => self.copy(),
            10 => self.create_upload(),
            11 | 12 => self.put_part(),
            13 => self.end_upload(),
            14 | 15 => self.write_file(),
            16 => self.make_directory(),
            17 => self.remove_directory(),
            18 => self.remove_file(),
            19..22 => self.rename(),
            22 => self.set_mode(),
            23 | 24 => self.copy_part(),
            _ => self.restart(),
        }
    }

    fn put(&mut self) {
        let (key, body) = (self.key(), self.body());
        println!("put {key:?}, {} bytes", body.len());
        let entry = self.bench().put(key, &body).expect("a put");
        assert_eq!((entry.key.as_str(), entry.size), (key, body.len() as u64));
        self.model.put(key, Object::new(body));
    }

    fn put_if(&mut self) {
        let (key, body) = (self.key(), self.body());
        let current = self.model.objects.get(key).map(|object| object.etag);
        let wrong = ETag {
            digest: [7; 16],
            parts: 0,
        };
        let one_of = |tags: Vec<ETag>| Precondition {
            matches: Some(ETagMatch::OneOf(tags)),
            ..Precondition::NONE
        };
        let (precondition, expected) = match self.random.below(4) {
            0 => {
                let absent = Precondition {
                    absent: true,
                    ..Precondition::NONE
                };
                let failed = current.map_or(Ok(()), |_| Err("PreconditionFailed"));
                (absent, failed)
            }
            1 => {
                let any = Precondition {
                    matches: Some(ETagMatch::Any),
                    ..Precondition::NONE
                };
                (any, current.map(drop).ok_or("NoSuchKey"))
            }
            2 => {
                let tags = vec![wrong, current.unwrap_or(wrong)];
                (one_of(tags), current.map(drop).ok_or("NoSuchKey"))
            }
            _ => {
                let failed = current.map_or("NoSuchKey", |_| "PreconditionFailed");
                (one_of(vec![wrong]), Err(failed))
            }
        };
        println!("put {key:?} if {precondition:?}");
        let found = self.bench().put_if(key, &body, precondition);
        if agree(expected, found).is_some() {
            self.model.put(key, Object::new(body));
        }
    }

    fn range(&mut self) {
        let key = self.key();
        let found = self.bench().head(key).expect("a head");
        let expected = self.model.objects.get(key).map(|object| &object.bytes);
        let (Some(entry), Some(bytes)) = (&found, expected.cloned()) else {
            assert_eq!(found.is_some(), expected.is_some(), "{key:?}");
            return;
        };
        let from = self.random.below(bytes.len() + 1);
        let len = self.random.below(bytes.len() - from + 1);
        println!("get {key:?}, {len} bytes from {from}");
        let found = self.bench().read(entry, from as u64, len as u64);
        assert_eq!(found.expect("a range"), bytes[from..from + len]);
    }

    fn delete(&mut self) {
        let key = self.key();
        println!("delete {key:?}");
        let deleted = self.bench().delete(key).expect("a delete");
        let expected = self.model.objects.remove(key);
        assert_eq!(deleted.existed, expected.is_some());
    }

    fn copy(&mut self) {
        let (from, to) = (self.key(), self.key());
        println!("copy {from:?} to {to:?}");
        let Some(source) = self.bench().head(from).expect("a head") else {
            assert!(!self.model.objects.contains_key(from), "{from:?}");
            return;
        };
        self.bench().copy(&source, to).expect("a copy");
        let mut object = self.model.objects[from].clone();
        object.mode = Mode::Open;
        self.model.put(to, object);
    }

    fn create_upload(&mut self) {
        let key = self.key();
        println!("create an upload of {key:?}");
        let upload = self.bench().create_upload(key).expect("an upload");
        self.uploads.push(Pending {
            id: upload.id,
            key: key.to_owned(),
            parts: BTreeMap::new(),
        });
    }

    /// Looks an upload up, as a request does.
    fn find_upload(&self, index: usize) -> Arc<Upload> {
        let Pending { id, key, .. } = &self.uploads[index];
        let key = forebay_store::name::ObjectKey::parse(key).expect("it was made with it");
        let bench = self.bench();
        let upload = bench.run(bench.store.upload(bench.bucket, &key, *id));
        upload.expect("it is in progress")
    }

    fn put_part(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let index = self.random.below(self.uploads.len());
        let number = u16::try_from(1 + self.random.below(3)).expect("small");
        let body = self.body();
        println!("part {number} of upload {index}, {} bytes", body.len());
        let upload = self.find_upload(index);
        let part = self.bench().put_part(&upload, number, &body);
        assert_eq!(part.expect("a part").etag, Some(reference::etag(&body)));
        self.uploads[index].parts.insert(number, body);
    }

    fn copy_part(&mut self) {
        let key = self.key();
        let source = self.bench().head(key).expect("a head");
        let (Some(source), false) = (source, self.uploads.is_empty()) else {
            return;
        };
        let index = self.random.below(self.uploads.len());
        let number = u16::try_from(1 + self.random.below(3)).expect("small");
        let bytes = &self.model.objects[key].bytes;
        let all = self.random.once_in(2);
        let (from, len) = if all {
            (0, bytes.len())
        } else {
            let from = self.random.below(bytes.len() + 1);
            (from, self.random.below(bytes.len() - from + 1))
        };
        println!("part {number} of upload {index}: {len} bytes from {from} of {key:?}");
        let body = bytes[from..from + len].to_vec();
        let upload = self.find_upload(index);
        let range = (from as u64, len as u64);
        let part = self.bench().copy_part(&upload, number, &source, range);
        assert_eq!(part.expect("a part").etag, Some(reference::etag(&body)));
        self.uploads[index].parts.insert(number, body);
    }

    fn end_upload(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let index = self.random.below(self.uploads.len());
        let upload = self.find_upload(index);
        let numbers: Vec<u16> = self.uploads[index].parts.keys().copied().collect();
        let bench = self.bench();
        let (parts, more) = bench
            .run(bench.store.list_parts(&upload, 0, 100))
            .expect("parts");
        let listed: Vec<u16> = parts.iter().map(|part| part.number).collect();
        assert_eq!((listed, more), (numbers.clone(), false));
        if numbers.is_empty() || self.random.once_in(3) {
            println!("abort upload {index}");
            let bench = self.bench();
            bench
                .run(bench.store.abort_upload(upload))
                .expect("an abort");
            self.uploads.remove(index);
            return;
        }
        // All but the last part are too small to be joined: one of them is the object.
        let number = *self.random.pick(&numbers);
        let wanted: &[u16] = if numbers.len() > 1 && self.random.once_in(3) {
            &numbers
        } else {
            &[number]
        };
        println!("complete upload {index} with {wanted:?}");
        let named = wanted.iter().map(|number| {
            let part = parts.iter().find(|part| part.number == *number);
            forebay_store::api::CompletedPart {
                number: u32::from(*number),
                etag: part.map(|part| part.etag),
                checksum: None,
            }
        });
        let named: Vec<_> = named.collect();
        let too_small = wanted.len() > 1;
        let expected = if too_small {
            Err("PartTooSmall")
        } else {
            Ok(())
        };
        let found = self.bench().complete(&upload, named.clone());
        let Some(entry) = agree(expected, found) else {
            return;
        };
        let again = self.bench().complete(&upload, named);
        assert_eq!(again.expect("the same answer").etag, entry.etag);
        let mut pending = self.uploads.remove(index);
        let bytes = pending.parts.remove(&number).expect("it was listed");
        let mut object = Object::new(bytes);
        object.etag = reference::multipart_etag(&[&object.bytes]);
        self.model.put(&pending.key, object);
    }

    fn write_file(&mut self) {
        let (path, body) = (self.path(), self.body());
        let durability = *self
            .random
            .pick(&[Durability::Durable, Durability::Deferred]);
        println!("write {path:?}, {} bytes, {durability:?}", body.len());
        let is_directory = self.model.named(path) == Named::Directory;
        let expected = if is_directory {
            Err("IsDirectory")
        } else {
            Ok(())
        };
        let found = self.bench().write_file(path, &body, durability);
        if agree(expected, found).is_some() {
            self.model.put(path, Object::new(body));
        }
    }

    fn make_directory(&mut self) {
        let (path, mode) = (self.path(), S_IFDIR | self.mode());
        println!("mkdir {path:?}");
        let file = FileAttributes {
            mode: Some(mode),
            ..FileAttributes::default()
        };
        let bench = self.bench();
        let found = bench.store.make_directory(bench.bucket, path, file);
        agree(self.model.make_directory(path, mode), found);
    }

    fn remove_directory(&mut self) {
        let path = self.path();
        println!("rmdir {path:?}");
        let bench = self.bench();
        let found = bench.store.remove_directory(bench.bucket, path);
        agree(self.model.remove_directory(path), found);
    }

    fn remove_file(&mut self) {
        let path = self.path();
        println!("unlink {path:?}");
        let bench = self.bench();
        let found = bench.store.remove_file(bench.bucket, path);
        agree(self.model.remove_file(path), found);
    }

    fn set_mode(&mut self) {
        let (path, mode) = (self.path(), self.mode());
        let kind = match self.model.named(path) {
            Named::Directory => S_IFDIR,
            Named::File | Named::Nothing => S_IFREG,
        };
        println!("chmod {mode:o} {path:?}");
        let change = FileAttributes {
            mode: Some(kind | mode),
            ..FileAttributes::default()
        };
        let bench = self.bench();
        let found = bench.store.set_attributes(bench.bucket, path, change);
        agree(self.model.set_mode(path, kind | mode), found);
    }

    fn rename(&mut self) {
        let (from, to) = (self.path(), self.path());
        if self.model.is_shadowed(from) || self.model.is_shadowed(to) {
            return;
        }
        let mode = *self.random.pick(&[
            RenameMode::Replace,
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
        ]);
        println!("rename {from:?} to {to:?}, {mode:?}");
        let bench = self.bench();
        let found = bench.store.rename(bench.bucket, from, to, mode);
        agree(self.model.rename(from, to, mode), found);
    }

    /// Closes the store and opens it again, or cuts the power when all is synced, or kills it.
    fn restart(&mut self) {
        match self.random.below(3) {
            0 => {
                println!("close and open");
                let bench = self.bench.take().expect("open between two steps");
                bench.close().expect("a close");
            }
            1 => {
                println!("sync, then a power cut");
                self.bench().store.sync().expect("a sync");
                let seed = self.random.next();
                self.disk = self.disk.after_power_cut(seed);
            }
            _ => {
                println!("kill");
                self.disk = self.disk.after_kill();
            }
        }
        // A store whose power was cut can't close cleanly; it only has to end.
        if let Some(bench) = self.bench.take() {
            drop(bench.close());
        }
        self.bench = Some(Bench::on(&self.disk).expect("the store opens again"));
    }

    /// Everything that can be seen is the same.
    fn compare(&mut self, step: usize) {
        self.compare_listing();
        self.compare_pages();
        if step.is_multiple_of(4) {
            self.compare_directories();
            self.compare_uploads();
        }
        let keys: Vec<String> = self.model.objects.keys().cloned().collect();
        let all = step.is_multiple_of(10);
        for key in keys {
            if all || self.random.once_in(4) {
                self.compare_object(&key);
            }
        }
    }

    fn compare_listing(&self) {
        let listed = self.bench().list("", None, 1000).expect("a listing");
        let listed = listed.iter().map(|item| match item {
            ListItem::Entry(entry) => (entry.key.as_str(), entry.size, entry.etag),
            ListItem::CommonPrefix(prefix) => panic!("{prefix} without a delimiter"),
        });
        let objects = self.model.objects.iter();
        let expected: Vec<_> = objects
            .map(|(key, object)| (key.as_str(), object.bytes.len() as u64, object.etag))
            .collect();
        assert_eq!(listed.collect::<Vec<_>>(), expected);
    }

    fn compare_pages(&mut self) {
        let prefix = *self.random.pick(&["", "a", "a/", "a/b", "d/", "x"]);
        let delimiter = *self.random.pick(&[None, Some("/"), Some("b"), Some("/b")]);
        let limit = 1 + self.random.below(5);
        let listed = self.bench().list(prefix, delimiter, limit);
        let names = listed
            .expect("a listing")
            .into_iter()
            .map(|item| match item {
                ListItem::Entry(entry) => entry.key.as_str().to_owned(),
                ListItem::CommonPrefix(prefix) => prefix,
            });
        assert_eq!(
            names.collect::<Vec<_>>(),
            self.model.list(prefix, delimiter),
            "prefix {prefix:?}, delimiter {delimiter:?}, {limit} a page"
        );
    }

    fn compare_directories(&mut self) {
        for path in self.model.directories() {
            let limit = 1 + self.random.below(5);
            let (items, hidden) = self.bench().directory(&path, limit).expect("a directory");
            let found = items.into_iter().map(|item| match item.node {
                Node::File(_) => (item.name, Named::File),
                Node::Directory(_) => (item.name, Named::Directory),
            });
            assert_eq!(
                (found.collect::<Vec<_>>(), hidden),
                self.model.directory(&path),
                "directory {path:?}, {limit} a page"
            );
        }
        for path in PATHS {
            let bench = self.bench();
            let found = match bench.store.lookup(bench.bucket, path).expect("a lookup") {
                None => Named::Nothing,
                Some(Node::File(_)) => Named::File,
                Some(Node::Directory(_)) => Named::Directory,
            };
            assert_eq!(found, self.model.named(path), "{path:?}");
        }
    }

    fn compare_uploads(&self) {
        let bench = self.bench();
        let list = forebay_store::api::ListUploads {
            bucket: bench.bucket,
            prefix: String::new(),
            delimiter: None,
            after: None,
            limit: 1000,
        };
        let page = bench.run(bench.store.list_uploads(list)).expect("uploads");
        let mut found: Vec<_> = page.uploads.iter().map(|upload| upload.id).collect();
        let mut expected: Vec<_> = self.uploads.iter().map(|upload| upload.id).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    fn compare_object(&self, key: &str) {
        let object = &self.model.objects[key];
        let entry = self.bench().head(key).expect("a head");
        let entry = entry.unwrap_or_else(|| panic!("{key:?} is there"));
        let size = object.bytes.len() as u64;
        assert_eq!((entry.size, entry.etag), (size, object.etag), "{key:?}");
        if let Mode::Known(mode) = object.mode {
            assert_eq!(entry.file.mode, mode, "{key:?}");
        }
        let found = self.bench().get(key).expect("a get");
        assert!(
            found.as_ref() == Some(&object.bytes),
            "the bytes of {key:?}"
        );
    }
}

#[test]
fn the_store_answers_as_a_map_does() {
    let first = setting("FOREBAY_TEST_SEED");
    let runs = first.map_or_else(|| setting("FOREBAY_TEST_RUNS").unwrap_or(6), |_| 1);
    let steps = setting("FOREBAY_TEST_STEPS").unwrap_or(250);
    for seed in (0..runs).map(|run| first.unwrap_or(0) + run) {
        println!("FOREBAY_TEST_SEED={seed}");
        let mut run = Run::new(seed);
        for step in 0..usize::try_from(steps).expect("a number of steps") {
            print!("{step}: ");
            run.step();
            run.compare(step);
        }
    }
}
