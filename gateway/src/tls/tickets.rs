//! TLS tickets that any gateway of a fleet can open: their keys come from a shared secret and the time. Pure, but for
//! [`SharedTicketer`], which rustls calls.
//!
//! Layout: 1 (1 byte), name of the secret (4), period (4, big-endian), salt (32), ciphertext, tag (16). The key and the
//! nonce of a ticket are HKDF-SHA256 of the secret, expanded with period and salt: every ticket has a key of its own, so
//! that no number of tickets wears one out. A gateway accepts the present period and its neighbours: tickets live for
//! six to twelve hours, and clocks may differ by six. What a ticket holds lets nobody read a session: each resumption
//! makes fresh keys by Diffie-Hellman.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand::fill;
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::Arc;

/// How long tickets are made with the same period, in milliseconds.
pub const TICKET_PERIOD_MS: u64 = 6 * 3_600 * 1_000;
/// Secrets in one file, at most: the present one, the next, the last, and room.
pub const TICKET_SECRETS_MAX: usize = 8;
/// Bytes of a secret.
pub const TICKET_SECRET_BYTES: usize = 32;

const LAYOUT: u8 = 1;
const NAME_BYTES: usize = 4;
const SALT_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + NAME_BYTES + 4 + SALT_BYTES;
const KEY_BYTES: usize = 32;

/// The secrets of a fleet: the first one makes tickets, all of them open them.
pub struct TicketSecrets {
    secrets: Vec<Secret>,
}

struct Secret {
    name: [u8; NAME_BYTES],
    prk: Prk,
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecrets").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

impl Secret {
    fn new(secret: &[u8; TICKET_SECRET_BYTES]) -> Self {
        let named = digest(&SHA256, &[b"ringline: name of a ticket secret".as_slice(), secret].concat());
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&named.as_ref()[..NAME_BYTES]);
        Self { name, prk: Salt::new(HKDF_SHA256, b"ringline: tls tickets").extract(secret) }
    }

    fn key(&self, head: &[u8; HEAD_BYTES]) -> Option<(LessSafeKey, Nonce)> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                KEY_BYTES + NONCE_LEN
            }
        }
        let mut bytes = [0; KEY_BYTES + NONCE_LEN];
        self.prk.expand(&[head.as_slice()], Length).ok()?.fill(&mut bytes).ok()?;
        let (key, nonce) = bytes.split_at(KEY_BYTES);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some((key, Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

impl TicketSecrets {
    /// From a file's text: a secret a line, 64 hexadecimal characters; empty lines and lines that begin with # are left
    /// out. `Err` says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let secrets = lines.map(|line| Some(Secret::new(&secret_of(line)?))).collect::<Option<Vec<_>>>();
        match secrets.ok_or("a line is not 64 hexadecimal characters")? {
            secrets if secrets.is_empty() => Err("there is no secret"),
            secrets if secrets.len() > TICKET_SECRETS_MAX => Err("there are too many secrets"),
            secrets => Ok(Self { secrets }),
        }
    }

    /// A ticket. `salt` is drawn at random for each.
    fn seal(&self, now_ms: u64, salt: [u8; SALT_BYTES], plain: &[u8]) -> Option<Vec<u8>> {
        let secret = self.secrets.first()?;
        let mut head = [LAYOUT; HEAD_BYTES];
        head[1..5].copy_from_slice(&secret.name);
        head[5..9].copy_from_slice(&period(now_ms).to_be_bytes());
        head[9..].copy_from_slice(&salt);
        let (key, nonce) = secret.key(&head)?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(&head), &mut sealed).ok()?;
        Some([head.as_slice(), &sealed].concat())
    }

    /// What is in a ticket of ours that is not too old.
    fn open(&self, now_ms: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_first_chunk::<HEAD_BYTES>()?;
        let (layout, name, made) = (head[0], &head[1..5], u32::from_be_bytes(head[5..9].try_into().ok()?));
        if layout != LAYOUT || made.abs_diff(period(now_ms)) > 1 {
            return None;
        }
        let secret = self.secrets.iter().find(|secret| secret.name == *name)?;
        let (key, nonce) = secret.key(head)?;
        let mut opened = sealed.to_vec();
        let plain_bytes = key.open_in_place(nonce, Aad::from(head), &mut opened).ok()?.len();
        opened.truncate(plain_bytes);
        Some(opened)
    }
}

/// 2^32 periods are three million years.
fn period(now_ms: u64) -> u32 {
    (now_ms / TICKET_PERIOD_MS) as u32
}

