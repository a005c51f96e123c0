//! Which objects are meant: listed from a node, found in a directory of a mount, or read from a
//! manifest.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use forebay_cache::origin::{From, List};
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;

use super::node::Node;
use super::{Wanted, endpoint};
use crate::admin::MountShown;
use crate::cli::WarmArgs;
use crate::mounted;
use crate::source::Source;

/// Longest record of a manifest, in bytes: scheme, bucket and key are shorter.
const RECORD_LEN_MAX: u64 = 4096;
/// What some editors write before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is to be named.
#[derive(Debug)]
enum Part {
    Keys(Source),
    /// A path, and where it is in the mount of a node.
    Path(PathBuf, PathBuf, Arc<Node>),
}

/// All that a command line names.
#[derive(Debug)]
pub(super) struct Names {
    /// What `--endpoint` names, where it is needed.
    node: Option<Arc<Node>>,
    parts: Vec<Part>,
    manifest: Option<(PathBuf, Separator)>,
}

impl Names {
    /// Looks at what is named, as far as no node has to be asked.
    pub(super) fn new(args: &WarmArgs) -> Result<Self> {
        let mut parts = Vec::new();
        let mut over_s3 = args.manifest.is_some();
        for source in &args.sources {
            if source.starts_with("s3://") {
                over_s3 = true;
                parts.push(Part::Keys(source.parse()?));
            } else {
                ensure!(
                    !source.contains("://"),
                    "{source}: expected s3://BUCKET, s3://BUCKET/PREFIX or a path in a mount"
                );
                let path = PathBuf::from(source);
                let found = mounted::find(&path)?;
                let node = Arc::new(Node::local(found.cache_dir));
                parts.push(Part::Path(path, found.within, node));
            }
        }
        ensure!(
            !(over_s3 && args.pin && args.cache_dir.is_none()),
            "--pin needs the directory of the node's cache, on this machine: add --cache-dir DIR"
        );
        let node = over_s3.then(|| endpoint(args, args.cache_dir.as_deref()));
        let separator = if args.null {
            Separator::Null
        } else {
            Separator::Line
        };
        Ok(Self {
            node: node.transpose()?.map(Arc::new),
            parts,
            manifest: args.manifest.clone().map(|path| (path, separator)),
        })
    }

    /// Sends all objects to who brings them in.
    pub(super) async fn send_all(self, to: Sender<Wanted>) -> Result<()> {
        for part in self.parts {
            match (part, &self.node) {
                (Part::Keys(source), Some(node)) => list(node, &source, &to).await?,
                (Part::Keys(_), None) => bail!("there is no endpoint to list"),
                (Part::Path(path, within, node), _) => {
                    let shown = node.mount().await?;
                    let place =
                        place(&shown, &within).with_context(|| path.display().to_string())?;
                    let to = to.clone();
                    spawn_blocking(move || walk(&node, &path, place, &to))
                        .await
                        .context("walking a directory broke off")??;
                }
            }
        }
        if let (Some((path, separator)), Some(node)) = (self.manifest, self.node) {
            spawn_blocking(move || manifest(&node, &path, separator, &to))
                .await
                .context("reading the manifest broke off")??;
        }
        Ok(())
    }
}

/// Names all objects that a node lists.
async fn list(node: &Arc<Node>, source: &Source, to: &Sender<Wanted>) -> Result<()> {
    let client = node.client().context("there is no endpoint to list")?;
    let bucket: Arc<str> = source.bucket.as_str().into();
    let mut token: Option<String> = None;
    loop {
        let page = client
            .list(&List {
                bucket: &source.bucket,
                prefix: &source.prefix,
                from: token.as_deref().map_or(From::Start, From::Token),
                ..List::default()
            })
            .await
            .with_context(|| format!("list s3://{bucket}/{}", source.prefix))?;
        for object in page.objects {
            // An empty object has no byte that could be brought in.
            if object.size > 0 && source.matches(&object.key) {
                let (node, bucket) = (Arc::clone(node), Arc::clone(&bucket));
                let key = object.key;
                let wanted = Wanted { node, bucket, key };
                to.send(wanted).await.context("the jobs are gone")?;
            }
        }
        token = page.next;
        if token.is_none() {
            return Ok(());
        }
    }
}

