//! A PostgreSQL cluster of its own under ejabberd: made by `initdb`, synced as by default, thrown away afterwards.

use super::process::{Process, Start, no_root};
use super::{PeerError, configured, free_port, path_text, said};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The database's owner, whose password ejabberd has.
const OWNER: &str = "ringline";
/// User that the server runs as if we are root, which it refuses to be.
const SYSTEM_USER: &str = "postgres";
/// ejabberd's tables, as its package brings them.
const SCHEMA: &str = "/usr/share/ejabberd/sql/pg.sql";

/// How to reach the cluster.
pub struct Database {
    /// On the loopback address.
    pub port: u16,
    /// Of its owner; made for this cluster.
    pub password: String,
    programs: PathBuf,
}

/// As the server names itself.
pub fn version() -> Result<String, PeerError> {
    let text = said(Command::new(programs()?.join("postgres")).arg("--version"))?;
    Ok(text.split_whitespace().nth(2).unwrap_or("unknown").to_owned())
}

/// Debian's newest.
fn programs() -> Result<PathBuf, PeerError> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let newest = versions
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok())
        .max_by_key(|version| *version)
        .map(|version| Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin"));
    newest.filter(|folder| folder.join("initdb").is_file()).ok_or(PeerError::NotInstalled("postgresql"))
}

impl Database {
    /// Makes the cluster and ejabberd's tables in it.
    pub fn start(cpus: &str, folder: &Path) -> Result<(Self, Process), PeerError> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)
            .map_err(|error| PeerError::Failed { what: "randomness".into(), output: error.to_string() })?;
        let password = secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let database = Self { port: free_port()?, password, programs: programs()? };
        let home = folder.join("postgresql");
        let data = path_text(&home.join("data"));
        database.make(folder, &home, &data)?;
        let start = Start::new("postgres", &database.programs.join("postgres"))
            .arguments(["-D", &data])
            .without_root(SYSTEM_USER);
        let (isready, port) = (database.programs.join("pg_isready"), database.port.to_string());
        let ready = Box::new(move || {
            let asked = Command::new(&isready).args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
            asked.is_ok_and(|status| status.success())
        });
        let process = Process::start(start, cpus, folder, ready)?;
        database.run(&["-f", SCHEMA])?;
        Ok((database, process))
    }

    fn make(&self, folder: &Path, home: &Path, data: &str) -> Result<(), PeerError> {
        let owner = no_root(SYSTEM_USER)?;
        let mut folder_made = Command::new("install");
        folder_made.args(["-d", "-m", "700"]).arg(home);
        if owner.is_some() {
            folder_made.args(["-o", SYSTEM_USER]);
            // The other user must get there.
            said(Command::new("chmod").arg("a+x").arg(folder))?;
        }
        said(&mut folder_made)?;
        let secret = home.join("password");
        let config =
            configured(include_str!("../../../peers/postgresql.conf"), &[("@PORT@", self.port.to_string())]);
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).map_err(|error| PeerError::io(path_text(path), error))
        };
        write(&secret, &self.password)?;
        if owner.is_some() {
            said(Command::new("chown").arg(SYSTEM_USER).arg(&secret))?;
        }
        let initdb = self.programs.join("initdb");
        let mut command = owner.map_or_else(
            || Command::new(&initdb),
            |prefix| {
                let mut command = Command::new("setpriv");
                command.args(prefix).arg(&initdb);
                command
            },
        );
        command.current_dir(home).args([
            "-D",
            data,
            "-U",
            OWNER,
            "-E",
            "UTF8",
            "--no-locale",
            "-A",
            "scram-sha-256",
        ]);
        command.arg("--pwfile").arg(&secret);
        ran(&mut command)?;
        write(&Path::new(data).join("postgresql.conf"), &config)
    }

    /// Runs psql with these arguments; errors in SQL are errors.
    pub fn run(&self, arguments: &[&str]) -> Result<(), PeerError> {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-h", "127.0.0.1", "-U", OWNER, "-d", "postgres", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-p", &self.port.to_string()]).args(arguments).env("PGPASSWORD", &self.password);
        ran(&mut command)
    }
}

fn ran(command: &mut Command) -> Result<(), PeerError> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| PeerError::io(&what, error))?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Err(PeerError::Failed { what, output: said })
}
