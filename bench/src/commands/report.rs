//! `report`: what results say.

use super::Failure;
use bench::coordinator::control::flags::Flags;
use bench::report::{file, html, text};
use std::path::Path;
use std::process::ExitCode;

/// `ringline-bench report FILE… [--html FILE]`.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let mut flags = Flags::parse(arguments, &["--html"], &[])?;
    let page = flags.one("--html")?;
    let files = flags.operands();
    if files.is_empty() {
        return Err("report: no file is named".into());
    }
    let results = files.iter().map(|name| file::read(Path::new(name))).collect::<Result<Vec<_>, _>>()?;
    for result in &results {
        println!("{}", text::table(result));
    }
    if let Some(page) = page {
        std::fs::write(&page, html::page(&results)?).map_err(|error| format!("{page}: {error}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
