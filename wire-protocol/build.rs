//! Generates Rust types from `proto/` with a compiler written in Rust: no `protoc` to install.

use std::path::{Path, PathBuf};

const CLIENT: &[&str] = &["envelope.proto"];
const INTERNAL: &[&str] = &["internal/link.proto"];

fn main() {
    println!("cargo:rerun-if-changed=proto");
    let root = Path::new("proto");
    let files: Vec<PathBuf> = CLIENT.iter().chain(INTERNAL).map(|f| root.join(f)).collect();
    let mut compiler = protox::Compiler::new([root]).unwrap_or_else(|error| panic!("{error:?}"));
    compiler.include_imports(true).open_files(&files).unwrap_or_else(|error| panic!("{error:?}"));
    let descriptors = compiler.file_descriptor_set();
    // For tests, which compare frames with their readable form.
    let described = Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).join("descriptors.bin");
    std::fs::write(described, compiler.encode_file_descriptor_set()).expect("OUT_DIR can be written");
    prost_build::Config::new()
        .bytes(["."])
        // Few messages of replicas carry one, and all of them would be as large.
        .boxed(".ringline.internal.v1.SnapshotPoint.replicas")
        .compile_fds(descriptors)
        .unwrap_or_else(|error| panic!("{error}"));
}
