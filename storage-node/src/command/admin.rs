//! `ringline-storage admin`: a question to a running node.

use super::{Words, data_dir};
use std::path::PathBuf;
use storage_node::admin::{AdminRequest, FleetWish, call};
use storage_node::backup::{BACKUPS_KEPT_DEFAULT, BACKUPS_KEPT_MAX};

/// What to ask, and where.
pub struct Question {
    data_dir: PathBuf,
    request: AdminRequest,
    is_json: bool,
}

impl Question {
    pub(super) fn parse(mut words: Words) -> Result<Self, String> {
        let is_json = words.flag("--json");
        let data_dir = data_dir(&mut words)?;
        let request = request(&mut words)?;
        words.end()?;
        Ok(Self { data_dir, request, is_json })
    }

    /// Asks; gives what is to be printed. How far the node is goes to standard error meanwhile.
    pub fn ask(&self) -> Result<String, String> {
        let done = call(&self.data_dir, &self.request, |detail| eprintln!("{detail}"));
        let done = done.map_err(|error| error.to_string())?;
        match self.is_json {
            true => serde_json::to_string(&done).map_err(|error| error.to_string()),
            false => Ok(done.to_text().trim_end().to_owned()),
        }
    }
}

fn request(words: &mut Words) -> Result<AdminRequest, String> {
    match words.word().as_deref() {
        Some("status") => Ok(AdminRequest::Status {}),
        Some("backup") => backup(words),
        Some("fleet") if words.flag("--wait") => Ok(AdminRequest::WaitForMoves {}),
        Some("fleet") => Ok(AdminRequest::Fleet {}),
        Some("add-node") => {
            let zone = words.value("--zone")?.unwrap_or_default();
            let id = node_id(words)?;
            let address = words.word().ok_or("the node's address is missing")?;
            let address = address.parse().map_err(|_| format!("{address}: no address and port"))?;
            Ok(change(words, FleetWish::Add { id, address, zone }))
        }
        Some("remove-node") => node_id(words).map(|id| change(words, FleetWish::Remove { id })),
        Some(other) => Err(format!("unknown command {other}")),
        None => Err("a command is missing".to_owned()),
    }
}

fn change(words: &mut Words, wish: FleetWish) -> AdminRequest {
    AdminRequest::ChangeFleet { wish, is_dry_run: words.flag("--dry-run") }
}

fn node_id(words: &mut Words) -> Result<u32, String> {
    let id = words.word().ok_or("the node's id is missing")?;
    let parsed = id.parse().ok().filter(|id| *id > 0);
    parsed.ok_or(format!("{id}: no id of a node, which is from 1 to {}", u32::MAX))
}

fn backup(words: &mut Words) -> Result<AdminRequest, String> {
    let to = words.value("--to")?.ok_or("--to is missing")?;
    // The node may stand in another folder.
    let to = std::path::absolute(&to).map_err(|error| format!("{to}: {error}"))?;
    let keep = words.value("--keep")?.map(|keep| kept(&keep)).transpose()?;
    Ok(AdminRequest::Backup { to, keep: keep.unwrap_or(BACKUPS_KEPT_DEFAULT) })
}

fn kept(keep: &str) -> Result<u32, String> {
    let parsed = keep.parse().ok().filter(|keep| (1..=BACKUPS_KEPT_MAX).contains(keep));
    parsed.ok_or(format!("--keep {keep}: no number from 1 to {BACKUPS_KEPT_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused_by_value_and_range() {
        assert_eq!(kept("1000"), Ok(BACKUPS_KEPT_MAX));
        for keep in ["0", "1001", "many"] {
            assert_eq!(kept(keep), Err(format!("--keep {keep}: no number from 1 to 1000")));
        }
        for id in ["0", "4294967296", "one"] {
            let refused = node_id(&mut Words::new([id.to_owned()]));
            assert_eq!(refused, Err(format!("{id}: no id of a node, which is from 1 to 4294967295")));
        }
    }
}
