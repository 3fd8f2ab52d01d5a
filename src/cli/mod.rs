//! The command line.

mod db;
mod healthcheck;
mod migrate;
mod outbox;
mod serve;
mod signals;
mod user;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hubbub_bench::parse_duration;

use crate::auth::NewToken;
use crate::config::{CommandLine, Config, ConfigError, docs};

/// The lifetime of the tokens that `hubbub bench` signs for its connections.
const BENCH_TOKEN_TTL: Duration = Duration::from_secs(86_400);

/// A horizontally scalable chat cluster that any Socket.IO client can talk to.
///
/// Configured by the environment, `.env` in the working directory, and a TOML file (HUBBUB_CONFIG);
/// the options --host, --port, --redis-url and --database-url come first.
/// `hubbub config` prints the values in force.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Settings before the name of the command.
    #[command(flatten)]
    node: NodeOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Settings of a node that the command line may set; all others have no option.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
struct NodeOptions {
    /// Address to listen on, in place of SERVER_HOST
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on, in place of SERVER_PORT
    #[arg(long)]
    port: Option<String>,
    /// Redis that the nodes share, in place of REDIS_URL; the list of processes shows it, so leave
    /// the password to REDIS_URL
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// Database that keeps the messages, in place of DATABASE_URL; the list of processes shows it,
    /// so leave the password to DATABASE_URL
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl NodeOptions {
    /// These options, and for those that are not set the ones before the name of the command.
    fn or(self, before: Self) -> Self {
        Self {
            host: self.host.or(before.host),
            port: self.port.or(before.port),
            redis_url: self.redis_url.or(before.redis_url),
            database_url: self.database_url.or(before.database_url),
        }
    }

    /// Fails if an option is set: the command does not use the settings of a node.
    fn refuse(&self, command: &str) -> anyhow::Result<()> {
        let options = [
            ("--host", &self.host),
            ("--port", &self.port),
            ("--redis-url", &self.redis_url),
            ("--database-url", &self.database_url),
        ];
        for (option, value) in options {
            anyhow::ensure!(value.is_none(), "{option} can't be used with {command}");
        }
        Ok(())
    }

    /// The settings of a command that uses the database and no other setting of a node. Its own
    /// option comes first. Fails if another option is set.
    fn only_database(
        mut self,
        command: &str,
        database_url: Option<String>,
    ) -> anyhow::Result<CommandLine> {
        let database_url = database_url.or(self.database_url.take());
        self.refuse(command)?;
        Ok(CommandLine {
            database_url,
            ..CommandLine::default()
        })
    }

    fn into_command_line(self) -> CommandLine {
        CommandLine {
            host: self.host,
            port: self.port,
            redis_url: self.redis_url,
            database_url: self.database_url,
        }
    }

    fn load_config(self) -> Result<Config, ConfigError> {
        Config::load_with(&self.into_command_line())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node; the default command
    Serve(NodeOptions),
    /// Prints a JWT for development, signed with JWT_SECRET
    Token(TokenOptions),
    /// Prints the configuration in force, with secrets hidden, and warns of weak settings; fails with
    /// a message when it can't be used
    Config {
        /// Fail also when a setting is weak
        #[arg(long)]
        strict: bool,
        /// Print the documentation of all keys instead: docs/configuration.md, .env.example, or the
        /// keys as JSON
        #[arg(
            long,
            value_name = "FORMAT",
            conflicts_with_all = ["strict", "host", "port", "redis_url", "database_url"]
        )]
        docs: Option<DocsFormat>,
        #[command(flatten)]
        node: NodeOptions,
    },
    /// Exits with 0 when the node on this machine is ready, for container health checks
    Healthcheck(NodeOptions),
    /// Applies, reverts or lists the migrations of the database. A node applies them at its start,
    /// unless MIGRATE=off
    Migrate {
        #[command(subcommand)]
        action: migrate::Action,
        /// The database, in place of DATABASE_URL; the list of processes shows it, so leave the
        /// password to DATABASE_URL
        #[arg(long, value_name = "URL", global = true)]
        database_url: Option<String>,
    },
    /// Checks, copies, fills or prunes the database; exits with 1 if it has found something, and with 2
    /// if it could not run
    Db {
        #[command(subcommand)]
        action: db::Action,
        /// The database, in place of DATABASE_URL; the list of processes shows it, so leave the
        /// password to DATABASE_URL
        #[arg(long, value_name = "URL", global = true)]
        database_url: Option<String>,
    },
    /// Lists the announcements and jobs that wait or have failed, and repeats them; exits with 1 if a row
    /// was not found, and with 2 if it could not run
    Outbox {
        #[command(subcommand)]
        action: outbox::Action,
        /// The database, in place of DATABASE_URL; the list of processes shows it, so leave the
        /// password to DATABASE_URL
        #[arg(long, value_name = "URL", global = true)]
        database_url: Option<String>,
    },
    /// Creates, lists and changes accounts in the database
    User {
        #[command(subcommand)]
        action: user::Action,
        /// The database, in place of DATABASE_URL; the list of processes shows it, so leave the
        /// password to DATABASE_URL
        #[arg(long, value_name = "URL", global = true)]
        database_url: Option<String>,
    },
    /// Publishes the outbox's rows and runs its jobs, without listening: for nodes with WORKERS=off
    Worker(NodeOptions),
    Bench(Box<hubbub_bench::Options>),
}

