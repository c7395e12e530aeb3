//! The manifest in `docs/operations.md`: what it tells the two programs are settings that they have.
//!
//! It is read line by line for what is ours in it: files of configuration, words of commands, probes, addresses, times.
//! Nothing here knows what Kubernetes makes of it.

use crate::nodes::shipped;
use crate::server::{Folder, Server, run_to_end};
use gateway::config::flags::{Invocation, parse};
use gateway::config::{GatewayConfig, StorageMode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use storage_node::StorageConfig;

const PAGE: &str = include_str!("../../../docs/operations.md");
/// Where the manifest puts files of configuration, and everything that is ours.
const CONFIG: &str = "/etc/ringline/config/";
const OURS: [&str; 2] = ["/etc/ringline/", "/var/lib/ringline/"];
/// A gateway ends so many seconds after its window, and a storage node after it was asked to, as the page says.
const GATEWAY_ENDS_S: u32 = 6;
const STORAGE_NODE_ENDS_S: u32 = 10;

/// The manifest, with a folder in place of those that it names.
struct Manifest {
    folder: Folder,
    /// Of the configuration, by name.
    files: BTreeMap<&'static str, PathBuf>,
}

/// The object of this kind and name, as it is written.
fn object(kind: &str, name: &str) -> &'static str {
    let (_, section) = PAGE.split_once("\n## On Kubernetes\n").expect("a section");
    let (_, manifest) = section.split_once("\n```yaml\n").expect("a manifest");
    let (manifest, _) = manifest.split_once("\n```\n").expect("its end");
    let (kind, name) = (format!("kind: {kind}\n"), format!("\nmetadata: {{ name: {name}, "));
    let mut objects = manifest.split("\n---\n");
    let found = objects.find(|object| object.contains(&kind) && object.contains(&name));
    found.unwrap_or_else(|| panic!("no {kind}{name}"))
}

