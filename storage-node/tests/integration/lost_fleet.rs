//! Three nodes with a copy of every shard each lose everything, and come back from their backups: on one node, and on four.

use crate::backup::verify;
use crate::fleet::Fleet;
use crate::process::{PROGRAM, run};
use crate::requests::{self, Call, Person, applied, feed_page, person, view};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use wire_protocol::ids::ConversationId;

const SHARDS: u32 = 6;
/// People, each of whom talks with the next one.
const PEOPLE: u64 = 12;
/// Messages of each before the backup.
const MESSAGES: u64 = 20;

/// What was acknowledged.
struct Talk {
    from: Person,
    to: Person,
    conversation: ConversationId,
    /// The seqs of client message ids 1, 2, 3, …
    seqs: Vec<u64>,
}

impl Talk {
    fn send(&mut self, fleet: &mut Fleet<'_>) {
        fleet.pump();
        let call = self.call(self.seqs.len() as u64 + 1);
        self.seqs.push(applied(&fleet.call(call)).seq);
    }

    fn call(&self, client_id: u64) -> Call {
        requests::send(SHARDS, self.from, self.conversation, client_id)
    }

    /// The first `count` messages are there once, in order, with their first answers.
    fn check(&self, fleet: &mut Fleet<'_>, count: usize) {
        for (client_id, seq) in (1..).zip(&self.seqs[..count]) {
            let again = applied(&fleet.call(self.call(client_id)));
            assert_eq!((again.seq, again.repeated_send), (*seq, true));
            // The other nodes' links live of being heard.
            if client_id % 10 == 0 {
                fleet.pump();
            }
        }
        let entries = self.entries(fleet);
        assert!(entries.iter().map(|entry| entry.0).eq(1..=entries.len() as u64), "no gaps");
        for (client_id, seq) in (1..).zip(&self.seqs[..count]) {
            assert_eq!(entries[*seq as usize - 1].1, requests::body(self.from, client_id));
        }
        let bodies = |client_id| {
            entries.iter().filter(|entry| entry.1 == requests::body(self.from, client_id)).count()
        };
        assert!((1..=count as u64).all(|client_id| bodies(client_id) == 1), "each once");
    }

    fn entries(&self, fleet: &mut Fleet<'_>) -> Vec<(u64, bytes::Bytes)> {
        let mut entries: Vec<(u64, bytes::Bytes)> = Vec::new();
        loop {
            fleet.pump();
            let after = entries.last().map_or(0, |entry| entry.0);
            let page = view(fleet.call(requests::read_after(SHARDS, self.to, self.conversation, after)));
            entries.extend(page.entries.into_iter().map(|entry| (entry.seq, entry.body)));
            if !page.truncated {
                return entries;
            }
        }
    }
}

