//! Whole commands on a made-up machine: there, back, and everything that can come between.

use super::*;
use crate::made_up::{MadeUp, RECORD};
use crate::record::Progress;
use std::cell::RefCell;

const BACKLOG: &str = "/proc/sys/net/core/somaxconn";
const RECEIVE: &str = "/proc/sys/net/ipv4/tcp_rmem";
const HUGE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

fn machine() -> MadeUp {
    MadeUp::new(&[
        (BACKLOG, "128\n"),
        (RECEIVE, "4096\t131072\t6291456\n"),
        (HUGE, "[always] madvise never\n"),
        (PORTS, "32768\t60999\n"),
        (BOOT, "first\n"),
        ("/proc/meminfo", "MemTotal:        2097152 kB\n"),
        ("/sys/devices/system/cpu/online", "0-3\n"),
        ("/proc/self/limits", "Max open files 1024 4096 files\n"),
    ])
}

fn profile(settings: &[(&str, &str)]) -> Profile {
    let table = |(setting, wish): &(&str, &str)| {
        format!("[[settings]]\nsetting = '{setting}'\n{wish}\nreason = 'r'\ncost = 'c'\n")
    };
    let text: String = settings.iter().map(table).collect();
    Profile::parse("made-up", &format!("role = 'x'\n{text}")).unwrap_or_else(|error| panic!("{error}"))
}

fn four_files() -> Profile {
    profile(&[
        ("listen_backlog", "at_least = 4096"),
        ("tcp_receive_default", "at_most = 32768"),
        ("tcp_receive_max", "at_most = 262144"),
        ("huge_pages", "one_of = ['madvise', 'never']"),
        ("local_ports", "at_least = 55536"),
    ])
}

/// What a command returned and said.
#[derive(Debug)]
struct Said {
    code: u8,
    out: String,
    err: String,
}

fn said(machine: &MadeUp, answer: Option<&str>, work: impl FnOnce(&mut World<'_>) -> io::Result<u8>) -> Said {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut ask = |_: &str| Ok(answer.map(str::to_owned));
    let mut world = World { host: machine, disk: machine, ask: &mut ask, out: &mut out, err: &mut err };
    let code = work(&mut world).expect("vectors take everything");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code, out: text(out), err: text(err) }
}

fn apply_with(machine: &MadeUp, profile: &Profile, question: Question, answer: Option<&str>) -> Said {
    said(machine, answer, |world| run_apply(profile, question, Path::new(RECORD), world))
}

fn applied(machine: &MadeUp, profile: &Profile) -> Said {
    apply_with(machine, profile, Question::Answered, None)
}

fn reverted(machine: &MadeUp, foreign: Foreign) -> Said {
    said(machine, None, |world| run_revert(Path::new(RECORD), foreign, world))
}

fn checked(machine: &MadeUp, profile: &Profile) -> Said {
    said(machine, None, |world| run_check(profile, Form::Text, world))
}

#[test]
fn there_and_back_again() {
    let (machine, profile) = (machine(), four_files());
    assert_eq!(checked(&machine, &profile).code, NOT_DONE);
    let there = applied(&machine, &profile);
    assert_eq!(there.code, DONE, "{there:?}");
    assert_eq!(machine.text(BACKLOG), "4096\n");
    assert_eq!(machine.text(RECEIVE), "4096\t32768\t262144\n", "two settings, one write");
    assert_eq!(machine.text(HUGE), "always [madvise] never\n");
    assert_eq!(machine.text(PORTS), "10000\t65535\n");
    assert_eq!(*machine.writes.borrow(), [BACKLOG, RECEIVE, HUGE, PORTS], "in the profile's order");
    assert_eq!(checked(&machine, &profile).code, DONE);
    assert_eq!(machine.record().progress, Progress::Applied);
    assert!(applied(&machine, &profile).out.contains("nothing to write"));
    let back = reverted(&machine, Foreign::Keep);
    assert_eq!(back.code, DONE, "{back:?}");
    assert!(machine.is_as_at_first());
    assert_eq!(machine.record().progress, Progress::Reverted);
    let again = reverted(&machine, Foreign::Keep);
    assert_eq!((again.code, machine.writes.borrow().len()), (DONE, 8), "{again:?}");
}

