//! The command line: which commands there are, and what each takes.
//!
//! Settings come from the table in `config`, so the flags are built, not derived; commands that are
//! clients of a running node derive theirs.

pub mod check;
mod client;
pub mod demo;
pub mod publish;
pub mod tail;
pub mod token;

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::bench::BenchArgs;
use crate::config::auth::{TokenSettings, load_for_token};
use crate::config::origin::{Found, Sources};
use crate::config::table::{Kind, SETTINGS, Setting};
use crate::config::{Config, ConfigErrors, load};

/// What was asked for.
#[derive(Debug)]
pub enum Request {
    /// Run a node.
    Serve(Box<Config>),
    /// Print the settings, and what was meant for one and is none.
    Config(Vec<Found>, Vec<String>),
    /// See whether a node could run well here.
    Check(Box<Config>),
    /// Print a room's entries.
    Tail(tail::TailArgs),
    /// Publish one entry.
    Publish(publish::PublishArgs),
    /// Make a token.
    Token(Box<token::TokenArgs>, TokenSettings),
    /// Fill a server with something to show.
    Demo(demo::DemoArgs),
    /// Measure a server.
    Bench(Box<BenchArgs>),
}

/// What was asked for makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The command line; clap's own words. Also `--help` and `--version`.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The settings.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
}

/// The command line's grammar.
pub fn command() -> Command {
    let root = Command::new("tailcast")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A realtime broadcast relay over Redis Streams: every room is a stream, every socket a cursor")
        .after_help(
            "Every setting is also an environment variable, as in TAILCAST_KEEP_FOR=24h, and a key of the \
             file, as in keep-for = \"24h\". A flag goes before the environment, that before the file.\n\
             Times: 500ms, 30s, 5m, 24h, 7d. Sizes: 64KiB, 1MiB, or bytes.",
        )
        .subcommand(with_settings(
            Command::new("serve").about("Run a node; the same as no command at all"),
        ))
        .subcommand(with_settings(
            Command::new("config").about("Print the settings in force, and where each comes from"),
        ))
        .subcommand(with_settings(
            Command::new("check").about("See whether Redis and this machine are set up well"),
        ))
        // The line about each comes last, as deriving sets one from the struct's own comment.
        .subcommand(tail::TailArgs::augment_args(Command::new("tail")).about("Print a room's entries as they come, one JSON line each"))
        .subcommand(publish::PublishArgs::augment_args(Command::new("publish")).about("Publish one entry, and print its ID"))
        .subcommand(with_some_settings(
            token::TokenArgs::augment_args(Command::new("token")).about("Make a token for a user or a back end, and print it"),
            |setting| OF_TOKEN.contains(&setting.name),
        ))
        .subcommand(demo::DemoArgs::augment_args(Command::new("demo")).about("Fill a running server with rooms and messages, for showing"))
        .subcommand(BenchArgs::augment_args(Command::new("bench")).about("Measure a running server, or what each protocol costs"));
    with_settings(root)
}

/// The settings that `token` goes by.
const OF_TOKEN: [&str; 3] = ["jwt-secret", "audience", "issuer"];

fn with_settings(command: Command) -> Command {
    with_some_settings(command, |_| true)
}

fn with_some_settings(command: Command, which: impl Fn(&Setting) -> bool) -> Command {
    let command = command.next_help_heading("Settings").arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .env("TAILCAST_CONFIG")
            .hide_env(true)
            .help("TOML file with settings"),
    );
    let settings = SETTINGS.iter().filter(|setting| which(setting));
    settings.fold(command, |command, setting| {
        let default = match setting.default {
            "" => String::new(),
            text => format!(" [default: {text}]"),
        };
        // Values stay text here: `config` checks them, so that all errors come together.
        let arg = Arg::new(setting.name)
            .long(setting.name)
            .value_name(setting.value_name())
            .allow_hyphen_values(true)
            .help(format!("{}{default}", setting.help));
        command.arg(match setting.kind {
            Kind::Switch => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            Kind::List(_) => arg.action(ArgAction::Append),
            _ => arg,
        })
    })
}

