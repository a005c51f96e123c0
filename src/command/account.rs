//! `forebay account`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::admin::{Reply, Request, ask};
use crate::cli::AccountCommand;

pub(super) fn run(data: &Path, command: &AccountCommand) -> Result<ExitCode> {
    let request = match command {
        AccountCommand::Create { name } => Request::CreateAccount { name: name.clone() },
        AccountCommand::Ls => Request::ListAccounts,
        AccountCommand::Rm { name } => Request::RemoveAccount { name: name.clone() },
    };
    if let Reply::Accounts(accounts) = ask(data, request)? {
        for account in accounts {
            println!("{}  {}", account.id, account.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}