/// What stands behind a key on its line.
fn value(object: &'static str, key: &str) -> &'static str {
    let key = format!("{key}: ");
    let found = object.lines().find_map(|line| line.split_once(&key));
    found.unwrap_or_else(|| panic!("no {key}in {object}")).1
}

fn number(object: &'static str, key: &str) -> u32 {
    value(object, key).parse().expect("a number")
}

/// The lists of words that stand behind a key.
fn words(object: &str, key: &str) -> Vec<Vec<String>> {
    let key = format!("{key}: [");
    let lists = object.lines().filter_map(|line| line.split_once(&key)?.1.strip_suffix(']'));
    lists.map(|list| serde_json::from_str(&format!("[{list}]")).expect("words in quotes")).collect()
}

/// Where a probe asks: path and port.
fn probed(object: &'static str, probe: &str) -> (&'static str, u16) {
    let (_, probe) = object.split_once(&format!("{probe}:\n")).expect("a probe");
    let asked = value(probe, "path");
    let (path, rest) = asked.split_once(", port: ").expect("a path and a port");
    let port = rest.strip_suffix(", scheme: HTTPS }").expect("over TLS: nothing else leaves the loopback");
    (path, port.parse().expect("a port"))
}

impl Manifest {
    fn read() -> Self {
        let folder = Folder::new();
        let mut texts = BTreeMap::<&str, String>::new();
        let mut name = None;
        for line in object("ConfigMap", "ringline").lines() {
            let content = if line.is_empty() { Some("") } else { line.strip_prefix("    ") };
            if let (Some(content), Some(name)) = (content, name) {
                texts.entry(name).or_default().extend([content, "\n"]);
            } else if let Some(begun) = line.strip_suffix(": |") {
                name = Some(begun.trim_start());
            }
        }
        let mut manifest = Self { folder, files: BTreeMap::new() };
        for (name, text) in texts {
            let file = manifest.folder.path().join(name);
            fs::write(&file, manifest.moved(&text)).expect("written");
            manifest.files.insert(name, file);
        }
        manifest
    }

    /// With the folder in place of those of the manifest.
    fn moved(&self, text: &str) -> String {
        let folder = format!("{}/", self.folder.path().display());
        let moved = text.replace(CONFIG, &folder);
        OURS.iter().fold(moved, |text, ours| text.replace(*ours, &folder))
    }

    /// Words as the pod's process gets them.
    fn given(&self, words: &[String], variable: &str, value: &str) -> Vec<String> {
        let given = words.iter().map(|word| self.moved(word).replace(&format!("$({variable})"), value));
        let given: Vec<String> = given.collect();
        assert!(!given.iter().any(|word| word.contains("$(")), "{given:?}");
        given
    }

    fn gateway(&self) -> GatewayConfig {
        let args = &words(object("StatefulSet", "ringline-gateway"), "args")[0];
        match parse(self.given(args, "POD_IP", "10.0.0.7")) {
            Ok(Invocation::Serve(config)) => *config,
            Ok(Invocation::Help) => panic!("{args:?} only ask for help"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Of one of the storage nodes' pods.
    fn storage_node(&self, pod: &str) -> StorageConfig {
        let file = self.files.get(format!("{pod}.toml").as_str()).expect("a file for each pod");
        StorageConfig::read(file).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn storage_pods() -> Vec<String> {
    let count = number(object("StatefulSet", "ringline-storage"), "replicas");
    (0..count).map(|number| format!("ringline-storage-{number}")).collect()
}

/// Where gateways and nodes reach the storage nodes: id and address of each.
fn storage_addresses() -> Vec<(u32, SocketAddr)> {
    let address = |pod: &String| {
        let service = object("Service", pod);
        assert_eq!(value(service, "selector"), format!("{{ statefulset.kubernetes.io/pod-name: {pod} }}"));
        let port = value(service, "ports").strip_prefix("[{ port: ");
        let port = port.and_then(|port| port.strip_suffix(" }]")).expect("a port");
        let address = format!("{}:{port}", value(service, "clusterIP"));
        address.parse::<SocketAddr>().expect("an address")
    };
    (1..).zip(storage_pods().iter().map(address)).collect()
}

#[test]
fn gateways_of_the_manifest_understand_what_they_are_told() {
    let (manifest, set) = (Manifest::read(), object("StatefulSet", "ringline-gateway"));
    let config = manifest.gateway();
    assert_eq!(words(set, "command"), [["ringline-gateway"]]);
    assert_eq!(config.fleet.advertise.as_deref(), Some("10.0.0.7:8443"));
    // The name is that of a service without an address of its own, which has all addresses of ready pods.
    let (name, port) = config.fleet.dns.as_deref().and_then(|dns| dns.rsplit_once(':')).expect("a name");
    let service = name.strip_suffix(".chat.svc.cluster.local").expect("a service of this namespace");
    let service = object("Service", service);
    assert_eq!(value(service, "clusterIP"), "None");
    assert_eq!(value(service, "selector"), "{ app: ringline-gateway }");
    assert_eq!(port, config.listen.port().to_string());
    assert!(config.listen.ip().is_unspecified(), "clients and probes come from outside of the pod");
    assert_eq!(value(set, "containerPort"), format!("{port} }}]"));
    let before_s = value(set, "preStop").strip_prefix("{ sleep: { seconds: ").expect("a time before it");
    let before_s: u32 = before_s.strip_suffix(" } } }").and_then(|time| time.parse().ok()).expect("a number");
    let grace_s = number(set, "terminationGracePeriodSeconds");
    let leaves_s = before_s + config.fleet.drain_s + GATEWAY_ENDS_S;
    assert!(grace_s >= leaves_s, "it leaves in {leaves_s} s, and is given {grace_s}");
    let StorageMode::Nodes(storage) = &config.storage else { panic!("not on nodes") };
    let told: Vec<_> = storage.nodes.iter().map(|node| (node.id, node.address)).collect();
    assert_eq!(told, storage_addresses());
    assert!(storage.is_replicated());
    assert_eq!(storage.shard_count, manifest.storage_node("ringline-storage-0").shard_count);
}

#[test]
fn gateways_have_what_the_probes_of_the_manifest_ask_for() {
    let (server, set) = (Server::embedded(), object("StatefulSet", "ringline-gateway"));
    let listens_at = Manifest::read().gateway().listen.port();
    for (probe, word) in [("livenessProbe", "live"), ("readinessProbe", "ready")] {
        let (path, port) = probed(set, probe);
        assert_eq!(port, listens_at);
        let (status, answer) = server.get(server.plain, path);
        assert_eq!(status, 200, "{path}: {answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["status"], word, "{path}");
    }
}

#[test]
fn storage_nodes_of_the_manifest_understand_what_they_are_told() {
    let (manifest, set) = (Manifest::read(), object("StatefulSet", "ringline-storage"));
    let pods = storage_pods();
    assert_eq!(manifest.files.len(), pods.len() + 1, "{:?}", manifest.files);
    for (pod, id) in pods.iter().zip(1..) {
        let config = manifest.storage_node(pod);
        assert_eq!(config.node_id, id);
        let told: Vec<_> = config.nodes.iter().map(|node| (node.id, node.address)).collect();
        assert_eq!(told, storage_addresses());
        assert_eq!(config.replicas as usize, pods.len());
        assert_eq!(value(set, "containerPort"), format!("{} }}]", config.listen.expect("it listens").port()));
    }
    let grace_s = number(set, "terminationGracePeriodSeconds");
    assert!(grace_s >= STORAGE_NODE_ENDS_S, "{grace_s} s are too few to leave");

    // The program takes each line of words as far as to the files that are not there.
    let commands = words(set, "command");
    let [program, probe] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(program, &["ringline-storage"]);
    let (asked, probe) = probe.split_first().expect("a program");
    assert_eq!(asked, "ringline-storage");
    let args = &words(set, "args")[0];
    let (first_alone, later) = args.split_last().expect("words");
    assert_eq!(first_alone, "--new-fleet");
    for (words, missing) in [(args.as_slice(), "ca.pem"), (later, "ca.pem"), (probe, "admin.sock")] {
        let words = manifest.given(words, "POD_NAME", &pods[0]);
        let mut command = Command::new(shipped());
        command.args(&words).env("RUST_LOG", "off");
        let ended = run_to_end(command);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{words:?}");
        assert!(said.contains(missing) && !said.contains("usage:"), "{words:?}: {said}");
    }
}
