//! Network cards: which cores their packets and interrupts land on.
//!
//! Only cards with a device behind them that are up; loopback, veth and bridges have none. A card's interrupts are
//! those of its device or, as with virtio, of the PCI device above it.

use super::value::{Bound, Change, Edit, Kind, Present, Room, Source, Spec, Value};
use super::{Setting, cores_online, cpu_list};
use crate::host::Host;
use std::collections::BTreeSet;

const CARDS: &str = "/sys/class/net";

pub(super) fn spec(setting: Setting) -> Spec {
    let (name, what) = match setting {
        Setting::InterruptsCrowded => (
            "interrupts of network cards, crowded",
            "receive interrupts that share a core while another core has none",
        ),
        Setting::TransmitQueuesUnmapped => (
            "transmit queues without cores (XPS)",
            "queues of a card with several that no core is told to prefer",
        ),
        _ => (
            "cores that take received packets",
            "cores among which a card's queues and RPS spread the work of receiving; of the worst card",
        ),
    };
    Spec { name, what, source: Source::Computed { kind: Kind::Number, room: &Cards } }
}

/// One network card.
struct Card {
    name: String,
    /// Mask of RPS of each receive queue: its cores, none if it is off.
    receive: Vec<(String, BTreeSet<u32>)>,
    /// Mask of XPS of each transmit queue, as far as the kernel has one.
    transmit: Vec<(String, BTreeSet<u32>)>,
    interrupts: Vec<Interrupt>,
}

struct Interrupt {
    number: u32,
    cores: BTreeSet<u32>,
}

impl Card {
    /// Cores that take received packets: RPS where it is on, else where the interrupts go.
    fn receiving(&self) -> BTreeSet<u32> {
        let by_mask = self.receive.iter().flat_map(|(_, cores)| cores.iter().copied());
        let mut cores: BTreeSet<u32> = by_mask.collect();
        if self.receive.iter().any(|(_, cores)| cores.is_empty()) {
            cores.extend(self.interrupt_cores());
        }
        cores
    }

    fn interrupt_cores(&self) -> BTreeSet<u32> {
        self.interrupts.iter().flat_map(|interrupt| interrupt.cores.iter().copied()).collect()
    }

    /// Receive interrupts that could have a core of their own and have not.
    fn crowded(&self, cores: usize) -> usize {
        self.interrupts.len().min(cores).saturating_sub(self.interrupt_cores().len())
    }

    fn unmapped(&self) -> usize {
        self.transmit.iter().filter(|(_, cores)| cores.is_empty()).count()
    }
}

/// The cards of the machine. None is a reason, too.
fn cards(host: &dyn Host) -> Result<Vec<Card>, Present> {
    let names = host.list(CARDS).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Present::NotApplicable(format!("no network cards (no {CARDS})")),
        _ => Present::Unreadable(format!("{CARDS}: {error}")),
    })?;
    let real = names.iter().filter(|name| {
        let up = host.read(&format!("{CARDS}/{name}/operstate")).is_ok_and(|state| state.trim() != "down");
        up && host.list(&format!("{CARDS}/{name}/device")).is_ok()
    });
    let cards = real.map(|name| card(host, name)).collect::<Result<Vec<_>, _>>()?;
    match cards.is_empty() {
        true => Err(Present::NotApplicable("no network card with a device is up".to_owned())),
        false => Ok(cards),
    }
}

fn card(host: &dyn Host, name: &str) -> Result<Card, Present> {
    let folder = format!("{CARDS}/{name}/queues");
    let queues = host.list(&folder).map_err(|error| Present::Unreadable(format!("{folder}: {error}")))?;
    let masks = |prefix: &str, file: &str| {
        let paths = queues.iter().filter(|queue| queue.starts_with(prefix));
        let paths = paths.map(|queue| format!("{folder}/{queue}/{file}"));
        // A kernel without RPS has no file, one with a single transmit queue no mask to read.
        paths.filter_map(|path| host.read(&path).ok().map(|text| (path, mask(&text)))).collect::<Vec<_>>()
    };
    let interrupts = interrupts(host, name);
    Ok(Card {
        name: name.to_owned(),
        receive: masks("rx-", "rps_cpus"),
        transmit: masks("tx-", "xps_cpus"),
        interrupts,
    })
}

