//! The kernel: system calls that std does not offer, each behind a safe function. The only unsafe code.
//!
//! Declared by hand instead of through the `libc` crate, because the list of dependencies is fixed and the list of calls
//! is short. What makes that sound: only 64-bit x86 and ARM are built (checked below), where glibc and musl agree with the
//! kernel on every type used here; every number was compared with the `libc` crate 0.2.191 (November 2026). Descriptors go
//! in as `BorrowedFd` and come out as `OwnedFd`, text as `CStr`, buffers as slices, so that the compiler holds what the
//! kernel expects: nothing dangles, nothing is closed twice. It knows nothing of ours, and decides nothing.
//!
//! What may surprise: some of the `O_*` numbers differ between the two architectures. A wrong one is accepted by the
//! kernel as a different flag, so that `O_NOFOLLOW` would quietly follow.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long, c_short, c_uint, c_ulong, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the numbers in host/sys.rs are those of 64-bit Linux on x86_64 and aarch64 only");

pub const O_RDONLY: c_int = 0;
pub const O_WRONLY: c_int = 0o1;
pub const O_CREAT: c_int = 0o100;
pub const O_EXCL: c_int = 0o200;
pub const O_NOCTTY: c_int = 0o400;
pub const O_TRUNC: c_int = 0o1000;
pub const O_NONBLOCK: c_int = 0o4000;
pub const O_CLOEXEC: c_int = 0o2_000_000;
pub const O_PATH: c_int = 0o10_000_000;

#[cfg(target_arch = "x86_64")]
mod of_this_architecture {
    pub const O_DIRECTORY: super::c_int = 0o200_000;
    pub const O_NOFOLLOW: super::c_int = 0o400_000;
    pub const GETDENTS64: super::c_long = 217;
}
#[cfg(target_arch = "aarch64")]
mod of_this_architecture {
    pub const O_DIRECTORY: super::c_int = 0o40_000;
    pub const O_NOFOLLOW: super::c_int = 0o100_000;
    pub const GETDENTS64: super::c_long = 61;
}
pub const O_DIRECTORY: c_int = of_this_architecture::O_DIRECTORY;
pub const O_NOFOLLOW: c_int = of_this_architecture::O_NOFOLLOW;

#[cfg(test)]
pub const EPERM: i32 = 1;
pub const EAGAIN: i32 = 11;
pub const EXDEV: i32 = 18;
pub const ENOTDIR: i32 = 20;
#[cfg(test)]
pub const ENOSYS: i32 = 38;
pub const ELOOP: i32 = 40;

/// File system types as `fstatfs` reports them (`linux/magic.h`).
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;
pub const SYSFS_MAGIC: i64 = 0x6265_6572;

pub const POLLIN: c_short = 0x1;
pub const POLLOUT: c_short = 0x4;

/// A signal that we send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Signal {
    /// Please end.
    Terminate = 15,
    /// End, without a say in it.
    Kill = 9,
}

/// Opens `path` relative to `directory`. The kernel refuses (`EXDEV`) whatever would lead out of it, also through a
/// symbolic link or a race, and (`ELOOP`) the magic links of `/proc`.
///
/// `ENOSYS` before Linux 5.6 and in some sandboxes, `EPERM` under old seccomp profiles, `EAGAIN` when a rename raced.
pub fn open_beneath(directory: BorrowedFd<'_>, path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    let how = OpenHow {
        flags: u64::from((flags | O_CLOEXEC).cast_unsigned()),
        mode: 0,
        resolve: RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: openat2 reads a NUL-ended path and `size_of::<OpenHow>()` bytes of `how`; both outlive the call.
    let result =
        unsafe { syscall(OPENAT2, directory.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>()) };
    owned(result)
}

/// Opens `name` relative to `directory`; `mode` (before umask) counts only with `O_CREAT`.
pub fn open_at(directory: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: openat reads a NUL-ended path that outlives the call, and takes a mode_t (unsigned int) as its fourth.
    let result = unsafe { openat(directory.as_raw_fd(), name.as_ptr(), flags | O_CLOEXEC, mode as c_uint) };
    owned(c_long::from(result))
}

