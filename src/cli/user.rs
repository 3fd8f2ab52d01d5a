//! `hubbub user`: the accounts in the database.

use std::io::Read as _;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::db::{Databases, settings};
use super::serve::runtime;
use crate::app::{self, SignUp, UserAdministration, UserPatch};
use crate::auth::new_password;
use crate::config::CommandLine;
use crate::domain::{Account, Role};

/// The users that are listed at once.
const USERS_PER_PAGE: usize = 200;

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Creates an account
    Create {
        /// The unique name
        #[arg(long)]
        username: String,
        /// The e-mail address
        #[arg(long)]
        email: String,
        /// The name for people [default: the unique name]
        #[arg(long)]
        display_name: Option<String>,
        /// The role
        #[arg(long, value_enum, default_value = "user")]
        role: RoleName,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Lists accounts, one a line: id, name, address, role and state, between tabs
    List {
        /// A part of the name or of the name for people
        #[arg(default_value = "")]
        query: String,
    },
    /// Disables an account, and ends its sessions
    Disable {
        /// Its name or its e-mail address
        user: String,
    },
    /// Enables an account that is disabled
    Enable {
        /// Its name or its e-mail address
        user: String,
    },
    /// Changes the role of an account
    Role {
        /// Its name or its e-mail address
        user: String,
        /// The role
        #[arg(value_enum)]
        role: RoleName,
    },
    /// Sets a new password, and ends the sessions of the account
    ResetPassword {
        /// Its name or its e-mail address
        user: String,
        #[command(flatten)]
        password: PasswordSource,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RoleName {
    User,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::User => Self::User,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// Where a password comes from. An option with the password itself would show in the list of processes.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct PasswordSource {
    /// Read the password from standard input; without it a random one is made, and printed
    #[arg(long)]
    password_stdin: bool,
}

impl PasswordSource {
    /// The password, and whether it must be printed.
    fn read(self) -> anyhow::Result<(String, bool)> {
        if !self.password_stdin {
            return Ok((new_password(), true));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        let line = text.lines().next().unwrap_or_default();
        Ok((line.to_owned(), false))
    }
}

pub(super) fn run(action: &Action, command_line: &CommandLine) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let databases = Databases::default();
        let result = async {
            let opened = databases.open_existing(&settings(command_line)?).await?;
            act(action, &app::user_administration(opened.store)).await
        }
        .await;
        databases.close().await;
        result.map(|()| ExitCode::SUCCESS)
    })
}

async fn act(action: &Action, users: &UserAdministration) -> anyhow::Result<()> {
    let account = match action {
        Action::Create {
            username,
            email,
            display_name,
            role,
            password,
        } => {
            let (password, is_printed) = password.read()?;
            let request = SignUp {
                email: email.clone(),
                username: username.clone(),
                password: password.clone(),
                display_name: display_name.clone(),
                ..SignUp::default()
            };
            let account = users.create(request, (*role).into()).await?;
            print_password(&password, is_printed);
            account
        }
        Action::List { query } => return list(users, query).await,
        Action::Disable { user } => users.change(user, disabled(true)).await?,
        Action::Enable { user } => users.change(user, disabled(false)).await?,
        Action::Role { user, role } => {
            let patch = UserPatch {
                role: Some((*role).into()),
                ..UserPatch::default()
            };
            users.change(user, patch).await?
        }
        Action::ResetPassword { user, password } => {
            let (password, is_printed) = password.read()?;
            let account = users.reset_password(user, &password).await?;
            print_password(&password, is_printed);
            account
        }
    };
    println!("{}", line(&account));
    Ok(())
}

fn disabled(is_disabled: bool) -> UserPatch {
    UserPatch {
        is_disabled: Some(is_disabled),
        ..UserPatch::default()
    }
}

/// Prints a password that was made here: it is not stored, and can't be printed again.
fn print_password(password: &str, is_printed: bool) {
    if is_printed {
        println!("password: {password}");
    }
}

async fn list(users: &UserAdministration, query: &str) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = users.list(query, after, USERS_PER_PAGE).await?;
        for account in &page {
            println!("{}", line(account));
        }
        match page.last() {
            Some(last) if page.len() == USERS_PER_PAGE => {
                after = Some(last.username.to_ascii_lowercase());
            }
            _ => return Ok(()),
        }
    }
}

fn line(account: &Account) -> String {
    let email = account.email.as_deref().unwrap_or("-");
    let state = if account.is_disabled {
        "disabled"
    } else {
        "enabled"
    };
    let (id, role) = (account.id.as_str(), account.role.as_str());
    format!("{id}\t{}\t{email}\t{role}\t{state}", account.username)
}
