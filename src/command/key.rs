//! `forebay key`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::admin::{Reply, Request, ask};
use crate::cli::KeyCommand;
use crate::root_key;
use crate::sign::Key;

pub(super) fn run(data: &Path, command: &KeyCommand) -> Result<ExitCode> {
    let request = match command {
        KeyCommand::Create { account } => Request::CreateKey {
            account: account.clone(),
        },
        KeyCommand::Ls { account } => Request::ListKeys {
            account: account.clone(),
        },
        KeyCommand::Rm { id } => Request::RemoveKey { id: id.clone() },
    };
    match ask(data, request)? {
        // The one time that a secret is shown: it can't be had again.
        Reply::NewKey { id, secret } => print!("{}", root_key::lines(&Key { id, secret })),
        Reply::Keys(keys) => {
            for key in keys {
                println!("{}  {}", key.id, key.account);
            }
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}
