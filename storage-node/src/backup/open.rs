//! Reading the rows of a backup where it lies: links under the names that the store gave its files make a store of them.

use super::files::named;
use super::folder::Backup;
use crate::engine::{View, open_files};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Opens a backup for reading. `scratch`: a folder for links, which goes with the view.
pub(super) fn open(backup: &Backup, scratch: &Path) -> Result<Box<dyn View>, String> {
    fs::create_dir_all(scratch).map_err(|error| named(scratch, &error))?;
    let folder = backup.folder.path();
    let folder = folder.canonicalize().map_err(|error| named(folder, &error))?;
    for file in &backup.manifest.files {
        let link = scratch.join(&file.name);
        symlink(folder.join(&file.path), &link).map_err(|error| named(&link, &error))?;
    }
    let opened = open_files(scratch.to_owned());
    opened.map_err(|error| format!("{}: {error}", backup.folder.backup(backup.manifest.number).display()))
}
