//! The `[fleet]` table: where the other gateways are, and how this one leaves.

use super::ConfigError;
use crate::fleet::discovery::GATEWAYS_MAX;
use serde::Deserialize;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use wire_protocol::limits::GATEWAY_ADDRESS_BYTES_MAX;

/// How long a gateway that leaves goes on serving those whose turn has not come, in seconds, when the file names no
/// time: two thirds of what Kubernetes gives a pod.
const DRAIN_S_DEFAULT: u32 = 20;
/// Longest time that may be named, in seconds: an hour, at which 60,000 clients leave at 17 a second.
pub const DRAIN_S_MAX: u32 = 3_600;

/// The other gateways.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// `host:port` of gateways' TLS ports, as clients reach them; this one may be among them.
    pub gateways: Vec<String>,
    /// `name:port`: every address of the name is a gateway.
    pub dns: Option<String>,
    /// `host:port` of this gateway as it stands in the list, or `address:port` as the name gives it.
    pub advertise: Option<String>,
    /// Where this gateway is: gateways of the same zone are nearer than others.
    pub zone: String,
    /// Name in the gateways' certificates. `None`: the host of each address.
    pub server_name: Option<String>,
    /// Authority of the gateways' certificates, PEM. `None`: the others have the same certificate as this one.
    pub ca: Option<PathBuf>,
    /// How long a gateway that leaves goes on serving those whose turn has not come, in seconds.
    pub drain_s: u32,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            gateways: Vec::new(),
            dns: None,
            advertise: None,
            zone: String::new(),
            server_name: None,
            ca: None,
            drain_s: DRAIN_S_DEFAULT,
        }
    }
}

impl FleetConfig {
    /// Whether there may be others.
    pub fn is_fleet(&self) -> bool {
        !self.gateways.is_empty() || self.dns.is_some()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let named = [("fleet.dns", &self.dns), ("fleet.advertise", &self.advertise)];
        let named = named.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?)));
        let listed = self.gateways.iter().map(|text| ("fleet.gateways", text));
        for (key, text) in named.chain(listed) {
            if !is_host_and_port(text) {
                let problem = format!("{text:?} is not host:port, {GATEWAY_ADDRESS_BYTES_MAX} bytes at most");
                return Err(ConfigError::impossible(key, problem));
            }
        }
        if self.gateways.len() > GATEWAYS_MAX {
            let problem = format!("{} gateways, {GATEWAYS_MAX} at most", self.gateways.len());
            return Err(ConfigError::impossible("fleet.gateways", problem));
        }
        if self.is_fleet() && self.advertise.is_none() {
            let problem = "needed in a fleet: a gateway must know which address is its own";
            return Err(ConfigError::impossible("fleet.advertise", problem));
        }
        if self.drain_s > DRAIN_S_MAX {
            let problem = format!("{} is above {DRAIN_S_MAX}", self.drain_s);
            return Err(ConfigError::impossible("fleet.drain_s", problem));
        }
        Ok(())
    }
}

/// The host without the brackets of an IPv6 address, and the port.
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    if let Ok(SocketAddr::V6(address)) = text.parse() {
        let host = text.strip_prefix('[')?.split(']').next()?;
        return Some((host, address.port()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_name =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    Some((host, port.parse().ok().filter(|port| *port != 0)?)).filter(|_| is_name)
}

fn is_host_and_port(text: &str) -> bool {
    text.len() <= GATEWAY_ADDRESS_BYTES_MAX && host_and_port(text).is_some()
}

const _: () = assert!(GATEWAY_ADDRESS_BYTES_MAX >= Ipv6Addr::LOCALHOST.octets().len() * 3);

impl fmt::Display for FleetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
        let ca = self.ca.as_ref().map_or("none".into(), |path| path.display().to_string());
        writeln!(f, "fleet.gateways = {:?}", self.gateways)?;
        writeln!(f, "fleet.dns = \"{}\"", text(&self.dns))?;
        writeln!(f, "fleet.advertise = \"{}\"", text(&self.advertise))?;
        writeln!(f, "fleet.zone = \"{}\"", self.zone)?;
        writeln!(f, "fleet.server_name = \"{}\"", text(&self.server_name))?;
        writeln!(f, "fleet.ca = \"{ca}\"")?;
        write!(f, "fleet.drain_s = {}", self.drain_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for (text, read) in [
            ("chat.example.org:8443", Some(("chat.example.org", 8443))),
            ("10.0.0.1:1", Some(("10.0.0.1", 1))),
            ("[2001:db8::1]:8443", Some(("2001:db8::1", 8443))),
            ("2001:db8::1:8443", None),
            ("chat.example.org", None),
            ("chat.example.org:0", None),
            (":8443", None),
            ("a b:8443", None),
            ("a/b:8443", None),
        ] {
            assert_eq!(host_and_port(text), read, "{text}");
        }
    }

    #[test]
    fn a_fleet_needs_an_address_of_its_own() {
        let fleet = FleetConfig { gateways: vec!["a:1".into()], ..FleetConfig::default() };
        let refused = fleet.check().expect_err("no advertise").to_string();
        assert!(refused.starts_with("fleet.advertise"), "{refused}");
        assert!(FleetConfig { advertise: Some("a:1".into()), ..fleet.clone() }.check().is_ok());
        assert!(FleetConfig { advertise: Some("a".into()), ..fleet }.check().is_err());
        let gateways = vec!["a:1".to_owned(); GATEWAYS_MAX + 1];
        let crowd = FleetConfig { gateways, advertise: Some("a:1".into()), ..FleetConfig::default() };
        let refused = crowd.check().expect_err("too many").to_string();
        assert_eq!(refused, format!("fleet.gateways: {} gateways, {GATEWAYS_MAX} at most", GATEWAYS_MAX + 1));
        assert!(FleetConfig::default().check().is_ok());
    }
}
