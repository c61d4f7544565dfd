//! Files that a model names, confined beneath one directory, the workspace.
//!
//! The kernel does the confining: `openat2` with `RESOLVE_BENEATH` refuses, at the moment of opening, every path, symbolic
//! link or race that would lead out. Where it is missing (before Linux 5.6, some sandboxes and seccomp profiles) the path
//! is walked down one name at a time with `O_NOFOLLOW`; then symbolic links are refused, and the error says so. Nothing
//! here compares resolved paths: between comparing and opening, anything can be swapped. It knows nothing of tools.
//!
//! Files of procfs and sysfs are refused even when the workspace is `/`: `/proc/self/environ` holds our keys.
//!
//! What may surprise: `..` is taken off the text before the kernel sees it, so `link/../x` is `x` beside the link, not
//! beside what the link points to.

use std::ffi::{CStr, CString, OsStr, OsString, c_int};
use std::fmt;
use std::fs::{self, File, FileType, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::sys;

/// More names in a path than this are a mistake; the kernel itself stops at 4096 bytes.
const PATH_NAMES_MAX: usize = 256;
/// How often an open is tried again that a rename elsewhere disturbed (`EAGAIN` of `openat2`).
const OPEN_TRIES_MAX: u32 = 64;
/// How many names for a temporary file are tried; more than one is needed only after a crash.
const TEMPORARY_NAMES_MAX: u32 = 16;
/// Of a new file and a new directory, before umask.
const NEW_FILE_MODE: u32 = 0o644;
const NEW_DIRECTORY_MODE: u32 = 0o755;
/// Of a path in an error message; longer ones are cut.
const SHOWN_PATH_CHARS_MAX: usize = 300;
/// Directory entries are read in pieces of this size.
const ENTRIES_BUFFER_BYTES: usize = 32 * 1024;

/// The directory that a model's paths cannot leave.
#[derive(Debug)]
pub struct Workspace {
    root: OwnedFd,
    path: PathBuf,
    /// The absolute paths that mean the root: as configured, and with its symbolic links resolved, which is what a shell
    /// in it prints.
    spellings: Vec<PathBuf>,
    resolution: Resolution,
}

/// Who makes sure that a path stays beneath the root.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Resolution {
    Kernel,
    NameByName,
}

/// What a name in the workspace stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    File,
    Directory,
    SymbolicLink,
    Fifo,
    Socket,
    Device,
    Other,
}

/// Kind and size of what a path names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metadata {
    pub kind: Kind,
    /// Of a regular file; of the others whatever the file system says.
    pub bytes: u64,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: OsString,
    pub kind: Kind,
}

/// The names in a directory, in no order, without `.` and `..`.
#[derive(Debug, PartialEq)]
pub struct Entries {
    pub entries: Vec<Entry>,
    /// There were more than asked for.
    pub has_more: bool,
}

impl Entries {
    /// By name.
    pub fn sort(&mut self) {
        self.entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Written {
    New,
    Replaced,
}

/// A directory in the workspace, held open: what happens to its path no longer matters. Its names are never followed when
/// they are symbolic links.
#[derive(Debug)]
pub struct Directory {
    file: OwnedFd,
    /// Relative to the workspace; for messages.
    path: PathBuf,
}

impl Workspace {
    /// Opens the directory `root`, which must exist, and finds out what the kernel can do.
    pub fn open(root: &Path) -> Result<Workspace, WorkspaceError> {
        let mut workspace = Workspace::open_name_by_name(root)?;
        if sys::open_beneath(workspace.root.as_fd(), c".", sys::O_PATH | sys::O_DIRECTORY).is_ok() {
            workspace.resolution = Resolution::Kernel;
        }
        Ok(workspace)
    }

    /// As where the kernel has no `openat2`.
    fn open_name_by_name(root: &Path) -> Result<Workspace, WorkspaceError> {
        let failed = |cause| WorkspaceError::Root { path: shown(root), cause };
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(sys::O_PATH | sys::O_DIRECTORY).open(root).map_err(failed)?;
        let path = std::path::absolute(root).map_err(failed)?;
        let mut spellings = vec![path.clone(), fs::canonicalize(root).map_err(failed)?];
        spellings.dedup();
        refuse_kernel_files(file.as_fd(), root)?;
        Ok(Workspace { root: OwnedFd::from(file), path, spellings, resolution: Resolution::NameByName })
    }

    /// Opens a regular file for reading. Never waits for a FIFO's other side and never opens a device.
    pub fn open_file(&self, path: &Path) -> Result<File, WorkspaceError> {
        let names = self.names(path)?;
        // Looking first: merely opening some devices does something. Looking again: it may have been swapped.
        require_file(path, self.open_names(path, &names, sys::O_PATH)?)?;
        let flags = sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY;
        require_file(path, self.open_names(path, &names, flags)?)
    }

    /// What `path` is, after following symbolic links that stay inside.
    pub fn metadata(&self, path: &Path) -> Result<Metadata, WorkspaceError> {
        let names = self.names(path)?;
        metadata_of(path, &File::from(self.open_names(path, &names, sys::O_PATH)?))
    }

    /// Opens a directory.
    pub fn open_directory(&self, path: &Path) -> Result<Directory, WorkspaceError> {
        let names = self.names(path)?;
        let file = File::from(self.open_names(path, &names, sys::O_PATH)?);
        let found = metadata_of(path, &file)?.kind;
        if found != Kind::Directory {
            return Err(WorkspaceError::WrongKind { path: shown(path), found, wanted: Kind::Directory });
        }
        let path = names.iter().map(|name| OsStr::from_bytes(name.as_bytes())).collect();
        Ok(Directory { file: OwnedFd::from(file), path })
    }

    /// Makes `content` the whole content of the file `path`, in one step: others see the old content or the new one.
    /// Directories that are missing on the way are made. An existing file keeps its mode and, where we are allowed to, its
    /// owner; hard links to it and extended attributes are lost. A symbolic link is not written through.
    pub fn write_file(&self, path: &Path, content: &[u8]) -> Result<Written, WorkspaceError> {
        let names = self.names(path)?;
        let Some((name, parents)) = names.split_last() else {
            return Err(WorkspaceError::WrongKind { path: shown(path), found: Kind::Directory, wanted: Kind::File });
        };
        let parent = self.make_directories(path, parents)?;
        let existing = existing_file(parent.as_fd(), name, path)?;
        replace(parent.as_fd(), name, content, existing.as_ref()).map_err(|cause| failed(path, "write", cause))?;
        Ok(if existing.is_some() { Written::Replaced } else { Written::New })
    }

    /// The names that lead from the root to `path`; none for the root itself.
    fn names(&self, path: &Path) -> Result<Vec<CString>, WorkspaceError> {
        let invalid = |reason| WorkspaceError::Invalid { path: shown(path), reason };
        if path.as_os_str().is_empty() {
            return Err(invalid("is empty, name a file or a directory"));
        }
        let outside = || WorkspaceError::Outside { path: shown(path), root: shown(&self.path) };
        let relative = match self.spellings.iter().find_map(|root| path.strip_prefix(root).ok()) {
            Some(relative) => relative,
            None if path.is_absolute() => return Err(outside()),
            None => path,
        };
        let mut names = Vec::new();
        for component in relative.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => drop(names.pop().ok_or_else(outside)?),
                Component::Normal(name) => {
                    names.push(CString::new(name.as_bytes()).map_err(|_| invalid("holds a NUL byte, leave it out"))?);
                }
                Component::RootDir | Component::Prefix(_) => return Err(outside()),
            }
        }
        if names.len() > PATH_NAMES_MAX {
            return Err(invalid("has too many names in it, use a shorter path"));
        }
        Ok(names)
    }

