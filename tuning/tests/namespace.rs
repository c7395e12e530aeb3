//! The real program against the real kernel, inside a network namespace of its own: there and back, byte for byte.
//!
//! Only settings that belong to a network namespace are touched. Needs root and util-linux: nothing else proves that the
//! kernel takes and gives back what we write, so a machine that gives this right has to let these tests run.

#[path = "rights/right.rs"]
mod right;

use right::{Right, refused};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The sysctls that a profile below changes. Linux gives each network namespace its own.
const SYSCTLS: [&str; 8] = [
    "net/core/somaxconn",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_notsent_lowat",
    "net/ipv4/tcp_slow_start_after_idle",
    "net/ipv4/tcp_tw_reuse",
];

/// What the namespace is set to first, so that every setting of the profile has something to do on any machine.
const BEFORE: [&str; 8] =
    ["128", "256", "32768 60999", "4096 131072 6291456", "4096 16384 4194304", "4294967295", "1", "0"];

/// Wishes for these files alone; two are for one file.
const PROFILE: &str = r"
role = 'settings of a network namespace'
[[settings]]
setting = 'listen_backlog'
at_least = 4096
[[settings]]
setting = 'syn_backlog'
at_least = 4096
[[settings]]
setting = 'local_ports'
at_least = 55536
[[settings]]
setting = 'tcp_receive_default'
at_most = 32768
[[settings]]
setting = 'tcp_receive_max'
at_most = 262144
[[settings]]
setting = 'tcp_send_max'
at_most = 262144
[[settings]]
setting = 'tcp_unsent_max'
at_most = 131072
[[settings]]
setting = 'slow_start_after_idle'
exactly = 0
[[settings]]
setting = 'time_wait_reuse'
exactly = 1
";

/// Opens a file of the namespace as it is opened to be set, and holds the namespace: `cat` ends with its input.
const HOLD: &str = ": >>/proc/sys/net/core/somaxconn && echo ready && exec cat";

/// A network namespace, held by a process that does nothing in it.
struct Namespace {
    holder: std::process::Child,
    folder: tempfile::TempDir,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Namespace {
    /// `None`: nobody may make one here, or set anything in it, and this is not known to be given.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let started = Command::new("unshare")
            .args(["--net", "sh", "-c", HOLD])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let Ok(holder) = started else {
            refused(Right::Sysctls, "there is no `unshare` (util-linux)");
            return None;
        };
        let mut namespace = Self { holder, folder };
        let mut ready = [0; 6];
        let said = namespace.holder.stdout.as_mut().expect("piped");
        if std::io::Read::read_exact(said, &mut ready).is_err() {
            refused(Right::Sysctls, "`unshare --net` or writing to /proc/sys failed: this needs root");
            return None;
        }
        let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        let other = std::fs::read_link(format!("/proc/{}/ns/net", namespace.holder.id())).expect("another");
        assert_ne!(own, other, "the machine's own settings must not be touched");
        namespace.wish_for(PROFILE);
        for (path, text) in SYSCTLS.iter().zip(BEFORE) {
            namespace.write(path, text);
        }
        Some(namespace)
    }

    fn profile(&self) -> PathBuf {
        self.folder.path().join("profile.toml")
    }

    /// Writes the profile; every setting gets the reason and the cost that it must have.
    fn wish_for(&self, profile: &str) {
        let table = "[[settings]]\nreason = 'a test'\ncost = 'none'";
        std::fs::write(self.profile(), profile.replace("[[settings]]", table)).expect("a profile");
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("below").join("record.json")
    }