fn begin_backup(data: &Path, to: &Path) -> Child {
    Command::new(PROGRAM)
        .args(["admin", "--json", "--data-dir"])
        .arg(data)
        .args(["backup", "--to"])
        .arg(to)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// A fleet that has talked, was backed up meanwhile, talked on, and is lost. Gives the talks, and how many messages of each
/// were acknowledged before the backup began.
fn lose_a_fleet(folder: &Path, backups: &Path) -> (Vec<Talk>, usize, u64) {
    let mut fleet = Fleet::start(folder, SHARDS, 3, |_| Vec::new());
    let people: Vec<Person> = (1..=PEOPLE).map(person).collect();
    people.iter().for_each(|person| drop(fleet.call(requests::create_user(SHARDS, *person))));
    let mut talks: Vec<Talk> = people
        .windows(2)
        .map(|pair| {
            fleet.call(requests::create_direct(SHARDS, pair[0], pair[1]));
            let conversation = ConversationId::direct(pair[0].user, pair[1].user);
            Talk { from: pair[0], to: pair[1], conversation, seqs: Vec::new() }
        })
        .collect();
    for _ in 0..MESSAGES {
        talks.iter_mut().for_each(|talk| talk.send(&mut fleet));
    }
    // Twice: one when all are quiet, one while they write.
    for place in 0..3 {
        let mut running = begin_backup(&fleet.data(place), backups);
        while running.try_wait().expect("it can be asked").is_none() {
            fleet.pump();
        }
        assert!(running.wait().expect("it ended").success(), "node {place}");
    }
    let before = talks[0].seqs.len();
    for place in 0..3 {
        let mut running = begin_backup(&fleet.data(place), backups);
        while running.try_wait().expect("it can be asked").is_none() {
            talks.iter_mut().for_each(|talk| talk.send(&mut fleet));
        }
        assert!(running.wait().expect("it ended").success(), "node {place}");
    }
    // What is lost: so that clients know of more than the backups do.
    for _ in 0..5 {
        talks.iter_mut().for_each(|talk| talk.send(&mut fleet));
    }
    let last = talks[0].seqs.last().copied().expect("some");
    fleet.wait_for_feed(talks[0].to, talks[0].conversation, last);
    let version_lost = feed_page(fleet.call(requests::read_feed(SHARDS, talks[0].to, 0))).version;
    let data: Vec<_> = (0..3).map(|place| fleet.data(place)).collect();
    drop(fleet);
    data.iter().for_each(|data| fs::remove_dir_all(data).expect("lost"));
    (talks, before, version_lost)
}

/// Everything acknowledged before the backup is there, every conversation in the feeds, and it goes on.
fn check(fleet: &mut Fleet<'_>, talks: &mut [Talk], before: usize, version_lost: u64) {
    for talk in talks.iter() {
        talk.check(fleet, before);
        let entries = talk.entries(fleet).len() as u64;
        fleet.wait_for_feed(talk.from, talk.conversation, entries);
        fleet.wait_for_feed(talk.to, talk.conversation, entries);
    }
    // The second of them has two conversations; both are news to whoever knows the lost time.
    let page = feed_page(fleet.call(requests::read_feed(SHARDS, talks[0].to, version_lost)));
    assert_eq!((page.rows.len(), wire_protocol::ids::restores_of(page.version)), (2, 1), "{page:?}");
    for talk in talks.iter_mut() {
        let entries = talk.entries(fleet).len() as u64;
        // Ids that were never used: what the lost ones say is not known.
        let new = 1_000 + entries;
        assert_eq!(applied(&fleet.call(talk.call(new))).seq, entries + 1);
        fleet.wait_for_feed(talk.to, talk.conversation, entries + 1);
    }
}

#[test]
fn a_fleet_that_lost_everything_comes_back_on_one_node_and_on_four() {
    let folder = tempfile::tempdir().expect("a folder");
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).expect("it is made");
    let lost = folder.path().join("lost");
    fs::create_dir(&lost).expect("it is made");
    let (mut talks, before, version_lost) = lose_a_fleet(&lost, &backups);
    let report = verify(&backups).expect("it is read");
    assert_eq!((report.problems.as_slice(), report.backups, report.shard_count), (&[][..], 6, SHARDS));

    let one = folder.path().join("one");
    fs::create_dir(&one).expect("it is made");
    let mut fleet = Fleet::restore(&one, SHARDS, 1, |_| (0..SHARDS).collect(), &backups);
    check(&mut fleet, &mut talks, before, version_lost);
    drop(fleet);

    let four = folder.path().join("four");
    fs::create_dir(&four).expect("it is made");
    let mut fleet = Fleet::restore(&four, SHARDS, 4, |_| Vec::new(), &backups);
    check(&mut fleet, &mut talks, before, version_lost);
    // The restored copies are copies: each node may die, and come back.
    for place in 0..4 {
        fleet.kill(place);
        for talk in &talks {
            let entries = talk.entries(&mut fleet).len() as u64;
            let call = talk.call(2_000 + entries);
            assert_eq!(applied(&fleet.call(call)).seq, entries + 1);
        }
        fleet.start_node(place);
    }
    talks.iter().for_each(|talk| talk.check(&mut fleet, before));
    restoring_beside_a_living_fleet_is_refused(&four, &backups);
}

/// A node of the configuration runs: whoever restores one is about to undo what it acknowledged.
fn restoring_beside_a_living_fleet_is_refused(four: &Path, backups: &Path) {
    let config = four.join("1/node-1.toml");
    let text = fs::read_to_string(&config).expect("it reads");
    let other = four.join("other.toml");
    let folder = four.join("other-data");
    let text = text.lines().map(|line| match line.starts_with("data_dir") {
        true => format!("data_dir = {folder:?}\n"),
        false => format!("{line}\n"),
    });
    fs::write(&other, text.collect::<String>()).expect("it writes");
    let words = ["backup", "restore", "--from"].map(OsStr::new);
    let error =
        run(&[&words[..], &[backups.as_os_str(), OsStr::new("--config"), other.as_os_str()]].concat());
    let error = error.expect_err("it is refused");
    assert!(error.contains("a whole fleet is restored"), "{error}");
    assert!(!folder.exists());
}