    /// Opens what `names` lead to, beneath the root. `path` is for messages.
    fn open_names(&self, path: &Path, names: &[CString], flags: c_int) -> Result<OwnedFd, WorkspaceError> {
        let file = match self.resolution {
            Resolution::Kernel => self.open_by_kernel(path, names, flags)?,
            Resolution::NameByName => self.open_name_after_name(path, names, flags)?,
        };
        refuse_kernel_files(file.as_fd(), path)?;
        Ok(file)
    }

    fn open_by_kernel(&self, path: &Path, names: &[CString], flags: c_int) -> Result<OwnedFd, WorkspaceError> {
        let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let relative = match names {
            [] => c".".to_owned(),
            _ => CString::new(bytes.join(&b'/')).expect("joined from C strings, which hold no NUL byte"),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let cause = match sys::open_beneath(self.root.as_fd(), &relative, flags) {
                Ok(file) => return Ok(file),
                Err(cause) => cause,
            };
            return Err(match cause.raw_os_error() {
                Some(sys::EAGAIN) if tries < OPEN_TRIES_MAX => continue,
                Some(sys::EXDEV) => WorkspaceError::LinkOutside { path: shown(path), root: shown(&self.path) },
                _ => failed(path, "open", cause),
            });
        }
    }

    fn open_name_after_name(&self, path: &Path, names: &[CString], flags: c_int) -> Result<OwnedFd, WorkspaceError> {
        let Some((last, parents)) = names.split_last() else {
            return sys::open_at(self.root.as_fd(), c".", flags, 0).map_err(|cause| failed(path, "open", cause));
        };
        let mut directory: Option<OwnedFd> = None;
        for name in parents {
            let from = directory.as_ref().unwrap_or(&self.root).as_fd();
            directory = Some(open_no_follow(from, name, sys::O_PATH | sys::O_DIRECTORY, path)?);
        }
        open_no_follow(directory.as_ref().unwrap_or(&self.root).as_fd(), last, flags, path)
    }

    /// Opens the directory that `names` lead to and makes what is missing of it.
    fn make_directories(&self, path: &Path, names: &[CString]) -> Result<OwnedFd, WorkspaceError> {
        let flags = sys::O_PATH | sys::O_DIRECTORY;
        let mut present = names;
        let mut directory = loop {
            match (self.open_names(path, present, flags), present.split_last()) {
                (Err(WorkspaceError::NotFound { .. }), Some((_, shorter))) => present = shorter,
                (result, _) => break result?,
            }
        };
        for end in present.len()..names.len() {
            // Opened from the root again, not from `directory`: a link inside the workspace may lead upwards.
            let (Some(name), Some(so_far)) = (names.get(end), names.get(..=end)) else { break };
            match sys::make_directory_at(directory.as_fd(), name, NEW_DIRECTORY_MODE) {
                Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(path, "make the directories of", cause));
                }
                _ => directory = self.open_names(path, so_far, flags)?,
            }
        }
        Ok(directory)
    }
}