#[test]
fn only_a_clear_yes_changes_anything() {
    let profile = four_files();
    for (answer, code) in
        [(Some("no\n"), NOT_DONE), (Some("\n"), NOT_DONE), (Some("yep\n"), NOT_DONE), (None, NOT_UNDERSTOOD)]
    {
        let machine = machine();
        let said = apply_with(&machine, &profile, Question::Ask, answer);
        assert_eq!(said.code, code, "{answer:?}: {said:?}");
        assert!(machine.is_as_at_first() && machine.writes.borrow().is_empty(), "{answer:?}");
    }
    let machine = machine();
    let planned = apply_with(&machine, &profile, Question::OnlyPlan, Some("yes\n"));
    assert!(machine.writes.borrow().is_empty() && planned.out.contains("128 -> 4096"), "{planned:?}");
    assert_eq!(apply_with(&machine, &profile, Question::Ask, Some(" Yes\n")).code, DONE);
    assert_eq!(machine.text(BACKLOG), "4096\n");
}

#[test]
fn what_serves_better_is_left_and_what_is_not_ours_is_said() {
    let machine = machine();
    let profile = profile(&[
        ("listen_backlog", "at_least = 100"),
        ("tcp_receive_default", "at_most = 200000"),
        ("open_files", "at_least = 2048"),
        ("conntrack_max", "at_least = 1"),
        ("syn_backlog", "at_least = 1"),
    ]);
    let said = applied(&machine, &profile);
    assert!(machine.writes.borrow().is_empty());
    assert!(said.out.contains("LimitNOFILE=2048") && said.out.contains("tcp_max_syn_backlog"), "{said:?}");
    let checked = checked(&machine, &profile);
    assert!(checked.out.contains("2 serve, 1 do not, 1 cannot be read, 1 mean nothing here"), "{checked:?}");
}

#[test]
fn a_write_that_fails_midway_is_named_and_taken_back() {
    let (machine, profile) = (machine(), four_files());
    machine.stubborn.borrow_mut().insert(HUGE.to_owned());
    let said = applied(&machine, &profile);
    assert_eq!(said.code, NOT_DONE);
    assert!(said.err.contains(HUGE) && said.err.contains("2 of 4"), "{said:?}");
    assert!(said.out.contains(&format!("written  {BACKLOG}")), "{said:?}");
    assert_eq!(machine.text(PORTS), "32768\t60999\n", "nothing after the failure");
    assert_eq!(reverted(&machine, Foreign::Keep).code, DONE);
    assert!(machine.is_as_at_first());
}

#[test]
fn what_the_kernel_makes_of_a_value_is_told_and_taken_back() {
    let (machine, profile) = (machine(), four_files());
    machine.clamped.borrow_mut().insert(BACKLOG.to_owned(), "2048\n".to_owned());
    let said = applied(&machine, &profile);
    assert_eq!(said.code, NOT_DONE);
    assert!(said.out.contains("made 2048") && said.err.contains("somaxconn does not serve"), "{said:?}");
    assert_eq!(machine.text(PORTS), "10000\t65535\n", "the rest is set");
    machine.clamped.borrow_mut().clear();
    let back = reverted(&machine, Foreign::Keep);
    assert_eq!(back.code, DONE, "{back:?}");
    assert!(machine.is_as_at_first());
}

#[test]
fn a_value_that_does_not_come_back_is_told_and_stays_on_record() {
    let (machine, profile) = (machine(), four_files());
    applied(&machine, &profile);
    machine.clamped.borrow_mut().insert(BACKLOG.to_owned(), "200\n".to_owned());
    let back = reverted(&machine, Foreign::Keep);
    assert_eq!(back.code, NOT_DONE);
    assert!(back.err.contains(BACKLOG) && back.err.contains("200"), "{back:?}");
    assert_eq!(machine.text(PORTS), "32768\t60999\n", "the rest is back");
    assert_eq!(machine.record().progress, Progress::Reverting);
    machine.clamped.borrow_mut().clear();
    machine.put(BACKLOG, "4096\n");
    assert_eq!(reverted(&machine, Foreign::Keep).code, DONE);
    assert!(machine.is_as_at_first());
}

