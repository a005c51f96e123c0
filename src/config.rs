//! Settings: command line, then environment, then configuration file, then default.
//!
//! The parser already knows the first two and the last. The file is slid in between by making its
//! lines the defaults of a second parse, so that a value from the file passes the same checks as
//! one from the command line, and no setting is defined twice.
//!
//! # Invariants
//! 1. What this file does not know is an error: an unknown key never passes silently.
//! 2. Nothing here touches the system; the caller reads the file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::error::{Error as ClapError, ErrorKind};
use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};

use crate::cli::{self, Cli};

/// The subcommand whose flags are settings; the others' are for one run.
const SERVE: &str = "serve";

/// Why there are no settings.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The command line; clap prints it with usage, as it prints `--help`.
    CommandLine(ClapError),
    /// The configuration file.
    File(anyhow::Error),
}

impl From<ClapError> for Refused {
    fn from(err: ClapError) -> Self {
        Self::CommandLine(err)
    }
}

/// The settings that `args` and the environment give, over what the configuration file gives.
///
/// `read` returns a file's text; it is called only where `--config` names a file.
pub(crate) fn parse(
    args: &[OsString],
    read: impl FnOnce(&Path) -> Result<String>,
) -> Result<Cli, Refused> {
    let mut matches = Cli::command().try_get_matches_from(args)?;
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        let command = read(path)
            .and_then(|text| with_file(Cli::command(), &text))
            .with_context(|| format!("in {}", path.display()))
            .map_err(Refused::File)?;
        matches = command.try_get_matches_from(args)?;
    }
    let cli = Cli::from_arg_matches(&matches)?;
    check(&cli)?;
    Ok(cli)
}

/// What no single flag can know.
fn check(cli: &Cli) -> Result<(), ClapError> {
    let cli::Command::Serve(serve) = &cli.command else {
        return Ok(());
    };
    let complain = |message: &str| Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
    if serve.mount_source.is_some() && serve.mount.is_none() {
        return complain("--mount-source says what to show, but not where: add --mount DIR");
    }
    if let Some(mount) = &serve.mount
        && (cli.data.starts_with(mount) || mount.starts_with(&cli.data))
    {
        return complain("--data and --mount can't be within each other");
    }
    if serve.node.origin.is_some() && serve.node.cache.cache_dir.is_none() {
        return complain("--origin needs a place for what is read: add --cache-dir DIR");
    }
    if let Some(cache) = &serve.node.cache.cache_dir {
        let within = |other: &Path| cache.starts_with(other) || other.starts_with(cache);
        if serve.mount.as_deref().is_some_and(within) {
            return complain("--cache-dir and --mount can't be within each other");
        }
        if serve.node.origin.is_none() && within(&cli.data) {
            return complain("--cache-dir and --data can't be within each other");
        }
    }
    Ok(())
}

/// `command` with the lines of a configuration file as its defaults.
fn with_file(command: Command, text: &str) -> Result<Command> {
    let table: toml::Table = text.parse()?;
    table
        .into_iter()
        .try_fold(command, |command, (name, value)| {
            let values = texts(value).with_context(|| name.clone())?;
            let at_top = setting(&command, &name);
            let at_serve = command
                .find_subcommand(SERVE)
                .and_then(|serve| setting(serve, &name));
            let Some(id) = at_top.clone().or(at_serve) else {
                bail!("unknown setting {name}; known are {}", known(&command));
            };
            check_alone(&name, &values)?;
            let set = |arg: Arg| arg.default_values(values);
            Ok(if at_top.is_some() {
                command.mut_arg(id, set)
            } else {
                command.mut_subcommand(SERVE, |serve| serve.mut_arg(id, set))
            })
        })
}

/// The id of the flag that is called `name`, if it is a setting.
fn setting(command: &Command, name: &str) -> Option<String> {
    let found = settings(command).find(|arg| arg.get_long() == Some(name))?;
    Some(found.get_id().to_string())
}

/// A flag with a variable is a setting, but a file can't name another file.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_env().is_some() && arg.get_id() != "config")
}

fn known(command: &Command) -> String {
    let serve = command
        .find_subcommand(SERVE)
        .into_iter()
        .flat_map(settings);
    let names: Vec<&str> = settings(command)
        .chain(serve)
        .filter_map(Arg::get_long)
        .collect();
    names.join(", ")
}

