//! Puts the web chat's files into the binary: a table with each file's path, type, tag and bytes. A file beside
//! another one that is named like it with `.br` or `.gz` behind holds the same, compressed.
//!
//! The files are those of `clients/web/dist`, which `make` builds. Without them, and so without any JavaScript
//! tools installed, the gateway builds all the same, with a page that says what is missing.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The page in place of a web chat that was not built.
const MISSING_PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Ringline</title>\n\
     <h1>Ringline</h1>\n<p>The web chat was not built into this gateway. Build it with <code>npm ci</code> and \
     <code>npm run build</code> in <code>clients/web</code>, then build the gateway again.</p>\n</html>\n";

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let web = manifest.join("../clients/web");
    let dist = web.join("dist");
    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        println!("cargo:rerun-if-changed={}", dist.display());
        list(&dist, &dist, &mut files).unwrap_or_else(|error| panic!("{}: {error}", dist.display()));
    } else {
        // Watching a folder that is not there would rebuild each time; its parent changes when it is made.
        let watched = if web.is_dir() { web } else { manifest.join("../clients") };
        println!("cargo:rerun-if-changed={}", watched.display());
        let page = out.join("missing.html");
        fs::write(&page, MISSING_PAGE).expect("the output folder is writable");
        files.push(("/index.html".to_owned(), page));
    }
    println!("cargo:rerun-if-changed=build.rs");
    files.sort();
    fs::write(out.join("web_assets.rs"), table(&files)).expect("the output folder is writable");
}

/// All files below `folder`, with their paths as a browser asks for them.
fn list(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(root, &path, files)?;
            continue;
        }
        let below = path.strip_prefix(root).expect("it was found below the root");
        let below = below.to_str().ok_or_else(|| io::Error::other("a file's name is not UTF-8"))?;
        files.push((format!("/{below}"), path.canonicalize()?));
    }
    Ok(())
}

/// Rust text of `static ASSETS`, sorted by path.
fn table(files: &[(String, PathBuf)]) -> String {
    let compressed = |path: &str, suffix: &str| {
        let name = format!("{path}{suffix}");
        let file = files.iter().find(|(path, _)| *path == name);
        file.map_or("None".to_owned(), |(_, file)| format!("Some({})", included(file)))
    };
    let is_compressed = |path: &str| {
        let plain = path.strip_suffix(".br").or_else(|| path.strip_suffix(".gz"));
        plain.is_some_and(|plain| files.iter().any(|(path, _)| path == plain))
    };
    let mut text = String::from("static ASSETS: &[Asset] = &[\n");
    for (path, file) in files.iter().filter(|(path, _)| !is_compressed(path)) {
        let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        // The tag only tells versions apart; it need not resist anyone.
        let mut hash = DefaultHasher::new();
        hash.write(&bytes);
        let tag = format!("{:016x}{:x}", hash.finish(), bytes.len());
        // The bundler writes `assets/name-hash.js`, and nothing without a hash in there.
        let immutable = path.starts_with("/assets/");
        let (content_type, plain) = (content_type(path), included(file));
        let (brotli, gzip) = (compressed(path, ".br"), compressed(path, ".gz"));
        writeln!(
            text,
            "    Asset {{ path: {path:?}, content_type: {content_type:?}, tag: {tag:?}, immutable: {immutable}, \
             plain: {plain}, brotli: {brotli}, gzip: {gzip} }},"
        )
        .expect("writing to a string cannot fail");
    }
    text.push_str("];\n");
    text
}

fn included(file: &Path) -> String {
    format!("include_bytes!({:?})", file.to_str().expect("a build folder's path is UTF-8"))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