/// Makes the directory `name` in `directory`; `mode` before umask.
pub fn make_directory_at(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: mkdirat reads a NUL-ended path that outlives the call.
    succeeded(unsafe { mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) })
}

/// Removes the file `name` from `directory`.
pub fn unlink_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: unlinkat reads a NUL-ended path that outlives the call.
    succeeded(unsafe { unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) })
}

/// Renames `from` to `to` within `directory`, replacing what is there. Symbolic links are not followed.
pub fn rename_at(directory: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
    let directory = directory.as_raw_fd();
    // SAFETY: renameat reads two NUL-ended paths that outlive the call.
    succeeded(unsafe { renameat(directory, from.as_ptr(), directory, to.as_ptr()) })
}

/// Fills `buffer` with the next entries of `directory` and returns how many bytes they take; 0 at the end. The bytes are
/// `struct linux_dirent64` one after another, each 8 bytes inode, 8 offset, 2 length of the whole, 1 type, a NUL-ended name.
pub fn read_entries(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: getdents64 writes at most `buffer.len()` bytes into memory that we hold mutably.
    let result = unsafe { syscall(GETDENTS64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The type of the file system that `file` is on, such as [`PROC_SUPER_MAGIC`].
pub fn filesystem_type(file: BorrowedFd<'_>) -> io::Result<i64> {
    let mut buffer = StatFs { kind: 0, rest: [0; 14] };
    // SAFETY: fstatfs writes one `struct statfs`, 120 bytes on both architectures in both C libraries, into `buffer`.
    succeeded(unsafe { fstatfs(file.as_raw_fd(), &raw mut buffer) })?;
    Ok(buffer.kind)
}

/// Makes reads and writes on `file` fail with `WouldBlock` instead of waiting. Others with the same open file see it too.
pub fn set_nonblocking(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no further argument and touches no memory.
    let flags = unsafe { fcntl(file.as_raw_fd(), F_GETFL) };
    succeeded(flags)?;
    // SAFETY: F_SETFL takes an int and touches no memory.
    succeeded(unsafe { fcntl(file.as_raw_fd(), F_SETFL, flags | O_NONBLOCK) })
}

/// Has a pipe hold this many bytes, where that is allowed; it is only a wish.
pub fn enlarge_pipe(file: BorrowedFd<'_>, bytes: usize) {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // SAFETY: F_SETPIPE_SZ takes an int and touches no memory of ours.
    let _ = unsafe { fcntl(file.as_raw_fd(), F_SETPIPE_SZ, bytes) };
}

/// One descriptor to wait for. `struct pollfd`: 8 bytes.
#[derive(Debug)]
#[repr(C)]
pub struct PollEntry<'fd> {
    // `BorrowedFd` is documented to have the representation of the descriptor's number.
    file: BorrowedFd<'fd>,
    wanted: c_short,
    happened: c_short,
}

impl<'fd> PollEntry<'fd> {
    /// Waits for [`POLLIN`] or [`POLLOUT`].
    pub fn new(file: BorrowedFd<'fd>, wanted: c_short) -> PollEntry<'fd> {
        PollEntry { file, wanted, happened: 0 }
    }

    /// Something happened: what was wanted, an error, or the other side has gone. A read or write will tell which.
    pub fn is_ready(&self) -> bool {
        self.happened != 0
    }
}

/// Waits until an entry is ready or `timeout` is over, also when a signal comes; entries tell which. Without entries it
/// only waits.
pub fn poll(entries: &mut [PollEntry<'_>], timeout: Duration) -> io::Result<()> {
    // Rounded up: rounding down would turn the last millisecond before a deadline into a busy loop.
    let milliseconds = c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX);
    // SAFETY: poll reads and writes `entries.len()` structs of pollfd's layout, which we hold mutably.
    let result = unsafe { c_poll(entries.as_mut_ptr().cast(), entries.len() as c_ulong, milliseconds) };
    match succeeded(result) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

/// Whether the file takes bytes within `timeout`; `false` when it does not. A peer that is gone counts as writable: the
/// write will say so.
pub fn is_writable(file: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut entries = [PollEntry::new(file, POLLOUT)];
    poll(&mut entries, timeout)?;
    Ok(entries.iter().any(PollEntry::is_ready))
}

/// Sends `signal` to every process of the group that `leader` leads. No such group is not an error: it has ended.
pub fn kill_group(leader: GroupId, signal: Signal) -> io::Result<()> {
    sent(kill(-leader.0, signal as c_int))
}

/// Sends `signal` to the process that leads the group, also when it has moved to another group. Only for a process that
/// has not been reaped, whose number therefore cannot mean another one.
pub fn kill_leader(leader: GroupId, signal: Signal) -> io::Result<()> {
    sent(kill(leader.0, signal as c_int))
}

/// Whether our child `leader` has ended. It is left unreaped, so that its number and its group's stay taken.
pub fn has_exited(leader: GroupId) -> io::Result<bool> {
    Ok(wait_now(P_PID, leader.0.cast_unsigned(), WEXITED | WNOWAIT)?.is_some())
}

/// Keeps other processes of our user from looking into this one: `/proc/<us>/environ` and `/proc/<us>/mem` hold keys.
///
/// Not dumpable, we are closed to all but those who have `CAP_SYS_PTRACE`, or, for reading and since Linux 6, `CAP_PERFMON`
/// or `CAP_SYS_ADMIN`; a container's root has none of them unless it was given. For when it was: children lose the first two,
/// which are taken out of the set that they can get. `CAP_SYS_ADMIN` stays, because those who give it to a container want
/// its commands to have it: nothing here helps against a privileged container.
pub fn forbid_inspection() -> io::Result<()> {
    for capability in [CAP_SYS_PTRACE, CAP_PERFMON] {
        // Refused to all but root, for whom alone it matters.
        // SAFETY: this operation takes unsigned longs and touches no memory of ours.
        let _ = unsafe { prctl(PR_CAPBSET_DROP, capability, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) };
    }
    // SAFETY: as above.
    succeeded(unsafe { prctl(PR_SET_DUMPABLE, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) })
}

/// Reaps the children of ours in the group of `leader`, who has been reaped before. They are ours when their parent
/// has ended and we adopt orphans. False when one is still alive.
pub fn reap_group(leader: GroupId) -> bool {
    loop {
        match wait_now(P_PGID, leader.0.cast_unsigned(), WEXITED) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            // None of the group is a child of ours.
            Err(_) => return true,
        }
    }
}

/// [`adopt_orphans`] was called. Only then are children that we did not start ours to reap: in a process of tests, which
/// starts children in several threads, they would be another test's.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// Reaps children that have ended and lead no watched group: orphans that we adopted. Stops at one that does, which somebody
/// waits for.
pub fn reap_orphans() {
    if !ADOPTS.load(Ordering::SeqCst) {
        return;
    }
    while let Ok(Some(process)) = wait_now(P_ALL, 0, WEXITED | WNOWAIT) {
        let is_watched = WATCHED_GROUPS.iter().any(|slot| slot.load(Ordering::SeqCst) == process);
        if is_watched || wait_now(P_PID, process.cast_unsigned(), WEXITED).is_err() {
            return;
        }
    }
}

/// The number of a child that has ended, if there is one.
fn wait_now(id_type: c_uint, id: c_uint, options: c_int) -> io::Result<Option<c_int>> {
    let mut info = SigInfo { signal: 0, rest: [0; 31] };
    // SAFETY: waitid writes one siginfo_t, 128 bytes and 8-aligned on all Linux, into `info`.
    succeeded(unsafe { waitid(id_type, id, &raw mut info, options | WNOHANG) })?;
    // With WNOHANG, waitid succeeds with a zeroed siginfo when nobody has ended. The fourth int after the signal, with 64-bit alignment: si_errno, si_code, padding, si_pid.
    let [_, _, _, process, ..] = info.rest;
    Ok((info.signal != 0).then_some(process))
}

/// A child that leads a process group of its own: its process id, which is the group's id too. Never 0, 1 or negative,
/// which `kill` would understand as "everyone".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupId(c_int);

impl GroupId {
    pub fn new(process_id: u32) -> Option<GroupId> {
        c_int::try_from(process_id).ok().filter(|id| *id > 1).map(GroupId)
    }
}

/// How many groups can be alive at once: the one running command and the servers that tools keep.
pub const WATCHED_GROUPS_MAX: usize = 64;

/// The groups that are alive, for a signal handler, which may touch nothing but atomics. 0 is a free slot.
static WATCHED_GROUPS: [AtomicI32; WATCHED_GROUPS_MAX] = [const { AtomicI32::new(0) }; WATCHED_GROUPS_MAX];

/// Remembers a group that must not outlive us. False when all slots are taken: then the caller must not keep it alive.
pub fn watch_group(group: GroupId) -> bool {
    WATCHED_GROUPS.iter().any(|slot| slot.compare_exchange(0, group.0, Ordering::SeqCst, Ordering::SeqCst).is_ok())
}

/// Forgets a group; to be called before its leader is reaped, after which the number may belong to someone else.
pub fn unwatch_group(group: GroupId) {
    for slot in &WATCHED_GROUPS {
        if slot.compare_exchange(group.0, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return;
        }
    }
}

/// Kills every group that is watched. Safe in a signal handler: only atomics and `kill`.
pub fn kill_watched_groups() {
    for slot in &WATCHED_GROUPS {
        let id = slot.load(Ordering::SeqCst);
        if id > 1 {
            kill(-id, Signal::Kill as c_int);
        }
    }
}

/// Ends every child that is left, and by adopting theirs the whole tree beneath us, also what moved to another session.
/// Safe in a signal handler: system calls only. Takes at most `time_max`, and needs a kernel that lists children
/// (`CONFIG_PROC_CHILDREN`) and that [`adopt_orphans`] has succeeded.
pub fn kill_descendants(time_max: Duration) {
    let started = Instant::now();
    let mut list = [0_u8; 4096];
    while started.elapsed() < time_max {
        let Ok(file) = open_file(c"/proc/thread-self/children", O_RDONLY, 0) else { return };
        let count = read_some(file.as_fd(), &mut list).unwrap_or(0);
        let mut id: c_int = 0;
        for byte in list.iter().take(count) {
            match byte {
                b'0'..=b'9' => id = id.wrapping_mul(10).wrapping_add(c_int::from(byte - b'0')),
                _ => {
                    if id > 1 {
                        kill(id, Signal::Kill as c_int);
                    }
                    id = 0;
                }
            }
        }
        if count == 0 {
            return;
        }
        // Dying takes a moment. The dead hand their children over to us; reaped, they leave the list.
        while has_reaped_a_child() {}
        let _ = poll(&mut [], Duration::from_millis(1));
    }
}

/// Makes us the parent of whoever loses theirs beneath us, as process 1 is anyway.
pub fn adopt_orphans() -> io::Result<()> {
    ADOPTS.store(true, Ordering::SeqCst);
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one unsigned long and touches no memory.
    succeeded(unsafe { prctl(PR_SET_CHILD_SUBREAPER, 1 as c_ulong) })
}

fn has_reaped_a_child() -> bool {
    let mut info = SigInfo { signal: 0, rest: [0; 31] };
    // SAFETY: waitid writes one siginfo_t, 128 bytes and 8-aligned on all Linux, into `info`.
    let result = unsafe { waitid(P_ALL, 0, &raw mut info, WEXITED | WNOHANG) };
    result == 0 && info.signal != 0
}

/// Locks the open file for this process, until it is closed or the process ends. False when another one holds the lock.
pub fn lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    match succeeded(flock(file.as_raw_fd(), LOCK_EX | LOCK_NB)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        result => result.map(|()| true),
    }
}

pub const SIGHUP: c_int = 1;
pub const SIGINT: c_int = 2;
pub const SIGUSR1: c_int = 10;
pub const SIGUSR2: c_int = 12;
pub const SIGALRM: c_int = 14;
pub const SIGTERM: c_int = 15;
pub const SIGSTKFLT: c_int = 16;
pub const SIGXFSZ: c_int = 25;
pub const SIGVTALRM: c_int = 26;
pub const SIGPROF: c_int = 27;
pub const SIGIO: c_int = 29;
pub const SIGPWR: c_int = 30;

/// Has `handler` called for each of `signals`, none of which interrupts another; system calls that they interrupt go on
/// where the kernel can do that. Programs that we start get the default action back. A handler runs between any two
/// instructions, so it may use atomics and what is called safe in a signal handler here, and nothing that allocates or locks.
pub fn handle_signals(signals: &[c_int], handler: extern "C" fn(c_int)) -> io::Result<()> {
    let mut set = SignalSet([0; 16]);
    for signal in signals {
        set.0[0] |= 1 << (signal - 1);
    }
    let action = SignalAction { handler, mask: set, flags: SA_RESTART, restorer: std::ptr::null() };
    for signal in signals {
        // SAFETY: sigaction reads one struct of its own layout, and a null third argument asks for nothing back. What the
        // handler may do is said above; both handlers that there are (host/stop.rs) keep to it.
        succeeded(unsafe { sigaction(*signal, &raw const action, std::ptr::null_mut()) })?;
    }
    // Whoever started us may have blocked them.
    // SAFETY: sigprocmask reads one sigset_t, and a null third argument asks for nothing back.
    succeeded(unsafe { sigprocmask(SIG_UNBLOCK, &raw const action.mask, std::ptr::null_mut()) })
}

/// Has the kernel send SIGALRM once, after `wait`. Safe in a signal handler.
pub fn start_alarm(wait: Duration) {
    let microseconds = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
    let timer = IntervalTimer { interval: [0, 0], value: [microseconds / 1_000_000, microseconds % 1_000_000] };
    // SAFETY: setitimer reads one struct itimerval, and a null third argument asks for nothing back.
    unsafe { setitimer(ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

/// Ends the process now: nothing is flushed, dropped or run. Safe in a signal handler.
pub fn exit_now(code: u8) -> ! {
    _exit(c_int::from(code))
}

/// Opens a file; `mode` (before umask) counts only with `O_CREAT`. Safe in a signal handler.
pub fn open_file(path: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: openat reads a NUL-ended path that outlives the call, and takes a mode_t (unsigned int) as its fourth.
    let result = unsafe { openat(AT_FDCWD, path.as_ptr(), flags | O_CLOEXEC, mode as c_uint) };
    owned(c_long::from(result))
}

/// Reads once and returns how much. Safe in a signal handler.
fn read_some(file: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: read writes at most `buffer.len()` bytes into memory that we hold mutably.
    let result = unsafe { read(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Writes once and returns how much the kernel took. Safe in a signal handler.
pub fn write_some(file: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: write reads at most `bytes.len()` bytes of memory that we hold.
    let result = unsafe { write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Our stdout, without the lock that std keeps on it. Safe in a signal handler.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: std opens 0, 1 and 2 before `main` if they were closed, and nothing of ours closes them.
    unsafe { BorrowedFd::borrow_raw(1) }
}

const AT_FDCWD: c_int = -100;
const LOCK_EX: c_int = 2;
const LOCK_NB: c_int = 4;
const PR_SET_CHILD_SUBREAPER: c_int = 36;
const SA_RESTART: c_int = 0x1000_0000;
const SIG_UNBLOCK: c_int = 1;
const ITIMER_REAL: c_int = 0;

/// `sigset_t`: 1024 bits in both C libraries, of which the kernel uses the first 64.
#[repr(C)]
struct SignalSet([u64; 16]);

/// `struct sigaction` of both C libraries (the kernel's own has another order): 152 bytes.
#[repr(C)]
struct SignalAction {
    handler: extern "C" fn(c_int),
    mask: SignalSet,
    flags: c_int,
    restorer: *const c_void,
}

/// `struct itimerval`: seconds and microseconds, twice.
#[repr(C)]
struct IntervalTimer {
    interval: [i64; 2],
    value: [i64; 2],
}

const _: () = assert!(size_of::<SignalAction>() == 152 && size_of::<IntervalTimer>() == 32);

// SAFETY: as below. `ssize_t` is isize, `size_t` usize.
unsafe extern "C" {
    fn sigaction(signal: c_int, new: *const SignalAction, old: *mut SignalAction) -> c_int;
    fn sigprocmask(how: c_int, new: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn setitimer(which: c_int, new: *const IntervalTimer, old: *mut IntervalTimer) -> c_int;
    fn read(file: c_int, buffer: *mut c_void, count: usize) -> isize;
    fn write(file: c_int, bytes: *const c_void, count: usize) -> isize;
    // Neither touches memory of ours, whatever it is given.
    safe fn flock(file: c_int, operation: c_int) -> c_int;
    safe fn _exit(code: c_int) -> !;
}

const OPENAT2: c_long = 437;
const GETDENTS64: c_long = of_this_architecture::GETDENTS64;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_BENEATH: u64 = 0x08;
const F_GETFL: c_int = 3;
const F_SETFL: c_int = 4;
const F_SETPIPE_SZ: c_int = 1031;
const PR_SET_DUMPABLE: c_int = 4;
const PR_CAPBSET_DROP: c_int = 24;
const CAP_SYS_PTRACE: c_ulong = 19;
const CAP_PERFMON: c_ulong = 38;
const P_ALL: c_uint = 0;
const P_PID: c_uint = 1;
const P_PGID: c_uint = 2;
const WNOHANG: c_int = 1;
const WEXITED: c_int = 4;
const WNOWAIT: c_int = 0x0100_0000;
const ESRCH: i32 = 3;

/// `struct open_how` (`linux/openat2.h`): 24 bytes; its size is told to the kernel, which knows how to read an older one.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// `struct statfs`: 120 bytes, the type first.
#[repr(C)]
struct StatFs {
    kind: i64,
    rest: [i64; 14],
}

/// `siginfo_t`: 128 bytes, the signal first.
#[repr(C, align(8))]
struct SigInfo {
    signal: c_int,
    rest: [c_int; 31],
}

const _: () = assert!(size_of::<OpenHow>() == 24 && size_of::<StatFs>() == 120);
const _: () = assert!(size_of::<SigInfo>() == 128 && size_of::<PollEntry<'static>>() == 8);

// SAFETY: the signatures are those of POSIX.1-2024 and of `man 2 syscall`, with the types of 64-bit Linux: `mode_t` is
// unsigned int, `nfds_t` unsigned long, `id_t` unsigned int, `idtype_t` an enum that fits one, `pid_t` int.
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn openat(directory: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn mkdirat(directory: c_int, path: *const c_char, mode: c_uint) -> c_int;
    fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn renameat(from_directory: c_int, from: *const c_char, to_directory: c_int, to: *const c_char) -> c_int;
    fn fstatfs(file: c_int, buffer: *mut StatFs) -> c_int;
    fn fcntl(file: c_int, command: c_int, ...) -> c_int;
    fn prctl(operation: c_int, ...) -> c_int;
    #[link_name = "poll"]
    fn c_poll(entries: *mut c_void, count: c_ulong, milliseconds: c_int) -> c_int;
    fn waitid(id_type: c_uint, id: c_uint, info: *mut SigInfo, options: c_int) -> c_int;
    // Touches no memory of ours, whatever it is given.
    safe fn kill(process: c_int, signal: c_int) -> c_int;
}

/// The descriptor that a call returned, or the error it left.
fn owned(result: c_long) -> io::Result<OwnedFd> {
    match c_int::try_from(result) {
        // SAFETY: the kernel has just given us this descriptor, so it is open and nobody else owns it.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn succeeded(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn sent(result: c_int) -> io::Result<()> {
    match succeeded(result) {
        Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDirectory;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn no_follow_is_the_right_bit_on_this_architecture() {
        let place = TestDirectory::new();
        std::os::unix::fs::symlink("/etc", place.join("link")).unwrap();
        let directory = File::open(place.path()).unwrap();
        let error = open_at(directory.as_fd(), c"link", O_RDONLY | O_NOFOLLOW, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ELOOP));
        let error = open_at(directory.as_fd(), c"link", O_RDONLY | O_NOFOLLOW | O_DIRECTORY, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ENOTDIR));
    }

    #[test]
    fn directory_is_the_right_bit_on_this_architecture() {
        let place = TestDirectory::new();
        place.write("file", "x");
        let directory = File::open(place.path()).unwrap();
        let error = open_at(directory.as_fd(), c"file", O_RDONLY | O_DIRECTORY, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ENOTDIR));
        assert!(open_at(directory.as_fd(), c".", O_RDONLY | O_DIRECTORY, 0).is_ok());
    }

    #[test]
    fn proc_is_told_from_other_file_systems() {
        let proc = File::open("/proc/self/stat").unwrap();
        assert_eq!(filesystem_type(proc.as_fd()).unwrap(), PROC_SUPER_MAGIC);
        let program = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_ne!(filesystem_type(program.as_fd()).unwrap(), PROC_SUPER_MAGIC);
    }

    #[test]
    fn poll_tells_which_entry_is_ready() {
        let (mut silent, _silent_writer) = std::io::pipe().unwrap();
        let (spoken, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let mut entries = [PollEntry::new(silent.as_fd(), POLLIN), PollEntry::new(spoken.as_fd(), POLLIN)];
        poll(&mut entries, Duration::from_secs(60)).unwrap();
        assert!(!entries[0].is_ready());
        assert!(entries[1].is_ready());
        set_nonblocking(silent.as_fd()).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn poll_reports_that_the_other_side_has_gone() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let mut entries = [PollEntry::new(reader.as_fd(), POLLIN)];
        poll(&mut entries, Duration::from_secs(60)).unwrap();
        assert!(entries[0].is_ready());
    }

    #[test]
    fn poll_survives_a_timeout_longer_than_its_integer() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        poll(&mut [PollEntry::new(reader.as_fd(), POLLIN)], Duration::MAX).unwrap();
    }

    #[test]
    fn a_group_id_never_means_everyone() {
        assert_eq!(GroupId::new(0), None);
        assert_eq!(GroupId::new(1), None);
        assert_eq!(GroupId::new(u32::MAX), None);
        assert!(GroupId::new(2).is_some());
    }

    #[test]
    fn open_beneath_refuses_to_leave() {
        let place = TestDirectory::new();
        let directory = File::open(place.path()).unwrap();
        // Where the kernel has no openat2 the answer is ENOSYS; the workspace tests cover what happens then.
        for outside in [c"..", c"../x", c"/etc/passwd"] {
            let error = open_beneath(directory.as_fd(), outside, O_PATH).unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(EXDEV | ENOSYS | EPERM)), "{outside:?}: {error}");
        }
    }

    #[test]
    fn a_watched_group_is_known_until_it_is_unwatched() {
        // A number that no process has: nothing in the tests kills what is watched.
        let group = GroupId::new(0x7fff_fff0).unwrap();
        let is_watched = || WATCHED_GROUPS.iter().any(|slot| slot.load(Ordering::SeqCst) == group.0);
        assert!(watch_group(group));
        assert!(is_watched());
        unwatch_group(group);
        assert!(!is_watched());
        unwatch_group(group);
    }
}
