//! The commands.

mod healthcheck;
mod serve;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use hubbub_bench::parse_duration;

use crate::auth::NewToken;
use crate::config::Config;

/// The lifetime of the tokens that `hubbub bench` signs for its connections.
const BENCH_TOKEN_TTL: Duration = Duration::from_secs(86_400);

/// A horizontally scalable chat cluster that any Socket.IO client can talk to.
///
/// Configured by the environment, `.env` in the working directory, and a TOML file (HUBBUB_CONFIG); `hubbub config` shows
/// what is in force.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node (what `hubbub` alone does, too)
    Serve,
    /// Prints a JWT for development, signed with JWT_SECRET
    Token {
        /// The user's id
        #[arg(long)]
        user: String,
        /// The user's name [default: the id]
        #[arg(long)]
        name: Option<String>,
        /// `service` or `admin` may use every REST route
        #[arg(long)]
        role: Option<String>,
        /// Rooms that it is limited to, separated by commas; a name that ends in * is a prefix [default: all]
        #[arg(long, value_delimiter = ',')]
        rooms: Option<Vec<String>>,
        /// Seconds until it expires; also 90s, 15m, 12h, 30d
        #[arg(long, default_value = "1h", value_parser = parse_duration)]
        ttl: Duration,
    },
    /// Prints the effective configuration, secrets hidden, and warns of what is weak; fails with a message when it is wrong
    Config {
        /// Fail when anything is weak, too
        #[arg(long)]
        strict: bool,
    },
    /// Exits with 0 when the node on this machine is ready (for container health checks)
    Healthcheck,
    Bench(Box<hubbub_bench::Options>),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// In words for whoever typed it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        // What it needs is on its command line: the nodes that it tries are configured elsewhere.
        if let Some(Command::Bench(options)) = &self.command {
            return hubbub_bench::run(options, |user, secret| {
                Ok(NewToken::lasting(user, BENCH_TOKEN_TTL).sign(secret)?)
            });
        }
        let config = Config::load()?;
        match self.command {
            None | Some(Command::Serve | Command::Bench(_)) => serve::serve(&config),
            Some(Command::Token {
                user,
                name,
                role,
                rooms,
                ttl,
            }) => {
                let secret = config
                    .settings
                    .token_secret()
                    .context("JWT_SECRET is not set")?;
                let (aud, iss) = config.tokens.map_or_else(Default::default, |tokens| {
                    (
                        tokens.rules.audience.into_iter().next(),
                        tokens.rules.issuer.into_iter().next(),
                    )
                });
                let token = NewToken {
                    username: name,
                    role,
                    rooms,
                    aud,
                    iss,
                    ..NewToken::lasting(&user, ttl)
                };
                println!("{}", token.sign(secret)?);
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Config { strict }) => {
                print!("{}", config.render());
                for warning in &config.warnings {
                    eprintln!("warning: {warning}");
                }
                let is_weak = strict && !config.warnings.is_empty();
                Ok(if is_weak {
                    ExitCode::FAILURE
                } else {
                    ExitCode::SUCCESS
                })
            }
            Some(Command::Healthcheck) => healthcheck::check(&config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
