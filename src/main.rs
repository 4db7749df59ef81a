//! `weir`: see [`weir::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use weir::cli::{Cli, Command, Review};
use weir::client::Client;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(text) => print(std::io::stdout(), &text),
        // A reader that has gone away (`weir audit tail | head`) is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // `diff --exit-code` answers through its code; what it says is still its output.
            let code = weir::exit::code(&error);
            match code == weir::exit::Exit::Differs as u8 {
                true => print(std::io::stdout(), &error.to_string()),
                false => print(std::io::stderr(), &format!("{error:#}\n")),
            };
            ExitCode::from(code)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

fn print(mut to: impl std::io::Write, text: &str) -> ExitCode {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn run(cli: Cli) -> anyhow::Result<String> {
    match cli.command {
        Command::Audit(command) => {
            // A control plane is needed by those alone that ask it for its witness.
            let server = cli.server;
            let ask = || {
                let client = Client::new(server.find()?)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(client.get(weir::audit::WITNESS_PATH))
            };
            weir::audit::run(&command, &ask, &mut std::io::stdout().lock())?;
            Ok(String::new())
        }
        Command::Dev(args) => {
            weir::dev::run(&args, &mut std::io::stdout())?;
            Ok(String::new())
        }
        Command::Policy(Review::Test(args)) if !args.files.is_empty() => {
            weir::operate::test_files(&args)
        }
        Command::Connect(args) => {
            weir::connect::run(&args, cli.server.ca)?;
            Ok(String::new())
        }
        command => {
            let client = Client::new(cli.server.find()?)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(weir::operate::run(&client, command))
        }
    }
}