fn secret_of(line: &str) -> Option<[u8; TICKET_SECRET_BYTES]> {
    let digits = line.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 2 * TICKET_SECRET_BYTES)
}

/// Where the newest secrets are found, and the time.
pub trait TicketSource: Send + Sync {
    /// The secrets in force.
    fn secrets(&self) -> Arc<TicketSecrets>;
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// Makes and opens tickets for rustls.
pub struct SharedTicketer<S>(pub S);

impl<S> fmt::Debug for SharedTicketer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTicketer")
    }
}

impl<S: TicketSource> ProducesTickets for SharedTicketer<S> {
    fn enabled(&self) -> bool {
        true
    }

    /// As long as the youngest ticket is good for at least.
    fn lifetime(&self) -> u32 {
        (TICKET_PERIOD_MS / 1_000) as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut salt = [0; SALT_BYTES];
        fill(&mut salt).ok()?;
        self.0.secrets().seal(self.0.now_ms(), salt, plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.secrets().open(self.0.now_ms(), ticket)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    /// Secrets and a time that a test sets.
    pub(in crate::tls) struct Fixed(pub Arc<TicketSecrets>, pub u64);

    impl TicketSource for Fixed {
        fn secrets(&self) -> Arc<TicketSecrets> {
            self.0.clone()
        }

        fn now_ms(&self) -> u64 {
            self.1
        }
    }

    pub(in crate::tls) fn secrets(digits: &[&str]) -> Arc<TicketSecrets> {
        let text: Vec<String> = digits.iter().map(|digit| digit.repeat(64)).collect();
        Arc::new(TicketSecrets::parse(&text.join("\n")).expect("secrets"))
    }

    #[test]
    fn a_ticket_is_good_in_its_period_and_beside_it() {
        let secrets = secrets(&["a"]);
        let ticket = secrets.seal(NOW_MS, [7; SALT_BYTES], b"session").expect("it seals");
        for (now_ms, is_good) in [
            (NOW_MS, true),
            (NOW_MS - TICKET_PERIOD_MS, true),
            (NOW_MS + TICKET_PERIOD_MS, true),
            (NOW_MS - 2 * TICKET_PERIOD_MS, false),
            (NOW_MS + 2 * TICKET_PERIOD_MS, false),
        ] {
            assert_eq!(secrets.open(now_ms, &ticket).is_some(), is_good, "{now_ms}");
        }
        assert_eq!(secrets.open(NOW_MS, &ticket).as_deref(), Some(b"session".as_slice()));
    }

    #[test]
    fn secrets_are_handed_over_by_two_lines() {
        let (old, new) = (secrets(&["a"]), secrets(&["b"]));
        let (both, turned) = (secrets(&["a", "b"]), secrets(&["b", "a"]));
        let of = |secrets: &TicketSecrets| secrets.seal(NOW_MS, [1; SALT_BYTES], b"x").expect("it seals");
        assert!(new.open(NOW_MS, &of(&old)).is_none());
        assert!(both.open(NOW_MS, &of(&new)).is_some() && turned.open(NOW_MS, &of(&old)).is_some());
        assert!(old.open(NOW_MS, &of(&both)).is_some(), "the first line makes");
        assert!(new.open(NOW_MS, &of(&turned)).is_some());
    }

    #[test]
    fn nothing_of_a_ticket_may_be_changed() {
        let secrets = secrets(&["a"]);
        let ticket = secrets.seal(NOW_MS, [7; SALT_BYTES], b"session").expect("it seals");
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert!(secrets.open(NOW_MS, &changed).is_none(), "{place}");
            assert!(secrets.open(NOW_MS, &ticket[..place]).is_none(), "{place}");
        }
        let other = secrets.seal(NOW_MS, [8; SALT_BYTES], b"session").expect("it seals");
        assert!(ticket[HEAD_BYTES..] != other[HEAD_BYTES..], "each has its own key");
    }

    #[test]
    fn a_file_is_read_or_refused_whole() {
        let good = "a".repeat(64);
        assert!(TicketSecrets::parse(&format!("# ours\n\n {good} \n")).is_ok());
        for (text, problem) in [
            (String::new(), "there is no secret"),
            ("# ours".into(), "there is no secret"),
            (good[1..].to_owned(), "a line is not 64 hexadecimal characters"),
            (format!("{good}a"), "a line is not 64 hexadecimal characters"),
            (format!("{good}\n{}", good.replace('a', "x")), "a line is not 64 hexadecimal characters"),
            ([good.as_str(); 9].join("\n"), "there are too many secrets"),
        ] {
            assert_eq!(TicketSecrets::parse(&text).err(), Some(problem), "{text}");
        }
    }
}
