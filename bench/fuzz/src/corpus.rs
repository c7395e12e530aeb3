//! Kept inputs of a target, all in one file: each behind its length (u32, little endian), the shortest first.
//!
//! libFuzzer wants a folder with a file for each; thousands of them are no joy in a checkout.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the project keeps the inputs of a target: cargo says where this checkout is, or the program runs in its root.
pub fn file_of(target: &str) -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| "bench/fuzz".into());
    Path::new(&own).join("corpus").join(format!("{target}.bin"))
}

/// The inputs in a file.
pub fn read(file: &Path) -> io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(file)?;
    let torn = || io::Error::new(io::ErrorKind::InvalidData, format!("{}: a torn input", file.display()));
    let mut rest = bytes.as_slice();
    let mut inputs = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (input, behind) = behind.split_at_checked(length).ok_or_else(torn)?;
        inputs.push(input.to_vec());
        rest = behind;
    }
    Ok(inputs)
}

/// Writes inputs, each once.
pub fn write(file: &Path, inputs: &[Vec<u8>]) -> io::Result<()> {
    let mut inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    inputs.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    inputs.dedup();
    let mut bytes = Vec::new();
    for input in inputs {
        let length = u32::try_from(input.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an input of 4 GiB"))?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(input);
    }
    fs::write(file, bytes)
}

/// The files of a folder, as inputs.
pub fn read_folder(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    fs::read_dir(folder)?.map(|entry| fs::read(entry?.path())).collect()
}

/// A file for each input.
pub fn write_folder(folder: &Path, inputs: &[Vec<u8>]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (number, input) in inputs.iter().enumerate() {
        fs::write(folder.join(format!("kept-{number:05}")), input)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_come_back_and_a_torn_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("some.bin");
        let inputs = vec![b"second".to_vec(), Vec::new(), b"abc".to_vec(), b"abc".to_vec()];
        write(&file, &inputs).expect("it writes");
        let read_back = read(&file).expect("it reads");
        assert_eq!(read_back, [Vec::new(), b"abc".to_vec(), b"second".to_vec()]);
        let parts = folder.path().join("parts");
        write_folder(&parts, &read_back).expect("it writes");
        let mut again = read_folder(&parts).expect("it reads");
        again.sort_by_key(Vec::len);
        assert_eq!(again, read_back);
        let bytes = fs::read(&file).expect("it is there");
        fs::write(&file, &bytes[..bytes.len() - 1]).expect("it writes");
        assert!(read(&file).expect_err("torn").to_string().contains("some.bin"));
    }
}
