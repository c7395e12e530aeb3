//! A server's own counters: Prometheus text, fetched over HTTP from an address of this machine.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a server to take or answer the request: more means that it hangs.
const FETCH_WAIT: Duration = Duration::from_secs(2);
/// Largest answer, in bytes: a page of 1,024 cores has less.
const PAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Synced writes of the log: `storage-node/src/observe/render.rs`.
const LOG_SYNCS: &str = "ringline_storage_log_syncs_total";

/// Counters by name and labels, as written: `name{core="0"}`.
pub type Counters = BTreeMap<String, f64>;

/// What a page says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// What only grows, sums and counts of histograms and summaries among it.
    pub counters: Counters,
    /// Levels as they are now.
    pub gauges: Counters,
}

/// Reads a page. Quantiles and buckets are left out: differences of them say nothing.
pub fn parse(text: &str) -> Page {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut page = Page::default();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            types.extend(described.trim().split_once(' '));
            continue;
        }
        let Some((key, value)) = split_sample(line) else { continue };
        let name = key.split('{').next().unwrap_or(key);
        let part = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
        let counts = match (types.get(name), part.and_then(|whole| types.get(whole))) {
            (Some(kind), _) => *kind == "counter",
            (None, Some(kind)) => matches!(*kind, "histogram" | "summary"),
            (None, None) => false,
        };
        if counts && value.is_finite() {
            page.counters.insert(key.to_owned(), value);
        } else if types.get(name) == Some(&"gauge") && value.is_finite() {
            page.gauges.insert(key.to_owned(), value);
        }
    }
    page
}

/// `name{labels} value [time]`; a label's value may hold spaces.
fn split_sample(line: &str) -> Option<(&str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.rfind('}').map_or_else(|| line.find(' '), |bracket| Some(bracket + 1))?;
    let (key, rest) = line.split_at_checked(end)?;
    Some((key, rest.split_whitespace().next()?.parse().ok()?))
}

/// Counters that changed. One that fell was set back by a restart: it counts from zero.
pub fn difference(before: &Counters, after: &Counters) -> Counters {
    let changes = after.iter().map(|(key, value)| {
        let before = before.get(key).copied().unwrap_or(0.0);
        (key.clone(), if *value < before { *value } else { *value - before })
    });
    changes.filter(|(_, change)| *change != 0.0).collect()
}

/// Adds `more` to `sum`, key by key.
pub fn add(sum: &mut Counters, more: &Counters) {
    for (key, value) in more {
        *sum.entry(key.clone()).or_insert(0.0) += value;
    }
}

/// Syncs of the log, over all labels; `None`: the server does not count them.
pub fn log_syncs(counters: &Counters) -> Option<f64> {
    let named = counters.iter().filter(|(key, _)| key.split('{').next() == Some(LOG_SYNCS));
    named.map(|(_, value)| *value).reduce(|sum, value| sum + value)
}

/// Where a page is: "http://HOST:PORT/PATH", or "HOST:PORT" for the path "/metrics".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetricsPage {
    address: SocketAddr,
    path: String,
}

