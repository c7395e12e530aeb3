//! What a gateway reads before it knows who speaks: the first bytes of a connection, and proofs.

use crate::Target;
use crate::input::Input;
use gateway::config::AuthConfig;
use gateway::domain::auth::{self, Identity, Verifier};
use gateway::transport::{Connection, TransportEvent};
use std::sync::OnceLock;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::limits::FRAME_BYTES_MAX;

/// Some moment, in milliseconds since 1970.
const NOW_MS: u64 = 1_790_000_000_000;

/// See `holds`.
pub const TRANSPORT: Target = Target {
    name: "transport",
    holds: "a connection's plaintext is native, WebSocket or HTTP however its bytes are cut and its frames asked for, and frames are within bounds",
    run: transport,
};
/// See `holds`.
pub const TOKENS: Target = Target {
    name: "tokens",
    holds: "no bytes but those that were issued are a proof, and each refusal names its reason",
    run: tokens,
};

/// What comes out, as text: HTTP's bytes joined, since they come in pieces.
fn told<'a>(pieces: impl Iterator<Item = &'a [u8]>, frames_max: u32) -> String {
    let origins = ["https://chat.example".to_owned()];
    let (mut connection, mut scratch) = (Connection::new(None), Vec::new());
    let (mut told, mut http) = (String::new(), Vec::new());
    'read: for piece in pieces {
        let mut bytes = piece.to_vec();
        loop {
            let mut sink = |event| match event {
                TransportEvent::Http(bytes) | TransportEvent::HttpBytes(bytes) => {
                    http.extend_from_slice(&bytes)
                }
                TransportEvent::Frame(frame) => {
                    assert!(frame.len() <= FRAME_BYTES_MAX);
                    told.push_str(&format!("frame {frame:?}\n"));
                }
                event => told.push_str(&format!("{event:?}\n")),
            };
            let received = connection.receive(&mut bytes, &mut scratch, &origins, frames_max, &mut sink);
            if let Err(ending) = received {
                told.push_str(&format!("{ending:?}\n"));
                break 'read;
            }
            if !connection.is_unfinished() {
                break;
            }
            bytes.clear();
        }
    }
    format!("{told}{http:?}")
}

fn transport(data: &[u8]) {
    let mut input = Input::new(data);
    let step = 1 + input.below(64);
    let bytes = input.rest();
    assert_eq!(told(std::iter::once(bytes), u32::MAX), told(bytes.chunks(step), 1 + step as u32 % 5));
}

struct Proofs {
    verifier: Verifier,
    resume: Vec<u8>,
}

/// Keys that are made once: what a proof must not be made without.
fn proofs() -> &'static Proofs {
    static PROOFS: OnceLock<Proofs> = OnceLock::new();
    PROOFS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for keys");
        let (_, verifier) = auth::open(&AuthConfig::default(), folder.path()).expect("keys are made");
        let identity = Identity { user: UserId([1; 16]), device: DeviceId([2; 16]), expires_ms: NOW_MS };
        let resume = verifier.issue_resume(identity, NOW_MS).to_vec();
        Proofs { verifier, resume }
    })
}

fn tokens(data: &[u8]) {
    let Proofs { verifier, resume } = proofs();
    let mut input = Input::new(data);
    let mut token = match input.below(3) {
        // An issued one, changed: wherever the input says.
        0 => resume.clone(),
        _ => Vec::new(),
    };
    if token.is_empty() {
        token = input.rest().to_vec();
    } else {
        while !input.is_empty() {
            let (place, bits) = (input.byte(), input.byte());
            let place = usize::from(place) % token.len();
            token[place] ^= bits;
        }
    }
    match verifier.verify_resume(&token, NOW_MS) {
        Ok(_) => assert_eq!(&token, resume, "nobody issued this one"),
        Err(error) => assert!(!error.detail.is_empty()),
    }
    let text = String::from_utf8_lossy(&token);
    let error = verifier.verify_access(&text, NOW_MS).expect_err("nobody signed one here");
    assert!(!error.detail.is_empty());
}
