//! The files of a room's code; those that only tests and simulations compile are left out.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file of Rust and TypeScript below a folder that is the product's: its path from the root, and its text. In
/// the order of the paths.
pub(crate) fn below(root: &Path, folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if has_name_of(path.extension(), &["rs", "ts", "tsx"]) {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path.strip_prefix(root).expect("below it").to_owned(), text));
            }
        }
    }
    found.sort();
    let of_tests: Vec<PathBuf> = found.iter().flat_map(|(file, text)| modules_of_tests(file, text)).collect();
    found.retain(|(file, _)| !of_tests.iter().any(|module| file.with_extension("").starts_with(module)));
    found.into_iter().map(|(file, text)| (file.display().to_string(), text)).collect()
}

fn has_name_of(name: Option<&OsStr>, names: &[&str]) -> bool {
    name.is_some_and(|name| names.iter().any(|is| name == *is))
}

/// The files, without their ending, and the folders of modules that a file has for tests only.
fn modules_of_tests(file: &Path, text: &str) -> Vec<PathBuf> {
    let is_front = has_name_of(file.file_name(), &["mod.rs", "lib.rs", "main.rs"]);
    let parent = file.parent().expect("a file lies in a folder");
    let folder = if is_front { parent.to_owned() } else { file.with_extension("") };
    let lines: Vec<&str> = text.lines().collect();
    let modules = (0..lines.len()).filter_map(|index| module_of_tests(&lines[index..]));
    modules.filter_map(|(_, module)| module.strip_suffix(';')).map(|name| folder.join(name)).collect()
}

/// A module for tests that begins with the first of these lines, an attribute: the index of its own line, and what
/// stands there from its name on.
pub(crate) fn module_of_tests<'a>(lines: &[&'a str]) -> Option<(usize, &'a str)> {
    let attribute = lines.first()?.trim_start().strip_prefix("#[cfg(")?;
    let of_tests = attribute.contains("test") || attribute.contains("feature = \"sim\"");
    if !of_tests || attribute.starts_with("not(") {
        return None;
    }
    let index = lines.iter().position(|line| !line.trim_start().starts_with("#["))?;
    let module = super::rust::without_visibility(lines[index]).strip_prefix("mod ")?;
    Some((index, module))
}

#[test]
fn modules_of_tests_are_found() {
    let text = "#[cfg(test)]\nmod tests;\nmod kept;\n\
                #[cfg(feature = \"sim\")]\n#[allow(dead_code)]\npub(crate) mod sim;\n\
                #[cfg(not(test))]\nmod kept_too;\n#[cfg(test)]\nmod inline {\n}\n";
    let of = |file: &str| modules_of_tests(Path::new(file), text);
    assert_eq!(of("a/mod.rs"), [Path::new("a/tests"), Path::new("a/sim")]);
    assert_eq!(of("a/b.rs"), [Path::new("a/b/tests"), Path::new("a/b/sim")]);
}