impl MetricsPage {
    /// At this address, as Ringline's servers have it.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, path: "/metrics".into() }
    }

    /// From a URL with a numeric host; `None`: it is none, or not plain HTTP.
    pub fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (address, path) = match rest.split_once('/') {
            Some((address, path)) => (address, format!("/{path}")),
            None => (rest, "/metrics".to_owned()),
        };
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        Some(Self { address: address.parse().ok().filter(|_| is_plain)?, path })
    }

    /// The page as it is now. Blocks for at most a few seconds.
    pub fn fetch(&self) -> io::Result<Page> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("http://{}{}: {error}", self.address, self.path))
        };
        let answer = self.request().map_err(named)?;
        let wrong = || named(io::Error::new(io::ErrorKind::InvalidData, "not an answer with status 200"));
        let (head, page) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
        let status = head.split_whitespace().nth(1);
        if status == Some("200") { Ok(parse(page)) } else { Err(wrong()) }
    }

    /// HTTP/1.0: the answer ends with the connection and is never cut into chunks.
    fn request(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, FETCH_WAIT)?;
        stream.set_read_timeout(Some(FETCH_WAIT))?;
        stream.set_write_timeout(Some(FETCH_WAIT))?;
        write!(stream, "GET {} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", self.path, self.address)?;
        let mut answer = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const PAGE: &str = "# HELP acks_total Messages.\n# TYPE acks_total counter\nacks_total{core=\"0\"} 3\n\
        acks_total{core=\"1\"} 4.5 1700000000\n# TYPE links gauge\nlinks 7\n# TYPE wait_seconds histogram\n\
        wait_seconds_bucket{le=\"0.1\"} 1\nwait_seconds_bucket{le=\"+Inf\"} 2\nwait_seconds_sum 0.25\n\
        wait_seconds_count 2\n# TYPE lat summary\nlat{of=\"send\",quantile=\"0.5\"} 0.002\n\
        lat_count{of=\"a } b\"} 9\nstray_total 1\n# TYPE odd_total counter\nodd_total NaN\n";

    #[test]
    fn counters_sums_and_counts_are_read_and_nothing_else() {
        let counters = parse(PAGE).counters;
        let expected = [
            ("acks_total{core=\"0\"}", 3.0),
            ("acks_total{core=\"1\"}", 4.5),
            ("lat_count{of=\"a } b\"}", 9.0),
            ("wait_seconds_count", 2.0),
            ("wait_seconds_sum", 0.25),
        ];
        assert_eq!(counters, expected.map(|(key, value)| (key.to_owned(), value)).into());
        assert_eq!(parse("nonsense\n{} 3\n\n} {\n"), Page::default());
        assert_eq!(parse(PAGE).gauges, Counters::from([("links".to_owned(), 7.0)]));
    }

    #[test]
    fn differences_keep_what_changed_and_survive_restarts() {
        let counters = |pairs: &[(&str, f64)]| pairs.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect();
        let before: Counters = counters(&[("a", 5.0), ("b", 7.0), ("c", 100.0)]);
        let after: Counters = counters(&[("a", 9.0), ("b", 7.0), ("c", 30.0), ("d", 2.0)]);
        assert_eq!(difference(&before, &after), counters(&[("a", 4.0), ("c", 30.0), ("d", 2.0)]));
        let mut sum = before;
        add(&mut sum, &after);
        assert_eq!(sum, counters(&[("a", 14.0), ("b", 14.0), ("c", 130.0), ("d", 2.0)]));
    }

    #[test]
    fn syncs_of_the_log_are_the_storage_nodes_own_count() {
        let page = format!("# TYPE {LOG_SYNCS} counter\n{LOG_SYNCS} 12\n# TYPE x_total counter\nx_total 5\n");
        assert_eq!(log_syncs(&parse(&page).counters), Some(12.0));
        assert_eq!(log_syncs(&parse(PAGE).counters), None, "not counted is not zero");
        let render = include_str!("../../../storage-node/src/observe/render.rs");
        assert!(render.contains(&format!("\"{LOG_SYNCS}\"")), "the storage node calls it otherwise");
    }

    #[test]
    fn pages_are_fetched_and_refusals_are_errors() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let page = MetricsPage::at(listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            for status in ["200 OK", "503 Busy"] {
                let (mut socket, _) = listener.accept().expect("a client");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).expect("a request");
                    request.extend_from_slice(&byte);
                }
                assert!(request.starts_with(b"GET /metrics HTTP/1.0\r\n"));
                write!(socket, "HTTP/1.0 {status}\r\nX: y\r\n\r\n{PAGE}").expect("it reads");
            }
        });
        assert_eq!(page.fetch().expect("a page"), parse(PAGE));
        let refused = page.fetch().expect_err("not a page").to_string();
        assert!(refused.contains("127.0.0.1") && refused.contains("/metrics"), "{refused}");
        server.join().expect("the server's own checks");
        assert!(page.fetch().is_err(), "nobody listens any more");
    }

    #[test]
    fn urls_are_numeric_plain_http() {
        let address = "127.0.0.1:9100".parse().expect("an address");
        assert_eq!(MetricsPage::parse("http://127.0.0.1:9100/metrics"), Some(MetricsPage::at(address)));
        assert_eq!(MetricsPage::parse("127.0.0.1:9100"), Some(MetricsPage::at(address)));
        for foreign in ["https://127.0.0.1:9100/", "http://host:1/", "http://127.0.0.1:1/a b\r\nX", ""] {
            assert_eq!(MetricsPage::parse(foreign), None, "{foreign}");
        }
    }
}
