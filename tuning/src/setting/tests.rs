//! Readings of made-up machines.

use super::*;
use crate::made_up::MadeUp;

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         unlimited            unlimited            bytes
";

fn number(setting: Setting, machine: &MadeUp) -> u64 {
    match setting.present(machine) {
        Present::Here(Value::Number(number), _) => number,
        other => panic!("{setting}: {other:?}"),
    }
}

fn unreadable(setting: Setting, machine: &MadeUp) -> String {
    match setting.present(machine) {
        Present::Unreadable(why) => why,
        other => panic!("{setting}: {other:?}"),
    }
}

fn not_applicable(setting: Setting, machine: &MadeUp) -> String {
    match setting.present(machine) {
        Present::NotApplicable(why) => why,
        other => panic!("{setting}: {other:?}"),
    }
}

#[test]
fn values_are_read_where_the_kernel_says_them() {
    let machine = MadeUp::new(&[
        ("/proc/self/limits", LIMITS),
        ("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ("/proc/sys/fs/file-max", "9223372036854775807\n"),
        ("/proc/sys/net/ipv4/tcp_ehash_entries", "-262144\n"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ]);
    assert_eq!(number(Setting::OpenFiles, &machine), 1_024);
    assert_eq!(number(Setting::OpenFilesHard, &machine), 524_288);
    assert_eq!(Setting::LockedMemory.present(&machine), Present::Here(Value::Unlimited, None));
    assert_eq!(number(Setting::LocalPorts, &machine), 28_232);
    assert_eq!(number(Setting::TcpReceiveMin, &machine), 4_096);
    assert_eq!(number(Setting::TcpReceiveDefault, &machine), 131_072);
    assert_eq!(number(Setting::TcpReceiveMax, &machine), 6_291_456);
    assert_eq!(number(Setting::MachineFiles, &machine), 9_223_372_036_854_775_807);
    assert_eq!(number(Setting::ConnectionTable, &machine), 262_144, "a table shared with the machine");
    let word = Present::Here(Value::Word("madvise".to_owned()), None);
    assert_eq!(Setting::HugePages.present(&machine), word);
}

#[test]
fn what_should_be_readable_and_is_not_names_its_file() {
    let machine = MadeUp::new(&[
        ("/proc/sys/net/core/somaxconn", "four\n"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "60999\t32768\n"),
        ("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\n"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise never\n"),
        ("/proc/self/limits", "Limit\n"),
    ]);
    for (setting, file) in [
        (Setting::ListenBacklog, "somaxconn"),
        (Setting::LocalPorts, "ip_local_port_range"),
        (Setting::TcpSendMax, "tcp_wmem"),
        (Setting::HugePages, "transparent_hugepage/enabled"),
        (Setting::OpenFiles, "limits"),
        (Setting::MemoryMappings, "max_map_count"),
        (Setting::ReceiveCores, "cpu/online"),
    ] {
        let why = unreadable(setting, &machine);
        assert!(why.contains(file), "{setting}: {why}");
    }
}

#[test]
fn what_a_machine_does_not_have_means_nothing_there() {
    let machine = MadeUp::new(&[
        ("/sys/devices/system/cpu/online", "0-1\n"),
        ("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n"),
        ("/sys/class/net/lo/operstate", "unknown\n"),
        ("/sys/class/net/lo/queues/rx-0/rps_cpus", "0\n"),
    ]);
    for (setting, word) in [
        (Setting::ConntrackMax, "not loaded"),
        (Setting::Governor, "virtual machines"),
        (Setting::Swappiness, "no swap"),
        (Setting::NumaBalancing, "numa_balancing"),
        (Setting::SchedulerAutogroup, "autogroup"),
        (Setting::IoUringDisabled, "6.6"),
        (Setting::HugePages, "huge pages"),
        (Setting::TcpMemoryHigh, "namespace"),
        (Setting::ReceiveCores, "no network card"),
    ] {
        let why = not_applicable(setting, &machine);
        assert!(why.contains(word), "{setting}: {why}");
    }
}

/// A machine of 4 cores with a card of two queue pairs, whose interrupts all go to core 1, as virtio shows it.
fn with_card() -> MadeUp {
    MadeUp::new(&[
        ("/sys/devices/system/cpu/online", "0-3\n"),
        ("/sys/class/net/lo/operstate", "unknown\n"),
        ("/sys/class/net/spare/operstate", "down\n"),
        ("/sys/class/net/spare/device/vendor", "x\n"),
        ("/sys/class/net/eth0/operstate", "up\n"),
        ("/sys/class/net/eth0/device/vendor", "x\n"),
        ("/sys/class/net/eth0/device/../msi_irqs/30", "msix\n"),
        ("/sys/class/net/eth0/device/../msi_irqs/31", "msix\n"),
        ("/sys/class/net/eth0/device/../msi_irqs/32", "msix\n"),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "3\n"),
        ("/sys/class/net/eth0/queues/tx-1/xps_cpus", "0\n"),
        ("/proc/irq/30/virtio0-config/x", ""),
        ("/proc/irq/30/smp_affinity_list", "0-3\n"),
        ("/proc/irq/31/virtio0-input.0/x", ""),
        ("/proc/irq/31/smp_affinity_list", "0-3\n"),
        ("/proc/irq/31/effective_affinity_list", "1\n"),
        ("/proc/irq/32/virtio0-input.1/x", ""),
        ("/proc/irq/32/smp_affinity_list", "1\n"),
    ])
}

fn edits(setting: Setting, bound: &Bound, machine: &MadeUp) -> Vec<(String, String)> {
    match setting.change(bound, machine) {
        Change::Edits(edits) => edits.into_iter().map(|edit| (edit.path, edit.value)).collect(),
        Change::ByHand(how) => panic!("{setting}: {how}"),
    }
}

#[test]
fn queues_and_interrupts_of_a_card_are_held_against_the_cores() {
    let machine = with_card();
    assert_eq!(number(Setting::ReceiveCores, &machine), 1, "both receive interrupts go to core 1");
    assert_eq!(number(Setting::InterruptsCrowded, &machine), 1);
    assert_eq!(number(Setting::TransmitQueuesUnmapped, &machine), 1);

    let receive = |queue: u8| format!("/sys/class/net/eth0/queues/rx-{queue}/rps_cpus");
    let all = |path| (path, "f".to_owned());
    let spread = edits(Setting::ReceiveCores, &Bound::AtLeast(4), &machine);
    assert_eq!(spread, [all(receive(0)), all(receive(1))]);

    let affinity = |interrupt: u8| format!("/proc/irq/{interrupt}/smp_affinity_list");
    let apart = edits(Setting::InterruptsCrowded, &Bound::Exactly(0), &machine);
    assert_eq!(apart, [(affinity(31), "0".to_owned()), (affinity(32), "1".to_owned())]);

    let transmit = |queue: u8| format!("/sys/class/net/eth0/queues/tx-{queue}/xps_cpus");
    let mapped = edits(Setting::TransmitQueuesUnmapped, &Bound::Exactly(0), &machine);
    assert_eq!(mapped, [(transmit(0), "5".to_owned()), (transmit(1), "a".to_owned())]);

    machine.put("/sys/devices/system/cpu/online", "0-1\n");
    match Setting::ReceiveCores.change(&Bound::AtLeast(2), &machine) {
        Change::ByHand(how) => assert!(how.contains("spreading"), "{how}"),
        edits => panic!("RPS on a card with an interrupt for each core: {edits:?}"),
    }
    machine.put("/sys/devices/system/cpu/online", "0-3\n");
    machine.put(&receive(0), "f\n");
    machine.put(&receive(1), "f\n");
    assert_eq!(number(Setting::ReceiveCores, &machine), 4);
}

#[test]
fn ports_grow_to_what_is_wanted_and_never_shrink() {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    for (now, low) in [("32768\t60999\n", "10000"), ("1024\t40000\n", "1024"), ("20000\t65535\n", "10000")] {
        let machine = MadeUp::new(&[(path, now)]);
        let ends = edits(Setting::LocalPorts, &Bound::AtLeast(55_536), &machine);
        let ends: Vec<&str> = ends.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(ends, [low, "65535"], "{now}");
    }
}

#[test]
fn a_word_is_chosen_among_those_the_machine_offers() {
    let words = |words: &[&str]| Bound::OneOf(words.iter().map(|word| (*word).to_owned()).collect());
    let sources = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let current = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let machine = MadeUp::new(&[(sources, "hpet kvm-clock \n"), (current, "hpet\n")]);
    let chosen = edits(Setting::ClockSource, &words(&["tsc", "kvm-clock"]), &machine);
    assert_eq!(chosen, [(current.to_owned(), "kvm-clock".to_owned())]);
    match Setting::ClockSource.change(&words(&["tsc"]), &machine) {
        Change::ByHand(how) => assert!(how.contains("hpet, kvm-clock") && how.contains("dmesg"), "{how}"),
        edits => panic!("a clock that the kernel does not trust: {edits:?}"),
    }
}

#[test]
fn governors_are_those_of_all_cores() {
    let governor = |cpu: u8| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let machine = MadeUp::new(&[
        ("/sys/devices/system/cpu/online", "0,2\n"),
        (&governor(0), "performance\n"),
        (&governor(2), "powersave\n"),
    ]);
    match Setting::Governor.present(&machine) {
        Present::Here(Value::Word(word), Some(_)) => assert_eq!(word, "mixed"),
        other => panic!("{other:?}"),
    }
    let bound = Bound::OneOf(vec!["performance".to_owned()]);
    let changed = edits(Setting::Governor, &bound, &machine);
    assert_eq!(changed, [(governor(2), "performance".to_owned())], "only those that differ");
}

#[test]
fn limits_of_a_process_are_left_to_who_starts_it() {
    let machine = MadeUp::new(&[("/proc/self/limits", LIMITS)]);
    for (setting, bound, line) in [
        (Setting::OpenFiles, Bound::AtLeast(20_000), "LimitNOFILE=20000"),
        (Setting::LockedMemory, Bound::AtLeast(1_048_577), "memlock 1025"),
    ] {
        match setting.change(&bound, &machine) {
            Change::ByHand(how) => assert!(how.contains(line), "{how}"),
            edits => panic!("{edits:?}"),
        }
    }
}

#[test]
fn lists_of_cores_are_bounded() {
    assert_eq!(cpu_list("0-2,7\n"), Some(vec![0, 1, 2, 7]));
    assert_eq!(cpu_list("0-4294967295"), None);
    assert_eq!(cpu_list("0-x"), None);
}