/// Receive interrupts of a card; all of its interrupts if their names tell nothing.
fn interrupts(host: &dyn Host, name: &str) -> Vec<Interrupt> {
    /// Words by which drivers name the vectors of receive queues.
    const RECEIVING: [&str; 5] = ["rx", "input", "comp", "queue", "ntfy"];
    let device = format!("{CARDS}/{name}/device");
    let own = host.list(&format!("{device}/msi_irqs")).ok().filter(|numbers| !numbers.is_empty());
    let numbers = own.or_else(|| host.list(&format!("{device}/../msi_irqs")).ok()).unwrap_or_default();
    let mut numbers: Vec<u32> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    let receives = |number: &u32| {
        let named = host.list(&format!("/proc/irq/{number}")).unwrap_or_default();
        let known = ["affinity_hint", "effective_affinity", "node", "smp_affinity", "spurious"];
        let actions = named.iter().filter(|name| !known.iter().any(|known| name.starts_with(known)));
        actions.map(|name| name.to_lowercase()).any(|name| RECEIVING.iter().any(|word| name.contains(word)))
    };
    let receiving: Vec<u32> = numbers.iter().copied().filter(receives).collect();
    let chosen = if receiving.is_empty() { numbers } else { receiving };
    let cores = |number: u32| {
        let list = |path: &str| cpu_list(&host.read(path).ok()?);
        let allowed = list(&affinity(number))?;
        // Of several allowed cores the kernel has chosen one. A single one holds already, although the kernel may
        // show the last choice until the next interrupt.
        let chosen =
            (allowed.len() > 1).then(|| list(&format!("/proc/irq/{number}/effective_affinity_list")));
        let cores = chosen.flatten().filter(|cores| !cores.is_empty()).unwrap_or(allowed);
        Some(Interrupt { number, cores: cores.into_iter().collect() })
    };
    chosen.into_iter().filter_map(cores).collect()
}

fn affinity(interrupt: u32) -> String {
    format!("/proc/irq/{interrupt}/smp_affinity_list")
}

/// Cores of a mask as the kernel prints it: groups of 32 bits in hexadecimal, the highest first.
fn mask(text: &str) -> BTreeSet<u32> {
    let digits = text.trim().chars().filter(|digit| *digit != ',').rev();
    let bits = digits.enumerate().flat_map(|(place, digit)| {
        let nibble = digit.to_digit(16).unwrap_or(0);
        (0..4).filter(move |bit| nibble >> bit & 1 == 1).map(move |bit| place as u32 * 4 + bit)
    });
    bits.collect()
}

/// The inverse of [`mask`].
fn mask_text(cores: &BTreeSet<u32>) -> String {
    let groups = cores.last().map_or(1, |last| last / 32 + 1);
    let group = |group: u32| {
        let bits = cores.iter().filter(|core| **core / 32 == group);
        bits.fold(0_u32, |word, core| word | 1 << (core % 32))
    };
    let first = format!("{:x}", group(groups - 1));
    let rest = (0..groups - 1).rev().map(|index| format!(",{:08x}", group(index)));
    std::iter::once(first).chain(rest).collect()
}

struct Cards;

impl Room for Cards {
    fn present(&self, setting: Setting, host: &dyn Host) -> Present {
        let cores = match cores_online(host) {
            Ok(cores) => cores.len(),
            Err(why) => return Present::Unreadable(why),
        };
        let cards = match cards(host) {
            Ok(cards) => cards,
            Err(present) => return present,
        };
        let number = |card: &Card| match setting {
            Setting::InterruptsCrowded => card.crowded(cores),
            Setting::TransmitQueuesUnmapped => card.unmapped(),
            _ => card.receiving().len(),
        };
        let told: Vec<&Card> = cards.iter().filter(|card| applies(setting, card)).collect();
        let worst = match setting {
            Setting::ReceiveCores => told.iter().min_by_key(|card| number(card)),
            _ => told.iter().max_by_key(|card| number(card)),
        };
        let Some(worst) = worst else { return Present::NotApplicable(silent(setting)) };
        let detail = format!(
            "{}: {} receive queues, {} of them with RPS; interrupts on {} of {cores} cores",
            worst.name,
            worst.receive.len(),
            worst.receive.iter().filter(|(_, cores)| !cores.is_empty()).count(),
            worst.interrupt_cores().len(),
        );
        Present::Here(Value::Number(number(worst) as u64), Some(detail))
    }