#[derive(Debug, Args)]
struct TokenOptions {
    /// The user's id
    #[arg(long)]
    user: String,
    /// The user's name [default: the id]
    #[arg(long)]
    name: Option<String>,
    /// The user's role; `service` and `admin` may use every REST route
    #[arg(long)]
    role: Option<String>,
    /// Rooms that the token is limited to, separated by commas; a name that ends in * is a prefix
    /// [default: all rooms]
    #[arg(long, value_delimiter = ',')]
    rooms: Option<Vec<String>>,
    /// Seconds until the token expires; also 90s, 15m, 12h, 30d
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DocsFormat {
    /// docs/configuration.md
    Markdown,
    /// .env.example
    Env,
    /// JSON, for checks of deployment files
    Keys,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// With a message for the terminal.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let before = self.node;
        let command = self.command;
        match command.unwrap_or_else(|| Command::Serve(NodeOptions::default())) {
            Command::Serve(node) => serve::serve(&node.or(before).load_config()?),
            Command::Token(options) => {
                before.refuse("token")?;
                print_token(options, &Config::load()?)
            }
            Command::Config {
                docs: Some(format), ..
            } => {
                before.refuse("config --docs")?;
                Ok(print_docs(format))
            }
            Command::Config {
                strict,
                docs: None,
                node,
            } => Ok(print_config(&node.or(before).load_config()?, strict)),
            Command::Healthcheck(node) => healthcheck::check(&node.or(before).load_config()?),
            Command::Migrate {
                action,
                database_url,
            } => migrate::run(&action, &before.only_database("migrate", database_url)?),
            Command::Db {
                action,
                database_url,
            } => db::run(&action, before.only_database("db", database_url)),
            Command::Outbox {
                action,
                database_url,
            } => outbox::run(&action, before.only_database("outbox", database_url)),
            Command::Worker(node) => worker::work(&node.or(before).load_config()?),
            Command::User {
                action,
                database_url,
            } => user::run(&action, &before.only_database("user", database_url)?),
            // Everything it needs is on its command line: the nodes it measures have their own
            // configuration.
            Command::Bench(options) => {
                before.refuse("bench")?;
                hubbub_bench::run(&options, |user, secret| {
                    Ok(NewToken::lasting(user, BENCH_TOKEN_TTL).sign(secret)?)
                })
            }
        }
    }
}

fn print_token(options: TokenOptions, config: &Config) -> anyhow::Result<ExitCode> {
    let signer = config.identity.signer.as_ref();
    let signer = signer.context("JWT_SECRET is not set")?;
    let token = NewToken {
        username: options.name,
        role: options.role,
        rooms: options.rooms,
        aud: signer.audience.clone(),
        iss: signer.issuer.clone(),
        ..NewToken::lasting(&options.user, options.ttl)
    };
    println!("{}", token.sign(&signer.secret)?);
    Ok(ExitCode::SUCCESS)
}

fn print_config(config: &Config, strict: bool) -> ExitCode {
    print!("{}", config.render());
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    if strict && !config.warnings.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn print_docs(format: DocsFormat) -> ExitCode {
    let text = match format {
        DocsFormat::Markdown => docs::markdown(),
        DocsFormat::Env => docs::env_example(),
        DocsFormat::Keys => docs::keys_json(),
    };
    print!("{text}");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// Why the command line is refused; `None` if it is accepted.
    fn refusal(arguments: &str) -> Option<String> {
        let arguments = ["hubbub"].into_iter().chain(arguments.split_whitespace());
        let refused = Cli::try_parse_from(arguments).map(drop).err()?;
        Some(refused.to_string())
    }

    const SETTINGS: [&str; 4] = [
        "--port 1",
        "--host ::1",
        "--redis-url redis://localhost",
        "--database-url none",
    ];

    #[test]
    fn commands_that_use_the_settings_accept_them_before_or_after_their_name() {
        for settings in SETTINGS {
            for command in ["serve", "config", "config --strict", "healthcheck"] {
                assert_eq!(refusal(&format!("{command} {settings}")), None, "{command}");
                assert_eq!(refusal(&format!("{settings} {command}")), None, "{command}");
            }
            assert_eq!(refusal(settings), None);
        }
    }

    #[test]
    fn migrate_and_db_accept_the_database_before_or_after_their_name() {
        for arguments in [
            "migrate --database-url none status",
            "migrate status --database-url none",
            "--database-url none migrate up",
            "db --database-url none verify",
            "db verify --database-url none",
            "--database-url none db verify",
        ] {
            assert_eq!(refusal(arguments), None, "{arguments}");
        }
        for arguments in [
            "migrate",
            "migrate down 0",
            "migrate up --port 1",
            "db",
            "db verify --port 1",
        ] {
            assert!(refusal(arguments).is_some(), "{arguments}");
        }
    }

    #[test]
    fn migrate_and_db_refuse_other_settings_before_their_name() {
        for command in ["migrate status", "db verify"] {
            for settings in SETTINGS {
                let arguments = format!("hubbub {settings} {command} --database-url none");
                let cli = Cli::try_parse_from(arguments.split(' ')).unwrap();
                let option = settings.split(' ').next().unwrap();
                let name = command.split(' ').next().unwrap();
                let result = cli.node.only_database(name, Some("none".to_owned()));
                if option == "--database-url" {
                    assert_eq!(result.unwrap().database_url.as_deref(), Some("none"));
                } else {
                    let expected = format!("{option} can't be used with {name}");
                    assert_eq!(result.unwrap_err().to_string(), expected);
                }
            }
        }
    }

    #[test]
    fn commands_without_a_use_for_the_settings_refuse_them() {
        for settings in SETTINGS {
            for command in ["bench", "token --user ann", "config --docs env"] {
                assert_eq!(refusal(command), None, "{command}");
                let option = settings.split(' ').next().unwrap();
                let refused = refusal(&format!("{command} {settings}"));
                let refused = refused.unwrap_or_else(|| "accepted".to_owned());
                assert!(refused.contains(option), "{command} {settings}: {refused}");
            }
        }
    }
}