#[test]
fn what_someone_else_changed_is_left_unless_forced() {
    let (machine, profile) = (machine(), four_files());
    applied(&machine, &profile);
    machine.put(BACKLOG, "777\n");
    let back = reverted(&machine, Foreign::Keep);
    assert_eq!(back.code, NOT_DONE);
    assert!(back.err.contains("777") && back.err.contains("--force"), "{back:?}");
    assert_eq!(machine.text(BACKLOG), "777\n");
    assert_eq!(machine.text(PORTS), "32768\t60999\n", "the rest is back");
    let over = applied(&machine, &profile);
    assert_eq!(over.code, NOT_DONE, "{over:?}");
    assert!(over.err.contains(BACKLOG) && machine.text(PORTS) == "32768\t60999\n", "{over:?}");
    assert_eq!(reverted(&machine, Foreign::Overwrite).code, DONE);
    assert!(machine.is_as_at_first());
}

#[test]
fn a_second_apply_chains_and_one_revert_takes_both_back() {
    let machine = machine();
    applied(&machine, &four_files());
    let more = profile(&[("listen_backlog", "at_least = 8192"), ("tcp_receive_min", "at_most = 2048")]);
    assert_eq!(applied(&machine, &more).code, DONE);
    assert_eq!(machine.text(BACKLOG), "8192\n");
    assert_eq!(machine.text(RECEIVE), "2048\t32768\t262144\n");
    assert_eq!(machine.record().changes.len(), 4, "each file once, with its first text");
    assert_eq!(reverted(&machine, Foreign::Keep).code, DONE);
    assert!(machine.is_as_at_first());
    // Values that others set after a revert are the first ones of the next apply.
    let kept = MadeUp::new(&[(BACKLOG, "512\n"), (BOOT, "first\n")]);
    kept.put_record(&serde_json::to_string(&machine.record()).expect("JSON"));
    assert_eq!(applied(&kept, &more).code, DONE);
    assert_eq!(reverted(&kept, Foreign::Keep).code, DONE);
    assert_eq!(kept.text(BACKLOG), "512\n");
}

