//! What servers and operators write as text: a gateway's answer to another one's probe, the manifest of a backup, and what an
//! operator asks of a storage node.

use crate::Target;
use crate::input::Input;
use gateway::fleet::discovery::Probed;
use gateway::fleet::understood;
use storage_node::admin::AdminRequest;
use storage_node::backup::Manifest;

/// Longest zone that is believed of another gateway, in bytes: as in `gateway`.
const ZONE_BYTES_MAX: usize = 64;
/// Places at which a manifest is changed, at most: all of a short one.
const PLACES_MAX: usize = 256;

/// See `holds`.
pub const TEXTS: Target = Target {
    name: "texts",
    holds: "a probe's answer, a manifest and an operator's request are taken, and read back as they are written, or refused with \
            a reason; a manifest of which a byte has changed is none",
    run: texts,
};

fn texts(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => answer(input.rest()),
        1 => manifest(&mut input),
        _ => request(input.rest()),
    }
}

fn answer(bytes: &[u8]) {
    match understood(bytes) {
        Some(Probed::Ready { zone, .. }) => assert!(zone.len() <= ZONE_BYTES_MAX),
        Some(Probed::Silent) => panic!("an answer is no silence"),
        Some(Probed::NotReady) | None => {}
    }
}

fn manifest(input: &mut Input<'_>) {
    let (place, bits) = (input.number(), input.byte().max(1));
    let text = String::from_utf8_lossy(input.rest());
    if let Err(reason) = Manifest::parse(&text) {
        assert!(!reason.is_empty());
    }
    // As if it had its checksum.
    match Manifest::from_line(&text) {
        Ok(manifest) => written(manifest, place, bits),
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// Reads what is written, then with other bits at one place after the other. With the lowest bit a digit becomes another
/// digit: a good manifest, but for its checksum.
fn written(manifest: Manifest, place: u64, bits: u8) {
    assert_eq!(manifest.format, Manifest::format());
    let text = manifest.to_text();
    assert_eq!(Manifest::parse(&text), Ok(manifest));
    let apart = text.len().div_ceil(PLACES_MAX);
    let first = place as usize % apart;
    for place in (first..text.len()).step_by(apart) {
        changed(&text, place, bits);
        changed(&text, place, 1);
    }
}

fn changed(text: &str, place: usize, bits: u8) {
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] ^= bits;
    if let Ok(text) = String::from_utf8(bytes) {
        assert!(Manifest::parse(&text).is_err(), "byte {place}: {text}");
    }
}

fn request(line: &[u8]) {
    match AdminRequest::from_line(line) {
        Ok(request) => {
            let written = request.to_line().expect("names that came as text are text");
            assert!(written.ends_with(b"\n"));
            assert_eq!(AdminRequest::from_line(&written), Ok(request));
        }
        Err(reason) => assert!(reason.starts_with("this node knows no such request: "), "{reason}"),
    }
}
