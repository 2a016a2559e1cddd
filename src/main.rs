//! The `tailcast` program: reads the command line, starts tracing and the runtime, and runs one
//! command. Exit codes: 0, 1 for a failure, 2 for bad usage or settings.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tailcast::cli::{self, Request, UsageError};
use tailcast::config::{self, Config, LogFormat};
use tailcast::node;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Bad usage or settings, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(UsageError::Arguments(error)) => {
            // Help and version are errors to clap, too, and print to standard output.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
        Err(UsageError::Settings(errors)) => {
            for line in &errors.0 {
                eprintln!("tailcast: {line}");
            }
            return ExitCode::from(USAGE);
        }
    };
    match run(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tailcast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(request: Request) -> Result<()> {
    match request {
        Request::Serve(config) => serve(*config),
        Request::Config(found, unknown) => {
            for line in unknown {
                eprintln!("tailcast: {line}");
            }
            std::io::stdout().write_all(config::print(&found).as_bytes())?;
            Ok(())
        }
        Request::Check(config) => client_runtime()?.block_on(cli::check::run(&config)),
        Request::Tail(args) => client_runtime()?.block_on(cli::tail::run(args)),
        Request::Publish(args) => client_runtime()?.block_on(cli::publish::run(args)),
        Request::Token(args, settings) => cli::token::run(*args, settings),
        Request::Demo(args) => cli::demo::run(args),
        Request::Bench(args) => {
            let program = std::env::current_exe().context("cannot find this program")?;
            runtime()?.block_on(tailcast::bench::run(*args, Some(&program)))
        }
    }
}

/// Runs a node until it's told to stop. A Redis of its own outlives the node's drain.
fn serve(config: Config) -> Result<()> {
    start_tracing(&config)?;
    let own = node::own_redis(&config)?;
    let ended = runtime()?.block_on(node::run(config));
    if let Some(own) = own {
        own.stop();
    }
    ended
}

fn start_tracing(config: &Config) -> Result<()> {
    let mut filter = EnvFilter::try_new(&config.log)?;
    if filter
        .max_level_hint()
        .is_none_or(|most| most > LevelFilter::DEBUG)
    {
        // At trace it writes whole frames, and in one of them there may be a token.
        filter = filter.add_directive("tungstenite=debug".parse()?);
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => subscriber
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    }
    .map_err(anyhow::Error::from_boxed)
}

fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// One thread does for a command that holds one connection.
fn client_runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Whether it failed as nobody reads its output any more, which is no failure of ours.
fn broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
