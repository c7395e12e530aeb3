//! Kept inputs, out of their one file and back: what `run.sh` needs.

#![forbid(unsafe_code)]

use ringline_fuzz::corpus::{file_of, read, read_folder, write, write_folder};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["names"] => {
            ringline_fuzz::TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(())
        }
        ["unpack", target, folder] => {
            read(&file_of(target)).and_then(|inputs| write_folder(Path::new(folder), &inputs))
        }
        ["pack", target, folder] => {
            read_folder(Path::new(folder)).and_then(|inputs| write(&file_of(target), &inputs))
        }
        _ => {
            eprintln!("corpus names | unpack TARGET FOLDER | pack TARGET FOLDER");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corpus: {error}");
            ExitCode::FAILURE
        }
    }
}
