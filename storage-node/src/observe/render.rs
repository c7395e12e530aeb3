//! The Prometheus text: every metric's name is in this file.

use super::{CoreMetrics, Histogram, NodeMetrics};
use std::fmt::Write;

/// A column of a table: name, type, help, and where the value is.
type Column<M> = (&'static str, &'static str, &'static str, fn(&M) -> u64);

const CORE_COLUMNS: &[Column<CoreMetrics>] = &[
    ("ringline_storage_turns_total", "counter", "Turns of the loop.", |core| core.turns.value()),
    ("ringline_storage_requests_total", "counter", "Requests received.", |core| core.requests.value()),
    ("ringline_storage_commands_total", "counter", "Commands put into log entries.", |core| {
        core.commands.value()
    }),
    ("ringline_storage_entries_total", "counter", "Log entries proposed.", |core| core.entries.value()),
    ("ringline_storage_queries_total", "counter", "Queries taken.", |core| core.queries.value()),
    ("ringline_storage_quorum_questions_total", "counter", "Times a leader asked if it leads.", |core| {
        core.quorum_questions.value()
    }),
    ("ringline_storage_reads_by_lease_total", "counter", "Reads that needed no such question.", |core| {
        core.reads_by_lease.value()
    }),
    ("ringline_storage_overloaded_total", "counter", "Requests refused by a full queue.", |core| {
        core.overloaded.value()
    }),
    ("ringline_storage_unavailable_total", "counter", "Requests for a shard that cannot serve.", |core| {
        core.unavailable.value()
    }),
    ("ringline_storage_deliveries_total", "counter", "Deliveries to links.", |core| core.deliveries.value()),
    ("ringline_storage_deliveries_dropped_total", "counter", "Deliveries that became sync needed.", |core| {
        core.deliveries_dropped.value()
    }),
    ("ringline_storage_feed_batches_total", "counter", "Feed batches taken.", |core| {
        core.feed_batches.value()
    }),
    ("ringline_storage_feed_gaps_total", "counter", "Feed batches asked for again.", |core| {
        core.feed_gaps.value()
    }),
    ("ringline_storage_feed_checkpoints_total", "counter", "Checkpoints of home shards.", |core| {
        core.feed_checkpoints.value()
    }),
    ("ringline_storage_links", "gauge", "Open links.", |core| core.links.value()),
    ("ringline_storage_sessions", "gauge", "Attached sessions.", |core| core.sessions.value()),
    ("ringline_storage_commands_waiting", "gauge", "Commands not yet proposed.", |core| {
        core.commands_waiting.value()
    }),
    ("ringline_storage_commands_in_flight", "gauge", "Commands proposed, not yet answered.", |core| {
        core.commands_in_flight.value()
    }),
    ("ringline_storage_feed_rows_dirty", "gauge", "Feed rows no checkpoint holds yet.", |core| {
        core.feed_rows_dirty.value()
    }),
    ("ringline_storage_groups_hibernating", "gauge", "Replicas whose groups hibernate.", |core| {
        core.groups_hibernating.value()
    }),
];

const NODE_COLUMNS: &[Column<NodeMetrics>] = &[
    ("ringline_storage_log_syncs_total", "counter", "Synced writes of the log.", |node| {
        node.log_syncs.value()
    }),
    ("ringline_storage_log_bytes_total", "counter", "Bytes written to the log.", |node| {
        node.log_bytes.value()
    }),
    ("ringline_storage_log_used_bytes", "gauge", "Log files in use.", |node| node.log_used_bytes.value()),
    ("ringline_storage_store_writes_total", "counter", "Writes to the store.", |node| {
        node.store_writes.value()
    }),
    ("ringline_storage_store_syncs_total", "counter", "Syncs of the store.", |node| node.store_syncs.value()),
    ("ringline_storage_store_memtable_bytes", "gauge", "Memory of rows not yet in a table.", |node| {
        node.store_memtable_bytes.value()
    }),
    ("ringline_storage_store_cache_bytes", "gauge", "Memory of blocks kept for reading.", |node| {
        node.store_cache_bytes.value()
    }),
    ("ringline_storage_store_table_bytes", "gauge", "Files of rows.", |node| node.store_table_bytes.value()),
    (
        "ringline_storage_snapshots_sent_total",
        "counter",
        "Snapshots of shards that arrived at other nodes.",
        |node| node.snapshots_sent.value(),
    ),
    (
        "ringline_storage_snapshots_installed_total",
        "counter",
        "Snapshots of shards installed here.",
        |node| node.snapshots_installed.value(),
    ),
    ("ringline_storage_snapshots_given_up_total", "counter", "Snapshots of shards given up here.", |node| {
        node.snapshots_given_up.value()
    }),
    ("ringline_storage_snapshot_bytes_total", "counter", "Bytes of snapshots sent to other nodes.", |node| {
        node.snapshot_bytes.value()
    }),
    ("ringline_storage_backups_made_total", "counter", "Backups made.", |node| node.backups_made.value()),
    ("ringline_storage_backups_failed_total", "counter", "Backups that came to nothing.", |node| {
        node.backups_failed.value()
    }),
    ("ringline_storage_backup_failed", "gauge", "Whether the last backup came to nothing.", |node| {
        node.backup_failed.value()
    }),
    (
        "ringline_storage_backup_made_timestamp_seconds",
        "gauge",
        "When the newest backup was begun, in seconds since 1970; 0: none is known.",
        |node| node.backup_made_ms.value() / 1_000,
    ),
];

impl NodeMetrics {
    /// Everything, as Prometheus text.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for (name, kind, help, value) in CORE_COLUMNS {
            head(&mut text, name, kind, help);
            for (core, metrics) in self.cores.iter().enumerate() {
                let _ = writeln!(text, "{name}{{core=\"{core}\"}} {}", value(metrics));
            }
        }
        for (name, kind, help, value) in NODE_COLUMNS {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "{name} {}", value(self));
        }
        let name = "ringline_storage_entry_seconds";
        head(&mut text, name, "histogram", "From proposing an entry to answering its commands.");
        for (core, metrics) in self.cores.iter().enumerate() {
            histogram(&mut text, name, &format!("core=\"{core}\""), &metrics.entry_us);
        }
        for (name, help, durations) in [
            ("ringline_storage_log_sync_seconds", "One synced write of the log.", &self.log_sync_us),
            ("ringline_storage_store_write_seconds", "Applying and writing entries.", &self.store_write_us),
            ("ringline_storage_read_seconds", "One query on a read thread.", &self.read_us),
        ] {
            head(&mut text, name, "histogram", help);
            histogram(&mut text, name, "", durations);
        }
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn histogram(text: &mut String, name: &str, label: &str, histogram: &Histogram) {
    let (bounds, sum_us, count) = histogram.cumulative();
    let comma = if label.is_empty() { "" } else { "," };
    for (bound_us, below) in bounds {
        let bound = bound_us as f64 / 1e6;
        let _ = writeln!(text, "{name}_bucket{{{label}{comma}le=\"{bound}\"}} {below}");
    }
    let _ = writeln!(text, "{name}_bucket{{{label}{comma}le=\"+Inf\"}} {count}");
    let braces = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
    let _ = writeln!(text, "{name}_sum{braces} {}\n{name}_count{braces} {count}", sum_us as f64 / 1e6);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_core_and_every_histogram_is_there() {
        let metrics = NodeMetrics::new(2);
        metrics.cores[1].requests.add(7);
        metrics.log_sync_us.record(Duration::from_micros(100));
        let text = metrics.render();
        assert!(text.contains("ringline_storage_requests_total{core=\"1\"} 7\n"), "{text}");
        assert!(text.contains("ringline_storage_log_sync_seconds_bucket{le=\"0.000128\"} 1\n"), "{text}");
        assert!(text.contains("ringline_storage_log_sync_seconds_count 1\n"), "{text}");
    }
}