impl Directory {
    /// Relative to the workspace, empty for the workspace itself. A symbolic link on the way is still in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it, at most `entries_max`.
    pub fn entries(&self, entries_max: usize) -> Result<Entries, WorkspaceError> {
        let cannot_read = |cause| failed(&self.path, "read the directory", cause);
        let flags = sys::O_RDONLY | sys::O_DIRECTORY;
        let reader = sys::open_at(self.file.as_fd(), c".", flags, 0).map_err(cannot_read)?;
        let mut buffer = vec![0; ENTRIES_BUFFER_BYTES];
        let mut found = Entries { entries: Vec::new(), has_more: false };
        loop {
            let length = sys::read_entries(reader.as_fd(), &mut buffer).map_err(cannot_read)?;
            if length == 0 {
                return Ok(found);
            }
            for (name, type_code) in parse_entries(buffer.get(..length).unwrap_or_default()) {
                if found.entries.len() == entries_max {
                    return Ok(Entries { has_more: true, ..found });
                }
                let kind = kind_of_type_code(type_code).unwrap_or_else(|| self.kind_of(&name));
                found.entries.push(Entry { name, kind });
            }
        }
    }

    /// What `name` in it is; a symbolic link is not followed.
    pub fn metadata(&self, name: &OsStr) -> Result<Metadata, WorkspaceError> {
        let path = self.path.join(name);
        let file = sys::open_at(self.file.as_fd(), &single_name(name)?, sys::O_PATH | sys::O_NOFOLLOW, 0);
        metadata_of(&path, &File::from(file.map_err(|cause| failed(&path, "look at", cause))?))
    }

    /// Opens the directory `name` in it.
    pub fn open_directory(&self, name: &OsStr) -> Result<Directory, WorkspaceError> {
        let path = self.path.join(name);
        let flags = sys::O_PATH | sys::O_DIRECTORY;
        let file = open_no_follow(self.file.as_fd(), &single_name(name)?, flags, &path)?;
        refuse_kernel_files(file.as_fd(), &path)?;
        Ok(Directory { file, path })
    }

    /// Opens the regular file `name` in it for reading, as carefully as [`Workspace::open_file`].
    pub fn open_file(&self, name: &OsStr) -> Result<File, WorkspaceError> {
        let path = self.path.join(name);
        let name = single_name(name)?;
        let file = open_no_follow(self.file.as_fd(), &name, sys::O_PATH, &path)?;
        refuse_kernel_files(file.as_fd(), &path)?;
        require_file(&path, file)?;
        let flags = sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY;
        let file = open_no_follow(self.file.as_fd(), &name, flags, &path)?;
        refuse_kernel_files(file.as_fd(), &path)?;
        require_file(&path, file)
    }

    fn kind_of(&self, name: &OsStr) -> Kind {
        // It may have been removed since it was listed.
        self.metadata(name).map_or(Kind::Other, |metadata| metadata.kind)
    }
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Kind {
        match kind {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::SymbolicLink,
            kind if kind.is_fifo() => Kind::Fifo,
            kind if kind.is_socket() => Kind::Socket,
            kind if kind.is_block_device() || kind.is_char_device() => Kind::Device,
            _ => Kind::Other,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::File => "a regular file",
            Kind::Directory => "a directory",
            Kind::SymbolicLink => "a symbolic link",
            Kind::Fifo => "a FIFO",
            Kind::Socket => "a socket",
            Kind::Device => "a device",
            Kind::Other => "something unknown",
        })
    }
}

/// Why a path of the workspace could not be used. Paths are as they were given, non-UTF-8 replaced, cut when very long.
#[derive(Debug)]
pub enum WorkspaceError {
    /// The workspace itself cannot be opened.
    Root {
        path: String,
        cause: io::Error,
    },
    /// Not a path at all.
    Invalid {
        path: String,
        reason: &'static str,
    },
    /// The text of the path leads out.
    Outside {
        path: String,
        root: String,
    },
    /// A symbolic link on the path leads out, or is absolute.
    LinkOutside {
        path: String,
        root: String,
    },
    /// A symbolic link where none is followed.
    Link {
        path: String,
        name: String,
    },
    /// Part of procfs or sysfs.
    KernelFile {
        path: String,
    },
    NotFound {
        path: String,
    },
    WrongKind {
        path: String,
        found: Kind,
        wanted: Kind,
    },
    /// The kernel said no.
    Failed {
        path: String,
        action: &'static str,
        cause: io::Error,
    },
}

impl fmt::Display for WorkspaceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkspaceError::Root { path, cause } => {
                write!(formatter, "{path}: cannot be the workspace: {cause}, name an existing directory")
            }
            WorkspaceError::Invalid { path, reason } => write!(formatter, "{path}: {reason}"),
            WorkspaceError::Outside { path, root } => {
                write!(formatter, "{path}: lies outside the workspace, name a path beneath {root}")
            }
            WorkspaceError::LinkOutside { path, root } => write!(
                formatter,
                "{path}: leads out of the workspace through a symbolic link, name a path that stays beneath {root}"
            ),
            WorkspaceError::Link { path, name } => {
                write!(
                    formatter,
                    "{path}: {name} is a symbolic link, which is not followed here, name what it points to"
                )
            }
            WorkspaceError::KernelFile { path } => {
                write!(formatter, "{path}: belongs to the kernel (procfs or sysfs), name a file on a disk")
            }
            WorkspaceError::NotFound { path } => {
                write!(formatter, "{path}: does not exist, look at the names in its directory")
            }
            WorkspaceError::WrongKind { path, found, wanted } => {
                write!(formatter, "{path}: is {found}, name {wanted}")
            }
            WorkspaceError::Failed { path, action, cause } => {
                write!(formatter, "{path}: cannot {action} it: {cause}{}", advice(cause))
            }
        }
    }
}