/// Where a path of a mount is: its bucket, unless it is above all buckets, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    bucket: Option<Arc<str>>,
    /// Without a slash at its end; empty for all of the bucket.
    key: String,
}

impl Place {
    /// What is below it under this name.
    fn below(&self, name: &str) -> Self {
        match &self.bucket {
            None => Self {
                bucket: Some(name.into()),
                key: String::new(),
            },
            Some(bucket) => Self {
                bucket: Some(Arc::clone(bucket)),
                key: if self.key.is_empty() {
                    name.to_owned()
                } else {
                    format!("{}/{name}", self.key)
                },
            },
        }
    }
}

/// Where a path is, by what its mount shows.
fn place(shown: &MountShown, within: &Path) -> Result<Place> {
    let root = match shown {
        MountShown::Nothing => bail!("its server shows no mount any more"),
        MountShown::Buckets => Place {
            bucket: None,
            key: String::new(),
        },
        MountShown::Part { bucket, prefix } => Place {
            bucket: Some(bucket.as_str().into()),
            key: prefix.clone(),
        },
    };
    within.components().try_fold(root, |place, name| {
        let name = name.as_os_str().to_str();
        Ok(place.below(name.context("a name that is not UTF-8 is no key")?))
    })
}

/// Names all files at or below a path.
fn walk(node: &Arc<Node>, path: &Path, place: Place, to: &Sender<Wanted>) -> Result<()> {
    let found = path.metadata();
    let found = found.with_context(|| format!("look at {}", path.display()))?;
    if !found.is_dir() {
        ensure!(found.is_file(), "{} is no file", path.display());
        return name_file(node, place, to);
    }
    let mut dirs = vec![(path.to_owned(), place)];
    while let Some((dir, place)) = dirs.pop() {
        let shown = || format!("read {}", dir.display());
        for item in dir.read_dir().with_context(shown)? {
            let item = item.with_context(shown)?;
            let name = item.file_name();
            let name = name.to_str().with_context(|| {
                format!(
                    "{}: a name that is not UTF-8 is no key",
                    item.path().display()
                )
            })?;
            let kind = item.file_type().with_context(shown)?;
            if kind.is_dir() {
                dirs.push((item.path(), place.below(name)));
            } else if kind.is_file() {
                name_file(node, place.below(name), to)?;
            }
        }
    }
    Ok(())
}

fn name_file(node: &Arc<Node>, place: Place, to: &Sender<Wanted>) -> Result<()> {
    let wanted = Wanted {
        node: Arc::clone(node),
        bucket: place.bucket.context("a file is in a bucket")?,
        key: place.key,
    };
    to.blocking_send(wanted).context("the jobs are gone")
}

/// What is between the records of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Separator {
    Line,
    Null,
}

/// Names all objects of a manifest.
fn manifest(
    node: &Arc<Node>,
    path: &Path,
    separator: Separator,
    to: &Sender<Wanted>,
) -> Result<()> {
    let shown = path.display();
    let mut reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).with_context(|| format!("open {shown}"))?;
        Box::new(BufReader::new(file))
    };
    for number in 1_u64.. {
        let read = record(&mut reader, separator, number == 1);
        let place = || match separator {
            Separator::Line => format!("{shown}, line {number}"),
            Separator::Null => format!("{shown}, record {number}"),
        };
        match read.with_context(place)? {
            Record::End => break,
            Record::Blank => {}
            Record::Object(bucket, key) => {
                let (node, bucket) = (Arc::clone(node), bucket.into());
                let wanted = Wanted { node, bucket, key };
                to.blocking_send(wanted).context("the jobs are gone")?;
            }
        }
    }
    Ok(())
}

/// One record of a manifest.
#[derive(Debug, PartialEq, Eq)]
enum Record {
    End,
    Blank,
    /// Bucket and key.
    Object(String, String),
}

