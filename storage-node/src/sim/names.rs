//! The names on the simulated disk: each folder has its durable names and a list of unsynced changes. Folders have
//! numbers, as on a real disk: one that is renamed keeps what is in it, and one that is made where another was removed
//! is not that one, whatever of both a power failure keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Number of the folder that holds all others.
const ROOT: usize = 0;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Folder(usize),
    File(usize),
}

/// What happened to the names of one folder.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Made(OsString, Node),
    Gone(OsString),
    Renamed(OsString, OsString),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<OsString, Node>) {
        match self {
            Self::Made(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Gone(name) => drop(names.remove(name)),
            Self::Renamed(from, to) => {
                // The file may have vanished before its new name became durable.
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Folder {
    now: BTreeMap<OsString, Node>,
    durable: BTreeMap<OsString, Node>,
    unsynced: Vec<NameChange>,
}

/// All folders, and what is in them.
#[derive(Debug, Default)]
pub(super) struct Names {
    root: PathBuf,
    /// By number. One that has no name any more may get it back when power fails.
    folders: Vec<Folder>,
}

impl Names {
    /// Nothing is in this folder, whose own name is durable.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), folders: vec![Folder::default()] }
    }

    /// What stands at this path.
    pub fn node(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Folder(ROOT);
        for name in path.strip_prefix(&self.root).ok()? {
            let Node::Folder(folder) = node else { return None };
            node = *self.folders[folder].now.get(name)?;
        }
        Some(node)
    }

    /// The number of a file.
    pub fn file(&self, path: &Path) -> io::Result<usize> {
        match self.node(path) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<usize> {
        match self.node(path) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The names in a folder.
    pub fn names_in(&self, folder: &Path) -> io::Result<Vec<String>> {
        let folder = self.folder(folder)?;
        let names = self.folders[folder].now.keys();
        Ok(names.filter_map(|name| name.to_str().map(str::to_owned)).collect())
    }

    /// Everything that has a name, ascending by path: a folder comes before what is in it.
    pub fn all(&self) -> Vec<(PathBuf, Node)> {
        let mut found = Vec::new();
        self.add_below(ROOT, &self.root, &mut found);
        found
    }

    fn add_below(&self, folder: usize, path: &Path, found: &mut Vec<(PathBuf, Node)>) {
        for (name, node) in &self.folders[folder].now {
            let path = path.join(name);
            found.push((path.clone(), *node));
            if let Node::Folder(below) = node {
                self.add_below(*below, &path, found);
            }
        }
    }

    pub fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        let (above, name) = self.place(path)?;
        let node = Node::Folder(self.folders.len());
        self.folders.push(Folder::default());
        self.change(above, NameChange::Made(name, node));
        Ok(())
    }

    pub fn make_file(&mut self, path: &Path, file: usize) -> io::Result<()> {
        let (above, name) = self.place(path)?;
        self.change(above, NameChange::Made(name, Node::File(file)));
        Ok(())
    }

    /// Of a file, or of a folder in which nothing is left.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (above, name) = self.place(path)?;
        self.change(above, NameChange::Gone(name));
        Ok(())
    }

    /// Within one folder.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ((above, name), (above_new, new_name)) = (self.place(from)?, self.place(to)?);
        assert_eq!(above, above_new, "nothing is moved between folders");
        self.change(above, NameChange::Renamed(name, new_name));
        Ok(())
    }

    /// The folder in which a name stands, and the name.
    fn place(&self, path: &Path) -> io::Result<(usize, OsString)> {
        let (above, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::NotFound)?;
        Ok((self.folder(above)?, name.to_owned()))
    }

    fn change(&mut self, folder: usize, change: NameChange) {
        let folder = &mut self.folders[folder];
        change.apply(&mut folder.now);
        folder.unsynced.push(change);
    }

    /// What happened last to the names of a folder since its last sync.
    pub fn last_change(&self, folder: &Path) -> Option<&NameChange> {
        let folder = self.folder(folder).ok()?;
        self.folders[folder].unsynced.last()
    }

    /// All names in this folder are durable.
    pub fn sync(&mut self, folder: &Path) -> io::Result<()> {
        let folder = self.folder(folder)?;
        let Folder { durable, unsynced, .. } = &mut self.folders[folder];
        unsynced.drain(..).for_each(|change| change.apply(durable));
        Ok(())
    }

    /// Power fails. `kept`: of so many unsynced changes of a folder, how many had reached the disk; they are the first.
    pub fn crash(&mut self, mut kept: impl FnMut(usize) -> usize) {
        for folder in self.by_path() {
            let Folder { durable, unsynced, .. } = &mut self.folders[folder];
            let changes = std::mem::take(unsynced);
            if !changes.is_empty() {
                changes[..kept(changes.len())].iter().for_each(|change| change.apply(durable));
            }
        }
        // What stands in a folder that has no name is not found any more.
        self.folders.iter_mut().for_each(|folder| folder.now.clone_from(&folder.durable));
    }

    /// All folders: those that have names by their paths, then those that have none.
    fn by_path(&self) -> Vec<usize> {
        let mut folders = vec![ROOT];
        folders.extend(self.all().iter().filter_map(|(_, node)| match node {
            Node::Folder(folder) => Some(*folder),
            Node::File(_) => None,
        }));
        let named: BTreeSet<usize> = folders.iter().copied().collect();
        folders.extend((0..self.folders.len()).filter(|folder| !named.contains(folder)));
        folders
    }

    /// Somebody takes a name away, on the disk itself.
    pub fn lose(&mut self, path: &Path) {
        let Ok((above, name)) = self.place(path) else { return };
        self.folders[above].now.remove(&name);
        self.folders[above].durable.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPS_NOTHING: fn(usize) -> usize = |_| 0;

    fn path(name: &str) -> PathBuf {
        Path::new("/root").join(name)
    }

    /// A folder with a file `durable` in it; their names are.
    fn with_file(folder: &str) -> Names {
        let mut names = Names::new(Path::new("/root"));
        names.make_folder(&path(folder)).expect("it is made");
        names.make_file(&path(folder).join("durable"), 7).expect("it is made");
        names.sync(&path(folder)).expect("it syncs");
        names.sync(&path("")).expect("it syncs");
        names
    }

    fn paths(names: &Names) -> Vec<PathBuf> {
        names.all().into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_folder_that_is_renamed_keeps_what_is_in_it_under_either_name() {
        let mut names = with_file("old");
        names.rename(&path("old"), &path("new")).expect("it is renamed");
        names.make_file(&path("new/later"), 8).expect("it is made");
        names.sync(&path("new")).expect("it syncs");
        assert_eq!(paths(&names), ["new", "new/durable", "new/later"].map(path));
        names.crash(KEEPS_NOTHING);
        assert_eq!(paths(&names), ["old", "old/durable", "old/later"].map(path));
    }

    #[test]
    fn a_folder_that_is_made_where_another_was_removed_is_another_one() {
        let mut names = with_file("folder");
        names.remove(&path("folder/durable")).expect("it goes");
        names.remove(&path("folder")).expect("it goes");
        names.make_folder(&path("folder")).expect("it is made");
        names.make_file(&path("folder/new"), 8).expect("it is made");
        names.sync(&path("folder")).expect("it syncs");
        assert_eq!(paths(&names), ["folder", "folder/new"].map(path));
        names.crash(KEEPS_NOTHING);
        assert_eq!(paths(&names), ["folder", "folder/durable"].map(path));
    }

    #[test]
    fn what_is_in_a_folder_without_a_durable_name_is_gone() {
        let mut names = Names::new(Path::new("/root"));
        names.make_folder(&path("folder")).expect("it is made");
        names.make_file(&path("folder/file"), 7).expect("it is made");
        names.sync(&path("folder")).expect("it syncs");
        names.crash(KEEPS_NOTHING);
        assert!(paths(&names).is_empty());
        assert!(names.file(&path("folder/file")).is_err());
    }
}