/// A machine as a distribution leaves it, with everything that any profile speaks of.
fn whole_machine() -> MadeUp {
    MadeUp::new(&[
        (BOOT, "first\n"),
        ("/proc/meminfo", "MemTotal:        67108864 kB\n"),
        ("/sys/devices/system/cpu/online", "0-1\n"),
        ("/proc/self/limits", "Max open files 1024 524288 files\nMax locked memory 8388608 8388608 bytes\n"),
        ("/proc/sys/fs/nr_open", "524288\n"),
        ("/proc/sys/fs/file-max", "10000\n"),
        (BACKLOG, "128\n"),
        ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "256\n"),
        ("/proc/sys/net/ipv4/tcp_syncookies", "0\n"),
        (PORTS, "32768\t50000\n"),
        ("/proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("/proc/sys/net/ipv4/tcp_mem", "1000\t2000\t3000\n"),
        (RECEIVE, "8192\t262144\t67108864\n"),
        ("/proc/sys/net/ipv4/tcp_wmem", "8192\t65536\t8388608\n"),
        ("/proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295\n"),
        ("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n"),
        ("/proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
        ("/proc/sys/net/ipv4/tcp_ehash_entries", "524288\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_max", "4096\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_buckets", "1024\n"),
        (HUGE, "[always] madvise never\n"),
        ("/sys/kernel/mm/transparent_hugepage/defrag", "[always] defer defer+madvise madvise never\n"),
        ("/proc/swaps", "Filename\tType\n/swap\tfile\n"),
        ("/proc/sys/vm/swappiness", "60\n"),
        ("/proc/sys/vm/max_map_count", "1000\n"),
        ("/proc/sys/kernel/numa_balancing", "1\n"),
        ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
        ("/sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet \n"),
        ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
        ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
        ("/proc/sys/kernel/io_uring_disabled", "2\n"),
        ("/proc/sys/kernel/sched_autogroup_enabled", "1\n"),
        ("/sys/class/net/eth0/operstate", "up\n"),
        ("/sys/class/net/eth0/device/msi_irqs/30", "msix\n"),
        ("/sys/class/net/eth0/device/msi_irqs/31", "msix\n"),
        ("/proc/irq/30/smp_affinity_list", "1\n"),
        ("/proc/irq/31/smp_affinity_list", "1\n"),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/tx-1/xps_cpus", "0\n"),
    ])
}

#[test]
fn every_profile_makes_a_whole_machine_serve_and_is_taken_back() {
    for name in Profile::names() {
        let (machine, profile) = (whole_machine(), Profile::named(name).expect("comes along"));
        let before = Report::of(&profile, &machine);
        let absent = before.findings.iter().find(|finding| finding.present.is_none());
        assert!(absent.is_none(), "{name}: {absent:?}");
        assert_eq!(applied(&machine, &profile).code, DONE, "{name}");
        let by_hand = ["ulimit", "tcp_ehash_entries"];
        let left = check(&profile, &machine).into_iter().filter(|finding| !finding.serves());
        let left: Vec<String> = left
            .map(|finding| finding.name)
            .filter(|name| !by_hand.iter().any(|word| name.contains(word)))
            .collect();
        assert!(left.is_empty(), "{name}: {left:?}");
        assert_eq!(reverted(&machine, Foreign::Keep).code, DONE, "{name}");
        assert!(machine.is_as_at_first(), "{name}");
    }
}

/// A kill at every single operation of an apply over an apply, then of its revert: repeating restores everything.
#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let more = profile(&[("listen_backlog", "at_least = 8192"), ("tcp_receive_min", "at_most = 2048")]);
    let mut kills = 0;
    for moment in 0.. {
        let machine = machine();
        applied(&machine, &four_files());
        machine.dies_after(moment);
        let _ = applied(&machine, &more);
        reverted(&machine, Foreign::Keep);
        if !machine.revive() {
            break;
        }
        kills += 1;
        if moment % 2 == 0 {
            let again = applied(&machine, &more);
            assert_eq!(again.code, DONE, "apply after a kill at {moment}: {again:?}");
        }
        let back = reverted(&machine, Foreign::Keep);
        assert_eq!(back.code, DONE, "revert after a kill at {moment}: {back:?}");
        assert!(machine.is_as_at_first(), "after a kill at {moment}");
    }
    assert!(kills > 50, "only {kills} moments were tried");
}

#[test]
fn a_boot_ends_a_record() {
    let (machine, profile) = (machine(), four_files());
    applied(&machine, &profile);
    // The kernel forgot everything, and begins with another value of its own.
    machine.put(BOOT, "second\n");
    machine.put(BACKLOG, "256\n");
    machine.put(PORTS, "32768\t60999\n");
    let writes = machine.writes.borrow().len();
    let back = reverted(&machine, Foreign::Overwrite);
    assert_eq!((back.code, machine.writes.borrow().len()), (DONE, writes), "{back:?}");
    assert_eq!(machine.record().progress, Progress::Reverted);
}

#[test]
fn a_file_that_went_does_not_hold_up_the_rest() {
    let (machine, profile) = (machine(), four_files());
    applied(&machine, &profile);
    machine.remove(HUGE);
    let back = reverted(&machine, Foreign::Keep);
    assert_eq!(back.code, DONE);
    assert!(back.err.contains("no longer there"), "{back:?}");
    assert_eq!(machine.text(BACKLOG), "128\n");
}

