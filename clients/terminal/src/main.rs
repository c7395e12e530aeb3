//! `ringline-terminal`: see `--help`.

#![forbid(unsafe_code)]

use ringline_terminal::arguments::{self, Arguments, Parsed};
use ringline_terminal::{account, plain, screen};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match arguments::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(arguments)) => arguments,
        Ok(Parsed::Help) => {
            print!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(arguments));
            // A read of standard input may still be waiting; nobody needs it.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(&error),
    }
}

async fn run(arguments: Arguments) -> ExitCode {
    let client = match account::open(&arguments).await {
        Ok(client) => client,
        Err(error) => return fail(&error),
    };
    let outcome: Result<(), Box<dyn std::error::Error>> = if arguments.plain {
        plain::run(client.clone(), tokio::io::stdin(), tokio::io::stdout()).await.map_err(Into::into)
    } else {
        screen::run(client.clone()).await.map_err(Into::into)
    };
    client.shutdown().await;
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("ringline-terminal: {error}");
    ExitCode::FAILURE
}