/// Checks a line of the file by itself, so that the complaint is about the file.
fn check_alone(name: &str, values: &[String]) -> Result<()> {
    let flags = values.iter().map(|value| format!("--{name}={value}"));
    let line = ["forebay".to_owned(), SERVE.to_owned()]
        .into_iter()
        .chain(flags);
    match Cli::command().try_get_matches_from(line) {
        Ok(_) => Ok(()),
        Err(err) => {
            let text = err.to_string();
            let first_line = text.lines().next().unwrap_or_default();
            bail!("{}", first_line.trim_start_matches("error: "))
        }
    }
}

/// A value of the file as the command line would have it.
fn texts(value: toml::Value) -> Result<Vec<String>> {
    match value {
        toml::Value::String(text) => Ok(vec![text]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Array(items) => {
            let nested: Result<Vec<_>> = items.into_iter().map(texts).collect();
            Ok(nested?.concat())
        }
        other => bail!(
            "expected a text, a number or a list, found a {}",
            other.type_str()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Close, ServeArgs};

    fn parse_with(file: &str, args: &[&str]) -> Result<Cli, String> {
        let words = ["forebay"].iter().chain(args).map(OsString::from);
        parse(&words.collect::<Vec<_>>(), |_| Ok(file.to_owned())).map_err(|err| match err {
            Refused::CommandLine(err) => err.to_string(),
            Refused::File(err) => format!("{err:#}"),
        })
    }

    fn serve_with(file: &str, args: &[&str]) -> ServeArgs {
        let args = [&["serve", "--config", "f.toml"], args].concat();
        match parse_with(file, &args).unwrap().command {
            cli::Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_is_over_the_default_and_under_the_command_line() {
        assert_eq!(serve_with("", &[]).listen.port(), 9000);
        let file = "listen = '127.0.0.1:9001'";
        assert_eq!(serve_with(file, &[]).listen.port(), 9001);
        assert_eq!(
            serve_with(file, &["--listen", "127.0.0.1:9002"])
                .listen
                .port(),
            9002
        );
    }

    #[test]
    fn every_kind_of_value_can_come_from_the_file() {
        let file = "close = 'durable'\nthreads = 3\nbase-domain = ['a.net', 'b.net']\nmount = '/m'";
        let serve = serve_with(file, &[]);
        assert_eq!(serve.close, Close::Durable);
        assert_eq!(serve.threads, Some(3));
        assert_eq!(serve.base_domain, ["a.net", "b.net"]);
        assert_eq!(serve.mount.unwrap(), Path::new("/m"));
    }

    #[test]
    fn a_list_on_the_command_line_replaces_the_one_in_the_file() {
        let serve = serve_with(
            "base-domain = ['a.net', 'b.net']",
            &["--base-domain", "c.net"],
        );
        assert_eq!(serve.base_domain, ["c.net"]);
    }

    #[test]
    fn settings_of_all_commands_come_from_the_file_too() {
        let cli = parse_with(
            "data = '/d'\nlisten = '[::]:1'",
            &["account", "ls", "--config", "f"],
        )
        .unwrap();
        assert_eq!(cli.data, Path::new("/d"));
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_lists_the_known_ones() {
        let err = parse_with("listne = ':1'", &["serve", "--config", "f.toml"]).unwrap_err();
        assert!(err.starts_with("in f.toml: unknown setting listne; known are data, log, listen"));
        for not_a_setting in [
            "config = 'g'",
            "repair = 'true'",
            "help = 'true'",
            "[serve]",
        ] {
            assert!(parse_with(not_a_setting, &["serve", "--config", "f"]).is_err());
        }
    }

    #[test]
    fn a_wrong_value_is_an_error_that_names_the_file_and_the_setting() {
        let err =
            parse_with("close = 'never'", &["account", "ls", "--config", "f.toml"]).unwrap_err();
        assert!(
            err.starts_with("in f.toml: invalid value 'never' for '--close"),
            "{err}"
        );
        let err = parse_with("threads = 0", &["serve", "--config", "f.toml"]).unwrap_err();
        assert!(err.contains("'--threads <COUNT>'"), "{err}");
        let err = parse_with("listen = true", &["serve", "--config", "f.toml"]).unwrap_err();
        assert!(err.contains("listen: expected a text"), "{err}");
        let err = parse_with("listen = ['[::]:1', '[::]:2']", &["serve", "--config", "f"]);
        assert!(err.unwrap_err().contains("--listen"));
    }

    #[test]
    fn a_mount_source_needs_a_mount() {
        let err = parse_with("", &["serve", "--mount-source", "b"]).unwrap_err();
        assert!(err.contains("add --mount DIR"), "{err}");
    }

    #[test]
    fn data_and_mount_are_apart() {
        for (data, mount) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")] {
            let err = parse_with("", &["serve", "--data", data, "--mount", mount]).unwrap_err();
            assert!(err.contains("within each other"), "{err}");
        }
    }
}
