//! Where files of a machine are read and written: the real one, or one made up for a test.

use std::io;

/// The files below `/proc` and `/sys` of a machine.
///
/// `write` hands the kernel one text by one write, as `echo` would. That it returns `Ok` does not say that the kernel
/// keeps the value as written: callers read back.
pub trait Host {
    /// The text of a file.
    fn read(&self, path: &str) -> io::Result<String>;
    /// Writes a value to a file that is there.
    fn write(&self, path: &str, text: &str) -> io::Result<()>;
    /// Names in a folder, sorted.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
}

/// This machine, seen from this process.
pub struct RealHost;

impl Host for RealHost {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        // Neither created nor truncated: these are the kernel's files, and one write is one value.
        use std::io::Write;
        std::fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let name =
            |entry: io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let mut names = std::fs::read_dir(folder)?.map(name).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}

/// This machine with the limits of another process, such as the running server's.
pub struct ProcessHost {
    /// Its id.
    pub pid: u32,
}

impl Host for ProcessHost {
    fn read(&self, path: &str) -> io::Result<String> {
        match path.strip_prefix("/proc/self/") {
            Some(rest) => {
                let path = format!("/proc/{}/{rest}", self.pid);
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
                RealHost.read(&path).map_err(named)
            }
            None => RealHost.read(path),
        }
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        RealHost.write(path, text)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        RealHost.list(folder)
    }
}