    fn change(&self, setting: Setting, _: &Bound, host: &dyn Host) -> Change {
        let (Ok(cores), Ok(cards)) = (cores_online(host), cards(host)) else {
            return Change::ByHand("the cards could not be read again".to_owned());
        };
        let cards = cards.iter().filter(|card| applies(setting, card));
        let edits: Vec<Edit> = cards.flat_map(|card| edits(setting, card, &cores)).collect();
        match edits.is_empty() {
            true => Change::ByHand(
                "comes with spreading the card's interrupts, of which it has enough".to_owned(),
            ),
            false => Change::Edits(edits),
        }
    }
}

/// Whether a card has what the setting is about.
fn applies(setting: Setting, card: &Card) -> bool {
    match setting {
        Setting::InterruptsCrowded => !card.interrupts.is_empty(),
        Setting::TransmitQueuesUnmapped => card.transmit.len() > 1,
        _ => !card.receive.is_empty() && (!card.interrupts.is_empty() || !card.receiving().is_empty()),
    }
}

fn silent(setting: Setting) -> String {
    match setting {
        Setting::InterruptsCrowded => "no card shows its interrupts",
        Setting::TransmitQueuesUnmapped => "every card has one transmit queue",
        _ => "no card shows its receive queues and interrupts",
    }
    .to_owned()
}

/// What makes a card serve. A card that does already is left alone.
fn edits(setting: Setting, card: &Card, cores: &[u32]) -> Vec<Edit> {
    let edit = |path: &str, value: String| Edit { path: path.to_owned(), field: None, value };
    let core = |index: usize| cores[index % cores.len()];
    match setting {
        Setting::InterruptsCrowded if card.crowded(cores.len()) > 0 => {
            let place = |(index, interrupt): (usize, &Interrupt)| {
                edit(&affinity(interrupt.number), core(index).to_string())
            };
            card.interrupts.iter().enumerate().map(place).collect()
        }
        Setting::TransmitQueuesUnmapped if card.unmapped() > 0 => {
            let queues = card.transmit.len();
            let share = |queue: usize| {
                let own: BTreeSet<u32> = cores.iter().copied().skip(queue).step_by(queues).collect();
                // More queues than cores: those beyond are shared with the first.
                if own.is_empty() { BTreeSet::from([core(queue)]) } else { own }
            };
            let place =
                |(queue, (path, _)): (usize, &(String, BTreeSet<u32>))| edit(path, mask_text(&share(queue)));
            card.transmit.iter().enumerate().map(place).collect()
        }
        // A card with an interrupt for each core needs them spread, not RPS on top.
        Setting::ReceiveCores
            if card.receiving().len() < cores.len() && card.interrupts.len() < cores.len() =>
        {
            let all = mask_text(&cores.iter().copied().collect());
            card.receive.iter().map(|(path, _)| edit(path, all.clone())).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_written_as_the_kernel_does() {
        for (text, cores) in [
            ("0", vec![]),
            ("00000000,00000000", vec![]),
            ("3", vec![0, 1]),
            ("00000001,80000000", vec![31, 32]),
            ("f0", vec![4, 5, 6, 7]),
        ] {
            let cores: BTreeSet<u32> = cores.into_iter().collect();
            assert_eq!(mask(text), cores, "{text}");
            assert_eq!(mask(&mask_text(&cores)), cores, "{text}");
        }
        assert_eq!(mask_text(&BTreeSet::from([31, 32])), "1,80000000");
    }
}