impl std::error::Error for WorkspaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WorkspaceError::Root { cause, .. } | WorkspaceError::Failed { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// `path` for a message: one line, valid text, not too long.
pub fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut shown: String = text.chars().take(SHOWN_PATH_CHARS_MAX).flat_map(escape_control).collect();
    if text.chars().nth(SHOWN_PATH_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A control character, such as a line end in a file's name, as it would be written in source code.
fn escape_control(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let plain = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => ", use a path that this user may use",
        io::ErrorKind::ReadOnlyFilesystem => ", use a path on a volume that can be written",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ", remove what is not needed",
        io::ErrorKind::NotADirectory => ", a name before the last one is not a directory",
        io::ErrorKind::InvalidFilename => ", use shorter names",
        _ => "",
    }
}

fn failed(path: &Path, action: &'static str, cause: io::Error) -> WorkspaceError {
    match cause.kind() {
        io::ErrorKind::NotFound => WorkspaceError::NotFound { path: shown(path) },
        _ => WorkspaceError::Failed { path: shown(path), action, cause },
    }
}

/// Opens one name, which is no path, and fails when it is a symbolic link. `path` is for messages.
fn open_no_follow(from: BorrowedFd<'_>, name: &CStr, flags: c_int, path: &Path) -> Result<OwnedFd, WorkspaceError> {
    let link =
        || WorkspaceError::Link { path: shown(path), name: shown(Path::new(OsStr::from_bytes(name.to_bytes()))) };
    let is_link = |file: &File| file.metadata().is_ok_and(|metadata| metadata.is_symlink());
    match sys::open_at(from, name, flags | sys::O_NOFOLLOW, 0).map(File::from) {
        // With O_PATH the link itself is opened; with O_DIRECTORY it is "not a directory"; else "too many links".
        Ok(file) if flags & sys::O_PATH != 0 && is_link(&file) => Err(link()),
        Ok(file) => Ok(OwnedFd::from(file)),
        Err(cause) if matches!(cause.raw_os_error(), Some(sys::ENOTDIR | sys::ELOOP)) => {
            let found = sys::open_at(from, name, sys::O_PATH | sys::O_NOFOLLOW, 0).map(File::from);
            Err(if found.is_ok_and(|file| is_link(&file)) { link() } else { failed(path, "open", cause) })
        }
        Err(cause) => Err(failed(path, "open", cause)),
    }
}

/// `name` as one name in a directory.
fn single_name(name: &OsStr) -> Result<CString, WorkspaceError> {
    let invalid = |reason| WorkspaceError::Invalid { path: shown(Path::new(name)), reason };
    if matches!(name.as_bytes(), b"" | b"." | b"..") || name.as_bytes().contains(&b'/') {
        return Err(invalid("is not one name in a directory"));
    }
    CString::new(name.as_bytes()).map_err(|_| invalid("holds a NUL byte, leave it out"))
}

fn metadata_of(path: &Path, file: &File) -> Result<Metadata, WorkspaceError> {
    let metadata = file.metadata().map_err(|cause| failed(path, "look at", cause))?;
    Ok(Metadata { kind: Kind::from(metadata.file_type()), bytes: metadata.len() })
}

fn require_file(path: &Path, file: OwnedFd) -> Result<File, WorkspaceError> {
    let file = File::from(file);
    match metadata_of(path, &file)?.kind {
        Kind::File => Ok(file),
        found => Err(WorkspaceError::WrongKind { path: shown(path), found, wanted: Kind::File }),
    }
}

fn refuse_kernel_files(file: BorrowedFd<'_>, path: &Path) -> Result<(), WorkspaceError> {
    match sys::filesystem_type(file).map_err(|cause| failed(path, "look at", cause))? {
        sys::PROC_SUPER_MAGIC | sys::SYSFS_MAGIC => Err(WorkspaceError::KernelFile { path: shown(path) }),
        _ => Ok(()),
    }
}

/// What is known of the regular file that a write replaces; `None` when there is nothing yet.
fn existing_file(parent: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<Option<fs::Metadata>, WorkspaceError> {
    match open_no_follow(parent, name, sys::O_PATH, path) {
        Err(WorkspaceError::NotFound { .. }) => return Ok(None),
        found => require_file(path, found?)?,
    };
    // A rename needs no permission on the file itself. Opening it for writing asks for that, and changes nothing.
    let flags = sys::O_WRONLY | sys::O_NONBLOCK | sys::O_NOCTTY;
    let file = require_file(path, open_no_follow(parent, name, flags, path)?)?;
    file.metadata().map(Some).map_err(|cause| failed(path, "look at", cause))
}

/// Writes a temporary file beside `name` and renames it to `name`. Whatever fails, the temporary file is removed.
fn replace(parent: BorrowedFd<'_>, name: &CStr, content: &[u8], existing: Option<&fs::Metadata>) -> io::Result<()> {
    let temporary = Temporary::new(parent, if existing.is_some() { 0o600 } else { NEW_FILE_MODE })?;
    let mut file = &temporary.file;
    if let Some(metadata) = existing {
        // Only root may give files away; keeping the owner is not worth failing for. Before the mode, which it clears.
        let _ = fchown(file, Some(metadata.uid()), Some(metadata.gid()));
        file.set_permissions(Permissions::from_mode(metadata.mode() & 0o777))?;
    }
    file.write_all(content)?;
    // Without it, a crash of the machine may leave the new name with empty content.
    file.sync_all()?;
    temporary.rename(name)
}

/// A file under a name of its own, removed again unless it is renamed.
struct Temporary<'parent> {
    parent: BorrowedFd<'parent>,
    name: CString,
    file: File,
    is_renamed: bool,
}

impl<'parent> Temporary<'parent> {
    fn new(parent: BorrowedFd<'parent>, mode: u32) -> io::Result<Temporary<'parent>> {
        let moment = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL | sys::O_NOFOLLOW;
        let mut attempt = 0;
        loop {
            // In containers our process id is 1, also next door on a shared volume; O_EXCL settles the rest.
            let name = format!(".thoughtmesh-{}-{moment:08x}-{attempt}.tmp", std::process::id());
            let name = CString::new(name).expect("made of digits and letters, no NUL byte");
            attempt += 1;
            match sys::open_at(parent, &name, flags, mode) {
                Ok(file) => return Ok(Temporary { parent, name, file: File::from(file), is_renamed: false }),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && attempt < TEMPORARY_NAMES_MAX => {}
                Err(cause) => return Err(cause),
            }
        }
    }

    fn rename(mut self, name: &CStr) -> io::Result<()> {
        sys::rename_at(self.parent, &self.name, name)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_renamed {
            // Already failing; the first error is the one to report.
            let _ = sys::unlink_at(self.parent, &self.name);
        }
    }
}

/// The names and type codes in what [`sys::read_entries`] filled, `.` and `..` left out.
fn parse_entries(mut bytes: &[u8]) -> Vec<(OsString, u8)> {
    const LENGTH_AT: usize = 16;
    const TYPE_AT: usize = 18;
    const NAME_AT: usize = 19;
    let mut entries = Vec::new();
    while let Some(length) = bytes.get(LENGTH_AT..TYPE_AT).and_then(|field| field.try_into().ok()) {
        let length = usize::from(u16::from_ne_bytes(length));
        let (Some(record), Some(rest)) = (bytes.get(NAME_AT..length), bytes.get(length..)) else { break };
        let name = record.split(|byte| *byte == 0).next().unwrap_or_default();
        if !matches!(name, b"" | b"." | b"..") {
            let type_code = bytes.get(TYPE_AT).copied().unwrap_or_default();
            entries.push((OsString::from_vec(name.to_vec()), type_code));
        }
        bytes = rest;
    }
    entries
}

/// `DT_*` of `dirent.h`; `None` when the file system does not tell.
fn kind_of_type_code(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Fifo),
        2 | 6 => Some(Kind::Device),
        4 => Some(Kind::Directory),
        8 => Some(Kind::File),
        10 => Some(Kind::SymbolicLink),
        12 => Some(Kind::Socket),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::host::Deadline;
    use crate::host::process::{self, Process};
    use crate::testing::{Random, TestDirectory, check_property};