/// Reads the command line, and for commands with settings the environment and the file, too.
pub fn parse<I, T>(arguments: I) -> Result<Request, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let (name, inner) = matches.subcommand().unwrap_or(("serve", &matches));
    let with_settings = matches!(name, "serve" | "config" | "check");
    if !with_settings && let Some(flag) = first_flag(&matches) {
        let what = match name {
            "token" if OF_TOKEN.contains(&flag) => format!("write --{flag} behind token"),
            _ => format!("--{flag} is a setting of serve; {name} has no use for it"),
        };
        return Err(command
            .error(clap::error::ErrorKind::ArgumentConflict, what)
            .into());
    }
    Ok(match name {
        "token" => {
            let args = token::TokenArgs::from_arg_matches(inner)?;
            Request::Token(Box::new(args), from_sources(&[inner], load_for_token)?)
        }
        "tail" => Request::Tail(tail::TailArgs::from_arg_matches(inner)?),
        "publish" => Request::Publish(publish::PublishArgs::from_arg_matches(inner)?),
        "demo" => Request::Demo(demo::DemoArgs::from_arg_matches(inner)?),
        "bench" => Request::Bench(Box::new(BenchArgs::from_arg_matches(inner)?)),
        _ => {
            let (config, found) = from_sources(&[inner, &matches], load)?;
            match name {
                "config" => Request::Config(found, config.unknown_variables),
                "check" => Request::Check(Box::new(config)),
                _ => Request::Serve(Box::new(config)),
            }
        }
    })
}

/// A setting on the command line, before the command.
fn first_flag(matches: &ArgMatches) -> Option<&'static str> {
    let mut names = SETTINGS.iter().map(|setting| setting.name);
    names.find(|name| matches.contains_id(name))
}

/// The settings; flags may stand before and behind the command, and those behind go first.
fn from_sources<T>(
    matches: &[&ArgMatches],
    load: impl FnOnce(&Sources<'_>) -> Result<T, ConfigErrors>,
) -> Result<T, ConfigErrors> {
    let flag = |name: &str| {
        matches.iter().find_map(|matches| {
            // Not every command takes every setting.
            let values = matches.try_get_many::<String>(name).ok().flatten()?;
            Some(values.map(String::as_str).collect::<Vec<_>>().join(","))
        })
    };
    let file = matches
        .iter()
        .find_map(|matches| matches.get_one::<PathBuf>("config"))
        .filter(|path| !path.as_os_str().is_empty());
    load(&Sources {
        flags: &flag,
        environment: &|name| std::env::var_os(name),
        variables: &|| std::env::vars_os().map(|(name, _)| name).collect(),
        file: file.map(PathBuf::as_path),
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn grammar_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn help_lists_every_setting() {
        for name in ["serve", "config", "check", ""] {
            let mut command = command();
            let command = match name {
                "" => &mut command,
                name => command.find_subcommand_mut(name).expect("the command"),
            };
            let help = command.render_help().to_string();
            for setting in SETTINGS {
                assert!(
                    help.contains(&format!("--{}", setting.name)),
                    "{name}: {}",
                    setting.name
                );
            }
        }
    }

    #[test]
    fn settings_on_either_side() {
        let keep = |arguments: &[&str]| match parse(arguments) {
            Ok(Request::Serve(config)) => config.keep,
            _ => None,
        };
        assert_eq!(keep(&["tailcast", "--keep", "5"]), Some(5));
        assert_eq!(keep(&["tailcast", "serve", "--keep", "5"]), Some(5));
        assert_eq!(keep(&["tailcast", "--keep", "5", "serve"]), Some(5));
        assert_eq!(
            keep(&["tailcast", "--keep", "5", "serve", "--keep", "6"]),
            Some(6)
        );
        assert!(parse(["tailcast", "--keep", "5", "tail", "room"]).is_err());
    }
}