    /// A command inside. Network sysctls are those of the process that opens the file.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg(program);
        command
    }

    fn write(&self, path: &str, text: &str) {
        let script = format!("printf '%s\\n' '{text}' > /proc/sys/{path}");
        let status = self.inside("sh").args(["-c", &script]).status().expect("nsenter of util-linux");
        assert!(status.success(), "{path} does not take {text}");
    }

    /// All files, byte for byte.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let read = |path: &&'static str| {
            let output = self.inside("cat").arg(format!("/proc/sys/{path}")).output().expect("cat");
            assert!(output.status.success(), "{path} is not readable in a namespace");
            (*path, String::from_utf8(output.stdout).expect("UTF-8"))
        };
        SYSCTLS.iter().map(read).collect()
    }

    fn tune(&self, command: &str, options: &[&str]) -> Output {
        let mut tune = self.inside(env!("CARGO_BIN_EXE_ringline-tune"));
        tune.arg(command).args(options).stdin(Stdio::null());
        if command != "revert" {
            tune.arg("--profile-file").arg(self.profile());
        }
        if ["apply", "revert"].contains(&command) {
            tune.arg("--record").arg(self.record());
        }
        tune.output().expect("ringline-tune")
    }

    #[track_caller]
    fn tuned(&self, command: &str, options: &[&str], code: i32) -> String {
        let output = self.tune(command, options);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{command} {options:?}:\n{said}{complained}");
        said + &complained
    }
}

fn machine() -> Vec<Option<String>> {
    SYSCTLS.iter().map(|path| std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()).collect()
}

#[test]
fn apply_makes_a_namespace_serve_and_revert_restores_every_byte() {
    let machine_before = machine();
    let Some(namespace) = Namespace::new() else { return };
    let before = namespace.settings();

    let report = namespace.tuned("check", &["--json"], 1);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    let bad = findings.iter().filter(|finding| finding["state"] == "does_not_serve").count();
    assert_eq!((bad, findings.len()), (9, 9), "{report:#}");

    namespace.tuned("apply", &["--dry-run"], 0);
    namespace.tuned("apply", &[], 2);
    assert_eq!(namespace.settings(), before, "neither a dry run nor a missing answer changes anything");
    assert!(!namespace.record().exists());

    namespace.tuned("apply", &["--yes"], 0);
    namespace.tuned("check", &[], 0);
    let applied = namespace.settings();
    assert!(before.iter().zip(&applied).all(|(before, applied)| before != applied), "{applied:?}");
    assert!(namespace.tuned("apply", &["--yes"], 0).contains("nothing to write"));

    namespace.tuned("revert", &[], 0);
    assert_eq!(namespace.settings(), before);
    namespace.tuned("check", &[], 1);
    namespace.tuned("revert", &[], 0);
    assert_eq!(namespace.settings(), before, "reverting twice changes nothing");
    assert_eq!(machine(), machine_before, "the machine's own settings");
}

#[test]
fn a_change_from_elsewhere_survives_unless_forced() {
    let Some(namespace) = Namespace::new() else { return };
    let before = namespace.settings();
    namespace.tuned("apply", &["--yes"], 0);
    namespace.write("net/core/somaxconn", "777");
    let said = namespace.tuned("revert", &[], 1);
    assert!(said.contains("somaxconn") && said.contains("777"), "{said}");
    assert_eq!(namespace.settings()[0].1, "777\n");
    assert_eq!(namespace.settings()[1..], before[1..], "the rest is back");
    namespace.tuned("revert", &["--force"], 0);
    assert_eq!(namespace.settings(), before);
}

#[test]
fn what_the_kernel_refuses_ends_it_midway_and_all_comes_back() {
    let Some(namespace) = Namespace::new() else { return };
    let before = namespace.settings();
    // The kernel keeps this number in 32 bits, and refuses more.
    let wish = "'syn_backlog'\nat_least = ";
    namespace.wish_for(&PROFILE.replace(&format!("{wish}4096"), &format!("{wish}4294967296")));
    let said = namespace.tuned("apply", &["--yes"], 1);
    assert!(said.contains("tcp_max_syn_backlog") && said.contains("1 of 8"), "{said}");
    assert_eq!(namespace.settings()[0].1, "4096\n", "what came before is applied");
    assert_eq!(namespace.settings()[2..], before[2..], "what came after is not");
    namespace.tuned("revert", &[], 0);
    assert_eq!(namespace.settings(), before);
}