    /// A workspace `ws` with a secret beside it, opened in both ways. Every attack is tried on both.
    struct Fixture {
        place: TestDirectory,
        workspaces: [Workspace; 2],
    }

    impl Fixture {
        fn new() -> Fixture {
            let place = TestDirectory::new();
            place.write("secret.txt", "SECRET");
            place.write("ws/inside.txt", "inside");
            let root = place.join("ws");
            let workspaces = [Workspace::open(&root).unwrap(), Workspace::open_name_by_name(&root).unwrap()];
            Fixture { place, workspaces }
        }

        fn link(&self, target: impl AsRef<Path>, name: &str) {
            symlink(target, self.place.join("ws").join(name)).unwrap();
        }

        /// No way of using `path` gets anywhere, and nothing appears outside.
        fn assert_unreachable(&self, path: &str) {
            let path = Path::new(path);
            for workspace in &self.workspaces {
                let mode = workspace.resolution;
                assert!(workspace.open_file(path).is_err(), "{mode:?}: read {path:?}");
                assert!(workspace.open_directory(path).is_err(), "{mode:?}: listed {path:?}");
                assert!(workspace.write_file(path, b"overwritten").is_err(), "{mode:?}: wrote {path:?}");
            }
            assert_eq!(fs::read_to_string(self.place.join("secret.txt")).unwrap(), "SECRET");
            let outside: Vec<_> = fs::read_dir(self.place.path()).unwrap().map(|entry| entry.unwrap()).collect();
            assert_eq!(outside.len(), 2, "{outside:?}");
        }