fn record(reader: &mut impl BufRead, separator: Separator, is_first: bool) -> Result<Record> {
    let end = match separator {
        Separator::Line => b'\n',
        Separator::Null => 0,
    };
    let mut bytes = Vec::new();
    reader.take(RECORD_LEN_MAX).read_until(end, &mut bytes)?;
    if bytes.is_empty() {
        return Ok(Record::End);
    }
    ensure!(
        bytes.last() == Some(&end) || (bytes.len() as u64) < RECORD_LEN_MAX,
        "longer than any object's name"
    );
    let mut text = bytes.strip_suffix(&[end]).unwrap_or(&bytes);
    if is_first {
        text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    }
    if separator == Separator::Line {
        text = text.strip_suffix(b"\r").unwrap_or(text);
        ensure!(
            !text.contains(&0),
            "it has a NUL: add --null if objects are separated by those"
        );
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Record::Blank);
    }
    let text = std::str::from_utf8(text).context("it is not UTF-8")?;
    let (bucket, key) = text
        .strip_prefix("s3://")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .context("expected s3://bucket/key")?;
    Ok(Record::Object(bucket.to_owned(), key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &[u8], separator: Separator) -> Result<Vec<(String, String)>> {
        let mut reader = BufReader::with_capacity(7, text);
        let mut found = Vec::new();
        for number in 1.. {
            match record(&mut reader, separator, number == 1)? {
                Record::End => break,
                Record::Blank => {}
                Record::Object(bucket, key) => found.push((bucket, key)),
            }
        }
        Ok(found)
    }

    fn names(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(bucket, key): &(&str, &str)| ((*bucket).to_owned(), (*key).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_manifest_may_come_from_any_system() {
        let expected = names(&[("b", "k 1"), ("b", "a/ü"), ("c", "%41+?#")]);
        for text in [
            "s3://b/k 1\ns3://b/a/ü\ns3://c/%41+?#\n",
            "s3://b/k 1\r\n\r\n \t\r\ns3://b/a/ü\r\n\ns3://c/%41+?#",
            "\u{feff}s3://b/k 1\n\n\ns3://b/a/ü\ns3://c/%41+?#\n\n",
        ] {
            let found = records(text.as_bytes(), Separator::Line).unwrap();
            assert_eq!(found, expected, "{text:?}");
        }
        let text = b"s3://b/k 1\0\0s3://b/a/\xc3\xbc\0s3://c/%41+?#";
        assert_eq!(records(text, Separator::Null).unwrap(), expected);
        assert_eq!(records(b"", Separator::Line).unwrap(), []);
    }

    #[test]
    fn what_separates_records_may_be_in_keys_of_the_other_kind() {
        let lines = records(b"s3://b/a\nb\r\0s3://b/ \0", Separator::Null).unwrap();
        assert_eq!(lines, names(&[("b", "a\nb\r"), ("b", " ")]));
        let err = records(b"s3://b/a\0s3://b/b\0", Separator::Line).unwrap_err();
        assert!(err.to_string().contains("--null"), "{err}");
    }

    #[test]
    fn what_names_no_object_is_refused() {
        for text in [
            &b"b/k"[..],
            b"s3://b",
            b"s3://b/",
            b"s3:///k",
            b" s3://b/k",
            b"http://b/k",
            b"s3://b/\xff",
        ] {
            assert!(records(text, Separator::Line).is_err(), "{text:?}");
        }
        let long = format!("s3://b/{}", "k".repeat(5000));
        let err = records(long.as_bytes(), Separator::Line).unwrap_err();
        assert!(err.to_string().contains("longer"), "{err}");
    }

    #[test]
    fn a_path_is_a_key_by_what_the_mount_shows() {
        let of = |shown: &MountShown, within: &str| {
            let place = place(shown, Path::new(within)).unwrap();
            (place.bucket.as_deref().map(str::to_owned), place.key)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(&MountShown::Buckets, ""), (None, String::new()));
        assert_eq!(of(&MountShown::Buckets, "b"), (some("b"), String::new()));
        assert_eq!(of(&MountShown::Buckets, "b/d/k"), (some("b"), "d/k".into()));
        let part = |prefix: &str| MountShown::Part {
            bucket: "b".to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(of(&part(""), "d/k"), (some("b"), "d/k".into()));
        assert_eq!(of(&part("p/q"), ""), (some("b"), "p/q".into()));
        assert_eq!(of(&part("p/q"), "d/k/"), (some("b"), "p/q/d/k".into()));
        assert!(place(&MountShown::Nothing, Path::new("k")).is_err());
    }
}
