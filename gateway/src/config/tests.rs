use super::flags::{Invocation, parse};
use super::fleet::DRAIN_S_MAX;
use super::storage::LOG_FILE_BYTES_DEFAULT;
use super::*;
use wire_protocol::limits::SHARD_COUNT_MAX;

fn parsed(text: &str) -> Result<GatewayConfig, String> {
    GatewayConfig::parse(text, Path::new("gateway.toml")).map_err(|error| error.to_string())
}

const NODES: &str = r#"
[storage]
mode = "nodes"
shard_count = 4
ca = "ca.pem"
cert = "gateway.pem"
key = "gateway.key"
server_name = "storage.test"
nodes = [
  { id = 1, address = "127.0.0.1:7001", shards = [0, 1] },
  { id = 2, address = "127.0.0.1:7002", shards = [2, 3] },
]
"#;

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = parsed("").expect("defaults");
    assert_eq!(config, GatewayConfig::default());
    assert_eq!(config.listen.port(), 8443);
    let StorageMode::Embedded(embedded) = config.storage else { panic!("not embedded") };
    assert_eq!((embedded.shard_count, embedded.log_prefill), (8, true));
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    for (text, key) in [
        ("listn = 1", "listn"),
        ("[auth]\ntoken = 3", "token"),
        ("[limits]\nsends = 3", "sends"),
        ("[storage]\nnode = 3", "node"),
    ] {
        let error = parsed(text).expect_err(text);
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn values_that_cannot_be_meant_are_refused_by_key() {
    for (text, key) in [
        ("listen_plain = '192.0.2.1:80'", "listen_plain"),
        ("metrics = '0.0.0.0:9090'", "metrics"),
        ("listen_plain = 'here'", "listen_plain"),
        ("connections_max = 0", "connections_max"),
        ("[tls]\ncert = 'x'", "tls"),
        // What its lanes need does not fit 32 bits.
        ("[auth]\nargon2_memory_kib = 4294967295\nargon2_parallelism = 536870912", "auth.argon2_memory_kib"),
        ("[limits]\nsends_per_user = '20'", "limits.sends_per_user"),
        ("[limits]\nsends_per_conversation = '0 per second, burst 1'", "limits.sends_per_conversation"),
        ("[limits]\nfailed_log_ins_per_account = ''", "limits.failed_log_ins_per_account"),
        ("[storage]\nca = 'x'", "storage"),
    ] {
        let error = parsed(text).expect_err(text);
        assert!(error.starts_with(&format!("{key}:")), "{error}");
    }
}

/// Of files as large as by default.
const LOG_KEEP_BYTES_MIN: u64 = LOG_KEEP_FILES_MIN * LOG_FILE_BYTES_DEFAULT;
/// Keys, the last value of each that is taken, and the first that is not.
const BOUNDS: [(&str, u64, u64); 14] = [
    ("connections_max", 1, 0),
    ("connections_max", CONNECTIONS_MAX_LIMIT as u64, CONNECTIONS_MAX_LIMIT as u64 + 1),
    ("auth.token_ttl_s", TOKEN_TTL_S_MIN, TOKEN_TTL_S_MIN - 1),
    ("auth.resume_ttl_s", RESUME_TTL_S_MIN, RESUME_TTL_S_MIN - 1),
    ("auth.argon2_iterations", ARGON2_ITERATIONS_MIN as u64, ARGON2_ITERATIONS_MIN as u64 - 1),
    ("auth.argon2_parallelism", ARGON2_PARALLELISM_MIN as u64, ARGON2_PARALLELISM_MIN as u64 - 1),
    // Of one lane, as by default.
    (
        "auth.argon2_memory_kib",
        ARGON2_MEMORY_KIB_PER_LANE_MIN as u64,
        ARGON2_MEMORY_KIB_PER_LANE_MIN as u64 - 1,
    ),
    ("fleet.drain_s", DRAIN_S_MAX as u64, DRAIN_S_MAX as u64 + 1),
    ("storage.shard_count", 1, 0),
    ("storage.shard_count", SHARD_COUNT_MAX as u64, SHARD_COUNT_MAX as u64 + 1),
    ("storage.log_file_bytes", LOG_FILE_BYTES_MIN, LOG_FILE_BYTES_MIN - 1),
    ("storage.log_keep_bytes", LOG_KEEP_BYTES_MIN, LOG_KEEP_BYTES_MIN - 1),
    ("storage.memtable_bytes", MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MIN - 1),
    ("storage.block_cache_bytes", BLOCK_CACHE_BYTES_MIN, BLOCK_CACHE_BYTES_MIN - 1),
];

#[test]
fn a_value_beyond_its_bound_is_refused_by_key_value_and_bound() {
    for (key, bound, beyond) in BOUNDS {
        parsed(&format!("{key} = {bound}")).expect(key);
        let error = parsed(&format!("{key} = {beyond}")).expect_err(key);
        assert!(error.starts_with(&format!("{key}: {beyond} is ")), "{error}");
        assert!(error.contains(&bound.to_string()), "{error}");
    }
}

#[test]
fn every_shard_has_one_owner() {
    let config = parsed(NODES).expect("nodes");
    let StorageMode::Nodes(nodes) = config.storage else { panic!("not nodes") };
    assert_eq!(nodes.nodes.len(), 2);
    for (from, to, problem) in [
        ("[2, 3]", "[3]", "nobody owns shard 2"),
        ("[2, 3]", "[1, 2, 3]", "shard 1 belongs to 1 and to 2"),
        ("[2, 3]", "[2, 3, 4]", "no shard 4"),
        ("id = 2", "id = 1", "twice"),
        ("ca = \"ca.pem\"", "", "storage.ca"),
    ] {
        let error = parsed(&NODES.replace(from, to)).expect_err(problem);
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn what_is_printed_names_every_key() {
    let printed = parsed(NODES).expect("nodes").to_string();
    for key in ["listen", "listen_plain", "metrics", "data_dir", "cores", "connections_max", "gateway_id"] {
        assert!(printed.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key} in {printed}");
    }
    for key in ["tls.cert", "auth.signing_key", "storage.server_name", "storage.node 2"] {
        assert!(printed.contains(key), "{key} in {printed}");
    }
}

#[test]
fn flags_override_and_are_checked() {
    let arguments = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let line = "--listen 127.0.0.1:0 --data-dir /d --metrics none --listen-plain 127.0.0.1:1";
    let Ok(Invocation::Serve(config)) = parse(arguments(line)) else { panic!("refused") };
    assert_eq!((config.listen.port(), config.metrics), (0, None));
    assert_eq!(config.data_dir, Path::new("/d"));
    assert!(matches!(parse(arguments("--help")), Ok(Invocation::Help)));
    for wrong in ["--liste x", "--listen", "--listen x", "--metrics 10.0.0.1:1", "--config /does/not/exist"] {
        assert!(parse(arguments(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_flag_may_bring_what_the_file_lacks() {
    // The file is the same for a whole fleet, and each gateway has an address of its own.
    let file = std::env::temp_dir().join(format!("ringline-gateway-{}.toml", std::process::id()));
    std::fs::write(&file, "[fleet]\ndns = 'gateways.test:8443'\n").expect("written");
    let line = |rest: &[&str]| {
        let words = ["--config", file.to_str().expect("text")].into_iter().chain(rest.iter().copied());
        parse(words.map(String::from).collect::<Vec<_>>())
    };
    let (alone, with_flag) = (line(&[]), line(&["--advertise", "10.0.0.7:8443"]));
    std::fs::remove_file(&file).expect("removed");
    let refused = alone.expect_err("it must know which address is its own").to_string();
    assert!(refused.starts_with("fleet.advertise"), "{refused}");
    let Ok(Invocation::Serve(config)) = with_flag else { panic!("refused") };
    assert_eq!(config.fleet.advertise.as_deref(), Some("10.0.0.7:8443"));
}

#[test]
fn limits_are_printed_as_they_are_written() {
    let defaults = parsed("").expect("defaults").limits;
    let lines = |limits: LimitsConfig| {
        limits.to_string().lines().map(|line| line.replace("limits.", "")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(lines(defaults).lines().count(), 12);
    assert!(!lines(defaults).contains("none"), "each has a default");
    assert_eq!(parsed(&format!("[limits]\n{}", lines(defaults))).expect("the same").limits, defaults);
    let text = "[limits]\nsends_per_user = 'none'\nconnections_per_address = 0\n\
                connects_per_address = '5 per minute, burst 2'";
    let limits = parsed(text).expect("limits").limits;
    assert_eq!((limits.requests.sends_per_user, limits.connections_per_address), (None, None));
    assert!(lines(limits).contains("connects_per_address = \"5 per minute, burst 2\""));
    assert_eq!(limits.requests.sends_per_conversation, defaults.requests.sends_per_conversation);
    assert_eq!(defaults.addresses(3).connections_max, Some(8_192_u32.div_ceil(3)));
}