        /// The names in the workspace.
        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.place.join("ws"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    fn read(workspace: &Workspace, path: impl AsRef<Path>) -> Result<String, WorkspaceError> {
        let mut text = String::new();
        workspace.open_file(path.as_ref())?.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn the_kernel_confines_where_it_can() {
        // On a kernel without openat2 this fails, and then only the other half of these tests means anything.
        assert_eq!(Fixture::new().workspaces[0].resolution, Resolution::Kernel);
    }

    #[test]
    fn reads_by_relative_and_by_absolute_path() {
        let fixture = Fixture::new();
        let absolute = fixture.place.join("ws/inside.txt");
        for workspace in &fixture.workspaces {
            for path in ["inside.txt", "./inside.txt", "missing/../inside.txt", absolute.to_str().unwrap()] {
                assert_eq!(read(workspace, path).unwrap(), "inside", "{path}");
            }
        }
    }

    #[test]
    fn accepts_the_root_as_configured_and_as_a_shell_prints_it() {
        let fixture = Fixture::new();
        symlink(fixture.place.join("ws"), fixture.place.join("alias")).unwrap();
        for open in [Workspace::open, Workspace::open_name_by_name] {
            let workspace = open(&fixture.place.join("alias")).unwrap();
            assert_eq!(read(&workspace, fixture.place.join("alias/inside.txt")).unwrap(), "inside");
            assert_eq!(read(&workspace, fixture.place.join("ws/inside.txt")).unwrap(), "inside");
        }
    }

    #[test]
    fn dots_do_not_lead_out() {
        let fixture = Fixture::new();
        let root = fixture.place.join("ws");
        for path in ["..", "../secret.txt", "a/../../secret.txt", "./.././secret.txt", "../ws/../secret.txt"] {
            fixture.assert_unreachable(path);
            fixture.assert_unreachable(root.join(path).to_str().unwrap());
        }
    }

    #[test]
    fn absolute_paths_do_not_lead_out() {
        let fixture = Fixture::new();
        let secret = fixture.place.join("secret.txt");
        // A sibling whose name begins like the workspace's is not beneath it.
        let sibling = format!("{}-other/x", fixture.place.join("ws").display());
        for path in [secret.to_str().unwrap(), "/etc/passwd", "/", "//etc/passwd", "/proc/self/environ", &sibling] {
            fixture.assert_unreachable(path);
        }
    }

    #[test]
    fn symbolic_links_do_not_lead_out() {
        let fixture = Fixture::new();
        fixture.link(fixture.place.join("secret.txt"), "absolute");
        fixture.link("../secret.txt", "relative");
        fixture.link("relative", "chain");
        fixture.link(fixture.place.path(), "directory");
        fixture.link("..", "up");
        fixture.link("loop", "loop");
        fixture.link("../new.txt", "dangling");
        fixture.link("/proc/self/cwd", "magic");
        for path in ["absolute", "relative", "chain", "directory/secret.txt", "up/secret.txt", "loop", "dangling"] {
            fixture.assert_unreachable(path);
        }
        for path in ["magic/inside.txt", "magic", "directory/new/file", "up/new/file", "up/ws/../secret.txt/x"] {
            fixture.assert_unreachable(path);
        }
    }

    #[test]
    fn a_link_that_stays_inside_is_followed_by_the_kernel_and_named_otherwise() {
        let fixture = Fixture::new();
        fixture.link("inside.txt", "link");
        assert_eq!(read(&fixture.workspaces[0], "link").unwrap(), "inside");
        let error = read(&fixture.workspaces[1], "link").unwrap_err().to_string();
        assert_eq!(error, "link: link is a symbolic link, which is not followed here, name what it points to");
    }

    #[test]
    fn a_write_does_not_go_through_a_link_nor_replace_it() {
        let fixture = Fixture::new();
        fixture.link("inside.txt", "link");
        for workspace in &fixture.workspaces {
            assert!(matches!(workspace.write_file(Path::new("link"), b"x"), Err(WorkspaceError::Link { .. })));
        }
        assert!(fixture.place.join("ws/link").is_symlink());
        assert_eq!(fs::read_to_string(fixture.place.join("ws/inside.txt")).unwrap(), "inside");
    }

    #[test]
    fn a_directory_swapped_for_a_link_during_the_call_does_not_lead_out() {
        let fixture = Fixture::new();
        let root = fixture.place.join("ws");
        fixture.place.write("outside/file", "SECRET");
        fixture.place.write("ws/swap/file", "inside");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // A write may make `swap` anew at any moment, so that each of these may fail.
                    let _ = fs::remove_dir_all(root.join("aside"));
                    let _ = fs::rename(root.join("swap"), root.join("aside"));
                    let _ = symlink("../outside", root.join("swap"));
                    let _ = fs::remove_file(root.join("swap"));
                    let _ = fs::rename(root.join("aside"), root.join("swap"));
                }
            });
            for round in 0..4_000 {
                let workspace = &fixture.workspaces[round % 2];
                if let Ok(text) = read(workspace, "swap/file") {
                    assert_eq!(text, "inside");
                }
                // Writes are synced to the disk, which takes its time.
                if round < 100 {
                    let _ = workspace.write_file(Path::new("swap/file"), b"inside");
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_to_string(fixture.place.join("outside/file")).unwrap(), "SECRET");
        assert_eq!(fs::read_dir(fixture.place.join("outside")).unwrap().count(), 1);
    }

