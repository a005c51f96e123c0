//! The root account's key: from the environment, or made once and kept in `DATA/root-key`.
//!
//! The file is two lines that a shell can source and that systemd's `EnvironmentFile=` takes, with
//! the names that every S3 client knows.
//!
//! # Invariants
//! 1. The file is whole or absent: it is written aside, synced and linked into place.
//! 2. The secret is never printed, logged, or put into an error.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::sign::Key;

const ID_VARIABLE: &str = "FOREBAY_ROOT_ACCESS_KEY";
const SECRET_VARIABLE: &str = "FOREBAY_ROOT_SECRET_KEY";
const ID_LINE: &str = "AWS_ACCESS_KEY_ID";
const SECRET_LINE: &str = "AWS_SECRET_ACCESS_KEY";
/// Some clients refuse a shorter secret.
const SECRET_LEN_MIN: usize = 8;

/// Where the root key came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Environment,
    File(PathBuf),
}

/// Looks up a variable of the environment.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The root key, which is made if this store has none yet.
pub(crate) fn load_or_make(data: &Path, variables: Variables) -> Result<(Key, Source)> {
    if let Some(found) = load(data, variables)? {
        return Ok(found);
    }
    let path = path(data);
    make(&path).with_context(|| format!("make {}", path.display()))?;
    load(data, variables)?.with_context(|| format!("{} is gone again", path.display()))
}

/// The root key, if there is one.
pub(crate) fn load(data: &Path, variables: Variables) -> Result<Option<(Key, Source)>> {
    if let Some(key) = from_environment(variables)? {
        return Ok(Some((key, Source::Environment)));
    }
    let path = path(data);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err).with_context(|| format!("read {}", path.display())),
    };
    let key = parse(&text).with_context(|| {
        let path = path.display();
        format!(
            "{path} should have the lines {ID_LINE}=… and {SECRET_LINE}=…; \
                 put them right, or remove the file to have a new key made"
        )
    })?;
    Ok(Some((key, Source::File(path))))
}

fn path(data: &Path) -> PathBuf {
    data.join("root-key")
}

fn from_environment(variables: Variables) -> Result<Option<Key>> {
    let text = |name: &str| {
        let value = variables(name).filter(|value| !value.is_empty());
        let text = value.map(OsString::into_string).transpose();
        text.map_err(|_| anyhow::anyhow!("{name} is not UTF-8"))
    };
    match (text(ID_VARIABLE)?, text(SECRET_VARIABLE)?) {
        (None, None) => Ok(None),
        (Some(_), None) => bail!("{ID_VARIABLE} is set, but {SECRET_VARIABLE} is not"),
        (None, Some(_)) => bail!("{SECRET_VARIABLE} is set, but {ID_VARIABLE} is not"),
        (Some(_), Some(secret)) if secret.len() < SECRET_LEN_MIN => {
            bail!("{SECRET_VARIABLE} is shorter than {SECRET_LEN_MIN} characters")
        }
        (Some(id), Some(secret)) => Ok(Some(Key { id, secret })),
    }
}

fn parse(text: &str) -> Option<Key> {
    let value = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    Some(Key {
        id: value(ID_LINE)?,
        secret: value(SECRET_LINE)?,
    })
}

/// `key` as lines that a shell can source.
pub(crate) fn lines(key: &Key) -> String {
    let mut text = String::new();
    for (name, value) in [(ID_LINE, &key.id), (SECRET_LINE, &key.secret)] {
        writeln!(text, "{name}={value}").expect("a String takes all that is written");
    }
    text
}

fn make(path: &Path) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(lines(&random()?).as_bytes())?;
    file.sync_all()?;
    match fs::hard_link(&aside, path) {
        // Another start was faster; its key is as good.
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
        Ok(()) | Err(_) => {}
    }
    fs::remove_file(&aside)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// A new key; both parts are safe in a shell, in a URL and in XML.
fn random() -> io::Result<Key> {
    const ID: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const SECRET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; 58];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let (id, secret) = bytes.split_at(18);
    // Both lengths divide 256, so no character is likelier than another.
    let pick = |letters: &[u8], byte: &u8| char::from(letters[usize::from(*byte) % letters.len()]);
    Ok(Key {
        id: "FB"
            .chars()
            .chain(id.iter().map(|byte| pick(ID, byte)))
            .collect(),
        secret: secret.iter().map(|byte| pick(SECRET, byte)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOTHING: Variables = &|_| None;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let data = tempfile::tempdir().unwrap();
        assert!(load(data.path(), NOTHING).unwrap().is_none());
        let (made, source) = load_or_make(data.path(), NOTHING).unwrap();
        let (again, _) = load_or_make(data.path(), NOTHING).unwrap();
        assert_eq!((made.id.len(), made.secret.len()), (20, 40));
        assert_eq!((&again.id, &again.secret), (&made.id, &made.secret));
        let Source::File(path) = source else {
            panic!("{source:?}")
        };
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(data.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn the_environment_comes_first_and_must_be_complete() {
        let data = tempfile::tempdir().unwrap();
        let both: Variables = &|name| Some(OsString::from(format!("of-{name}")));
        let (key, source) = load_or_make(data.path(), both).unwrap();
        assert_eq!(key.id, "of-FOREBAY_ROOT_ACCESS_KEY");
        assert_eq!(source, Source::Environment);
        for half in [ID_VARIABLE, SECRET_VARIABLE] {
            let one: Variables = &|name| (name == half).then(|| OsString::from("12345678"));
            assert!(load(data.path(), one).is_err(), "{half} alone");
        }
    }

    #[test]
    fn a_file_that_is_not_a_key_is_an_error_that_says_what_to_do() {
        let data = tempfile::tempdir().unwrap();
        fs::write(path(data.path()), "AWS_ACCESS_KEY_ID=x\n").unwrap();
        let err = load_or_make(data.path(), NOTHING)
            .err()
            .unwrap()
            .to_string();
        assert!(
            err.contains("remove the file to have a new key made"),
            "{err}"
        );
    }
}
