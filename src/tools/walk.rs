//! Going through a directory of the workspace and everything beneath it, within bounds.
//!
//! Names come in order, so that the same tree gives the same text. Symbolic links are reported and not followed, so that
//! nothing is seen twice. `.git` is left out: it is large, and it is the git tool's business. Directories that cannot be read
//! are counted, not an error: the rest is still useful.

use std::ops::ControlFlow;
use std::vec;

use crate::host::Deadline;
use crate::host::workspace::{Directory, Entry, Kind};

/// How many names are looked at. At about 100 bytes each the list stays below 10 MB, and a local disk gives them in a
/// second.
pub const WALK_ENTRIES_MAX: usize = 100_000;
/// How deep it goes; each level keeps a descriptor open.
pub const WALK_DEPTH_MAX: usize = 64;

/// What kept a walk from seeing everything.
#[derive(Debug, Default, PartialEq)]
pub struct Missed {
    /// There were more names than [`WALK_ENTRIES_MAX`].
    pub entries_max_reached: bool,
    /// The deadline passed.
    pub timed_out: bool,
    /// Directories deeper than [`WALK_DEPTH_MAX`].
    pub too_deep: usize,
    /// Directories that could not be opened or read.
    pub unreadable: usize,
}

impl Missed {
    /// A line for each thing that was missed, saying what to do about it.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.entries_max_reached {
            notes.push(format!(
                "[stopped after {WALK_ENTRIES_MAX} names; give a subdirectory as path to see the others]"
            ));
        }
        if self.timed_out {
            notes.push("[stopped because it took too long; give a subdirectory as path]".to_owned());
        }
        if self.too_deep > 0 {
            let count = self.too_deep;
            notes.push(format!("[{count} directories deeper than {WALK_DEPTH_MAX} levels left out; give one as path]"));
        }
        if self.unreadable > 0 {
            notes.push(format!("[{} directories left out that cannot be read]", self.unreadable));
        }
        notes
    }
}

/// Calls `visit` with everything beneath `start` except directories, until it breaks: the directory and the name in it.
pub fn walk(
    start: Directory,
    deadline: Deadline,
    mut visit: impl FnMut(&Directory, &Entry) -> ControlFlow<()>,
) -> Missed {
    walk_choosing(start, deadline, |directory, entry| match entry.kind {
        Kind::Directory => Step::GoOn,
        _ => match visit(directory, entry) {
            ControlFlow::Continue(()) => Step::GoOn,
            ControlFlow::Break(()) => Step::Stop,
        },
    })
}

/// What to do after a name has been seen.
#[derive(Clone, Copy, PartialEq)]
pub enum Step {
    GoOn,
    /// Of a directory: do not look into it.
    PassOver,
    Stop,
}

/// As [`walk`], and `visit` sees directories too, before what is in them.
pub fn walk_choosing(
    start: Directory,
    deadline: Deadline,
    mut visit: impl FnMut(&Directory, &Entry) -> Step,
) -> Missed {
    let mut missed = Missed::default();
    let mut entries_left = WALK_ENTRIES_MAX;
    let mut levels: Vec<(Directory, vec::IntoIter<Entry>)> = Vec::new();
    levels.extend(list(start, &mut entries_left, &mut missed));
    while let Some((directory, entries)) = levels.last_mut() {
        if deadline.has_passed() {
            missed.timed_out = true;
            break;
        }
        let Some(entry) = entries.next() else {
            levels.pop();
            continue;
        };
        match visit(directory, &entry) {
            Step::Stop => break,
            Step::GoOn if entry.kind == Kind::Directory => {}
            Step::GoOn | Step::PassOver => continue,
        }
        let opened = directory.open_directory(&entry.name);
        match opened {
            Ok(_) if levels.len() >= WALK_DEPTH_MAX => missed.too_deep += 1,
            Ok(next) => levels.extend(list(next, &mut entries_left, &mut missed)),
            Err(_) => missed.unreadable += 1,
        }
    }
    missed
}

/// The names in `directory`, in order, as far as they may still be looked at.
fn list(
    directory: Directory,
    entries_left: &mut usize,
    missed: &mut Missed,
) -> Option<(Directory, vec::IntoIter<Entry>)> {
    let Ok(mut found) = directory.entries(*entries_left) else {
        missed.unreadable += 1;
        return None;
    };
    missed.entries_max_reached |= found.has_more;
    *entries_left -= found.entries.len();
    found.entries.retain(|entry| entry.name != ".git");
    found.sort();
    Some((directory, found.entries.into_iter()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::host::workspace::Workspace;
    use crate::testing::TestDirectory;

    fn walked(place: &TestDirectory, deadline: Deadline) -> (Vec<String>, Missed) {
        let start = Workspace::open(place.path()).unwrap().open_directory(Path::new(".")).unwrap();
        let mut paths = Vec::new();
        let missed = walk(start, deadline, |directory, entry| {
            paths.push(directory.path().join(&entry.name).to_str().unwrap().to_owned());
            ControlFlow::Continue(())
        });
        (paths, missed)
    }

    fn soon_enough() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    #[test]
    fn everything_comes_in_order_once() {
        let place = TestDirectory::new();
        for name in ["b/two", "a", "b/one", "c/d/e", ".git/config", "x/.git/HEAD", ".hidden"] {
            place.write(name, "");
        }
        symlink(".", place.join("around")).unwrap();
        symlink("/", place.join("root")).unwrap();
        let (paths, missed) = walked(&place, soon_enough());
        assert_eq!(paths, [".hidden", "a", "around", "b/one", "b/two", "c/d/e", "root"]);
        assert_eq!((missed.notes(), missed), (Vec::new(), Missed::default()));
    }

    #[test]
    fn a_passed_deadline_stops_it_and_is_told() {
        let place = TestDirectory::new();
        place.write("a", "");
        let (paths, missed) = walked(&place, Deadline::after(Duration::ZERO));
        assert!(paths.is_empty() && missed.timed_out && missed.notes().len() == 1);
    }

    #[test]
    fn depth_is_bounded_and_told() {
        let place = TestDirectory::new();
        place.write("d/".repeat(WALK_DEPTH_MAX - 1) + "file", "");
        place.write("d/".repeat(WALK_DEPTH_MAX + 20) + "file", "");
        let (paths, missed) = walked(&place, soon_enough());
        assert_eq!((paths.len(), missed.too_deep), (1, 1));
    }

    #[test]
    fn the_number_of_names_is_bounded_and_told() {
        let place = TestDirectory::new();
        let start = Workspace::open(place.path()).unwrap().open_directory(Path::new(".")).unwrap();
        place.write("a", "");
        place.write("b", "");
        let mut missed = Missed::default();
        let mut entries_left = 1;
        let (_, entries) = list(start, &mut entries_left, &mut missed).unwrap();
        assert_eq!((entries.len(), entries_left, missed.entries_max_reached), (1, 0, true));
        assert!(missed.notes().join("").contains("100000 names"));
    }

    #[test]
    fn a_visitor_may_end_it() {
        let place = TestDirectory::new();
        place.write("a", "");
        place.write("b", "");
        let start = Workspace::open(place.path()).unwrap().open_directory(Path::new(".")).unwrap();
        let mut count = 0;
        walk(start, soon_enough(), |_, _| {
            count += 1;
            ControlFlow::Break(())
        });
        assert_eq!(count, 1);
    }
}