    #[test]
    fn kernel_files_are_refused_even_when_the_workspace_is_the_root() {
        for open in [Workspace::open, Workspace::open_name_by_name] {
            let workspace = open(Path::new("/")).unwrap();
            let environment = format!("proc/{}/environ", std::process::id());
            for path in [environment.as_str(), "/proc/version", "proc", "sys", "proc/1"] {
                let result = workspace.metadata(Path::new(path));
                assert!(matches!(result, Err(WorkspaceError::KernelFile { .. })), "{path}: {result:?}");
            }
            for path in [environment.as_str(), "proc/self/environ", "/proc/self/maps"] {
                assert!(workspace.open_file(Path::new(path)).is_err(), "{path}");
                assert!(workspace.open_directory(Path::new(path)).is_err(), "{path}");
            }
            let root = workspace.open_directory(Path::new(".")).unwrap();
            assert!(matches!(root.open_directory(OsStr::new("proc")), Err(WorkspaceError::KernelFile { .. })));
            assert!(open(Path::new("/proc/self")).is_err());
        }
    }

    #[test]
    fn a_fifo_is_refused_without_waiting_for_its_other_side() {
        let fixture = Fixture::new();
        let made = process::run(&Process {
            program: "mkfifo".into(),
            arguments: vec!["fifo".into()],
            directory: fixture.place.join("ws"),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            stdin: Vec::new(),
            output_bytes_max: 0,
            deadline: Deadline::after(Duration::from_secs(60)),
        });
        assert!(made.unwrap().status.is_success());
        for workspace in &fixture.workspaces {
            let expected = "fifo: is a FIFO, name a regular file";
            assert_eq!(workspace.open_file(Path::new("fifo")).unwrap_err().to_string(), expected);
            assert_eq!(workspace.write_file(Path::new("fifo"), b"x").unwrap_err().to_string(), expected);
            let root = workspace.open_directory(Path::new(".")).unwrap();
            assert_eq!(root.open_file(OsStr::new("fifo")).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn devices_are_refused() {
        for open in [Workspace::open, Workspace::open_name_by_name] {
            let workspace = open(Path::new("/dev")).unwrap();
            for device in ["null", "zero"] {
                let error = workspace.open_file(Path::new(device)).unwrap_err().to_string();
                assert_eq!(error, format!("{device}: is a device, name a regular file"));
                assert!(workspace.write_file(Path::new(device), b"x").is_err());
            }
        }
    }

    #[test]
    fn directories_and_files_are_told_apart() {
        let fixture = Fixture::new();
        fixture.place.write("ws/sub/file", "x");
        for workspace in &fixture.workspaces {
            let error = workspace.open_file(Path::new("sub")).unwrap_err().to_string();
            assert_eq!(error, "sub: is a directory, name a regular file");
            let error = workspace.write_file(Path::new("sub"), b"x").unwrap_err().to_string();
            assert_eq!(error, "sub: is a directory, name a regular file");
            let error = workspace.write_file(Path::new("."), b"x").unwrap_err().to_string();
            assert_eq!(error, ".: is a directory, name a regular file");
            let error = workspace.open_directory(Path::new("inside.txt")).unwrap_err().to_string();
            assert_eq!(error, "inside.txt: is a regular file, name a directory");
            let error = read(workspace, "inside.txt/x").unwrap_err().to_string();
            assert!(error.contains("a name before the last one is not a directory"), "{error}");
            assert!(workspace.write_file(Path::new("inside.txt/x"), b"x").is_err());
            assert_eq!(workspace.metadata(Path::new("inside.txt")).unwrap().bytes, 6);
            assert!(matches!(read(workspace, "nothing"), Err(WorkspaceError::NotFound { .. })));
        }
    }

    #[test]
    fn a_new_file_gets_its_directories_and_the_usual_mode() {
        let fixture = Fixture::new();
        for (workspace, path) in fixture.workspaces.iter().zip(["a/b/c/new.txt", "d/e/f/new.txt"]) {
            assert_eq!(workspace.write_file(Path::new(path), b"new").unwrap(), Written::New);
            assert_eq!(read(workspace, path).unwrap(), "new");
            let mode = fs::metadata(fixture.place.join("ws").join(path)).unwrap().mode() & 0o777;
            assert_eq!(mode & !0o644, 0, "{mode:o}");
            assert_eq!(mode & 0o600, 0o600, "{mode:o}");
        }
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_nothing_beside_it() {
        let fixture = Fixture::new();
        let path = fixture.place.join("ws/inside.txt");
        for (workspace, mode) in fixture.workspaces.iter().zip([0o755, 0o640]) {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(workspace.write_file(Path::new("inside.txt"), b"").unwrap(), Written::Replaced);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            assert_eq!(fs::read(&path).unwrap(), b"");
            assert_eq!(fixture.names(), ["inside.txt"]);
        }
    }

    #[test]
    fn a_reader_sees_the_old_content_or_the_new_one() {
        let fixture = Fixture::new();
        let contents = ["a".repeat(100_000), "b".repeat(50_000)];
        fs::write(fixture.place.join("ws/inside.txt"), &contents[0]).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seen = fs::read_to_string(fixture.place.join("ws/inside.txt")).unwrap();
                    assert!(contents.contains(&seen), "{} bytes", seen.len());
                }
            });
            for round in 0..50 {
                let content = contents[round % 2].as_bytes();
                fixture.workspaces[round % 2].write_file(Path::new("inside.txt"), content).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let fixture = Fixture::new();
        fixture.place.write("ws/full/file", "x");
        // The rename fails: a directory with something in it cannot be replaced by a file.
        assert!(replace(fixture.workspaces[0].root.as_fd(), c"full", b"content", None).is_err());
        assert_eq!(fixture.names(), ["full", "inside.txt"]);
    }

    #[test]
    fn names_that_are_not_utf8_are_listed_opened_and_shown() {
        let fixture = Fixture::new();
        let name = OsStr::from_bytes(b"caf\xe9\n.txt");
        fs::write(fixture.place.join("ws").join(name), "latin").unwrap();
        for workspace in &fixture.workspaces {
            let root = workspace.open_directory(Path::new(".")).unwrap();
            let entries = root.entries(10).unwrap().entries;
            assert!(entries.contains(&Entry { name: name.to_owned(), kind: Kind::File }), "{entries:?}");
            assert!(root.open_file(name).is_ok());
            assert_eq!(read(workspace, name).unwrap(), "latin");
            let error = read(workspace, Path::new(name).join("x")).unwrap_err().to_string();
            assert!(error.starts_with("caf\u{fffd}\\n.txt/x: "), "{error}");
        }
    }

    #[test]
    fn mistakes_in_a_path_are_named() {
        let fixture = Fixture::new();
        let deep = "d/".repeat(PATH_NAMES_MAX + 1);
        let long = "n".repeat(1_000);
        for workspace in &fixture.workspaces {
            assert_eq!(read(workspace, "").unwrap_err().to_string(), ": is empty, name a file or a directory");
            assert!(read(workspace, "a\0b").unwrap_err().to_string().contains("holds a NUL byte"));
            assert!(read(workspace, &deep).unwrap_err().to_string().contains("too many names"));
            assert!(workspace.write_file(Path::new(&deep), b"").is_err());
            let error = read(workspace, &long).unwrap_err().to_string();
            assert!(error.ends_with("use shorter names") && error.len() < 500, "{error}");
        }
        let error = Workspace::open(&fixture.place.join("nowhere")).unwrap_err().to_string();
        assert!(error.contains("cannot be the workspace"), "{error}");
        assert!(Workspace::open(&fixture.place.join("secret.txt")).is_err());
    }

    #[test]
    fn a_directory_is_listed_up_to_the_number_asked_for() {
        let fixture = Fixture::new();
        for number in 0..2_000 {
            fixture.place.write(format!("ws/many/{number:04}-{}", "long name ".repeat(5)), "");
        }
        fixture.link("inside.txt", "many/link");
        fixture.place.write("ws/many/sub/x", "");
        let many = fixture.workspaces[0].open_directory(Path::new("many")).unwrap();
        let all = many.entries(100_000).unwrap();
        assert_eq!((all.entries.len(), all.has_more), (2_002, false));
        assert!(all.entries.contains(&Entry { name: "link".into(), kind: Kind::SymbolicLink }));
        assert!(all.entries.contains(&Entry { name: "sub".into(), kind: Kind::Directory }));
        let some = many.entries(10).unwrap();
        assert_eq!((some.entries.len(), some.has_more), (10, true));
        assert!(!many.entries(2_002).unwrap().has_more);
        assert_eq!(many.path(), Path::new("many"));
    }

    #[test]
    fn an_open_directory_does_not_follow_links_nor_take_paths() {
        let fixture = Fixture::new();
        fixture.link("..", "up");
        fixture.link("../secret.txt", "link");
        for workspace in &fixture.workspaces {
            let root = workspace.open_directory(Path::new(".")).unwrap();
            assert!(matches!(root.open_directory(OsStr::new("up")), Err(WorkspaceError::Link { .. })));
            assert!(matches!(root.open_file(OsStr::new("link")), Err(WorkspaceError::Link { .. })));
            assert_eq!(root.metadata(OsStr::new("link")).unwrap().kind, Kind::SymbolicLink);
            for name in ["..", ".", "", "../secret.txt", "/etc/passwd", "a\0b"] {
                assert!(root.open_file(OsStr::new(name)).is_err(), "{name:?}");
                assert!(root.open_directory(OsStr::new(name)).is_err(), "{name:?}");
                assert!(root.metadata(OsStr::new(name)).is_err(), "{name:?}");
            }
        }
    }

    #[test]
    fn no_made_up_path_leaves_the_workspace() {
        let fixture = Fixture::new();
        fixture.place.write("ws/sub/file", "inside");
        fixture.link("..", "up");
        fixture.link("/", "sub/slash");
        let root = fixture.place.join("ws").to_str().unwrap().to_owned();
        let pieces = ["..", ".", "/", "//", "sub", "up", "slash", "secret.txt", "file", "etc", "passwd", "", "\0", "é"];
        check_property(2_000, |random: &mut Random| {
            let mut path = if random.below(3) == 0 { root.clone() } else { String::new() };
            for _ in 0..random.below(8) {
                path.push_str(random.pick(&pieces));
                path.push_str(random.pick(&["/", "/", ""]));
            }
            for workspace in &fixture.workspaces {
                if let Ok(text) = read(workspace, &path) {
                    assert_eq!(text, "inside", "{path}");
                }
                if let Ok(directory) = workspace.open_directory(Path::new(&path)) {
                    let names = directory.entries(100).unwrap().entries;
                    assert!(!names.iter().any(|entry| entry.name == "secret.txt" || entry.name == "etc"), "{path}");
                }
            }
        });
    }

    #[test]
    fn directory_records_of_any_bytes_do_not_panic() {
        check_property(500, |random: &mut Random| {
            let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.pick(&[0, 1, 19, 24, 32, 200, 255])).collect();
            parse_entries(&bytes);
        });
    }
}