#[test]
fn a_value_that_moved_under_the_question_is_not_overwritten() {
    let (machine, profile) = (machine(), four_files());
    let (mut out, mut err) = (Vec::new(), RefCell::new(Vec::new()));
    let mut ask = |_: &str| {
        machine.put(PORTS, "40000\t60999\n");
        Ok(Some("y\n".to_owned()))
    };
    let mut world =
        World { host: &machine, disk: &machine, ask: &mut ask, out: &mut out, err: err.get_mut() };
    let code = run_apply(&profile, Question::Ask, Path::new(RECORD), &mut world).expect("vectors");
    assert_eq!(code, NOT_DONE);
    assert!(machine.writes.borrow().is_empty(), "nothing was changed");
}

#[test]
fn a_record_that_is_none_of_ours_is_refused_by_name() {
    let machine = machine();
    let ours = |change: &str| {
        format!(
            r#"{{"schema":"ringline-tune-record","version":1,"profiles":[],"progress":"applied","boot":"first",
            "changes":[{{"path":"{change}","settings":[],"old":"x","set":"y","restored":false}}]}}"#
        )
    };
    let later = ours(BACKLOG).replace("\"version\":1", "\"version\":2");
    for text in ["", "{}", &ours("/etc/passwd"), &ours("/proc/sys/../../etc/passwd"), &later] {
        machine.put_record(text);
        for said in [reverted(&machine, Foreign::Overwrite), applied(&machine, &four_files())] {
            assert_eq!(said.code, NOT_UNDERSTOOD, "{text}: {said:?}");
            assert!(said.err.contains(RECORD), "{said:?}");
        }
        assert!(machine.is_as_at_first());
    }
}

#[test]
fn nothing_is_reverted_without_a_record() {
    let said = reverted(&machine(), Foreign::Overwrite);
    assert_eq!(said.code, NOT_DONE);
    assert!(said.err.contains(RECORD), "{said:?}");
}

#[test]
fn show_tells_all_of_every_setting_and_judges_nothing() {
    let (machine, profile) = (machine(), four_files());
    let report = Report::of(&profile, &machine);
    let shown = said(&machine, None, |world| text::show(&report, world.host, world.out).map(|()| DONE));
    for word in ["what:", "is:     128 (wanted: at least 4096)", "why:    r", "cost:   c", "4096 into"] {
        assert!(shown.out.contains(word), "{word}: {}", shown.out);
    }
}

/// The schema that the harness stores: a change here is a new version.
#[test]
fn the_report_for_programs_is_version_1() {
    let machine = machine();
    let profile = profile(&[
        ("machine_files", "at_least_per_gib = 100"),
        ("listen_backlog", "at_least_per_core = 1000"),
        ("huge_pages", "one_of = ['madvise']"),
        ("conntrack_max", "at_least = 1"),
    ]);
    let said = said(&machine, None, |world| run_check(&profile, Form::Json, world));
    let report: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let finding = |setting, name, state, present, detail, wanted| {
        serde_json::json!({
            "setting": setting, "name": name, "state": state, "present": present, "detail": detail,
            "wanted": wanted, "reason": "r", "cost": "c",
        })
    };
    let none = serde_json::Value::Null;
    let tracked =
        "connection tracking is not loaded, which is best (no /proc/sys/net/netfilter/nf_conntrack_max)";
    let missing = "/proc/sys/fs/file-max: entity not found";
    let expected = serde_json::json!({
        "schema": "ringline-tune-check",
        "version": 1,
        "profile": "made-up",
        "role": "x",
        "machine": { "kernel": null, "cores": 4, "memory_kib": 2_097_152 },
        "serves": false,
        "findings": [
            finding("machine_files", "fs.file-max", "unreadable", none.clone(), missing.into(), serde_json::json!({ "at_least": 200 })),
            finding("listen_backlog", "net.core.somaxconn", "does_not_serve", 128.into(), none.clone(), serde_json::json!({ "at_least": 4000 })),
            finding("huge_pages", "transparent_hugepage/enabled", "does_not_serve", "always".into(), none.clone(), serde_json::json!({ "one_of": ["madvise"] })),
            finding("conntrack_max", "net.netfilter.nf_conntrack_max", "not_applicable", none.clone(), tracked.into(), serde_json::json!({ "at_least": 1 })),
        ],
    });
    assert_eq!(report, expected);
    assert_eq!(said.code, NOT_DONE);
}
