//! A process whose system calls are seen one by one, so that it can be killed at any of them. Linux `ptrace`, by hand.
//!
//! It knows nothing of the runtime, which needs no hook for this and is the same program that users get. What may surprise:
//! everything about one [`Traced`] must be done by the thread that started it, because the kernel takes no other.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// A system call that is about to happen.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub name: &'static str,
    pub arguments: [u64; 6],
}

/// The calls that [`Traced::next_call`] stops at, by their numbers: those that write, flush, cut, or start a process.
#[cfg(target_arch = "x86_64")]
const CALLS: [(u64, &str); 13] = [
    (1, "write"),
    (20, "writev"),
    (44, "sendto"),
    (56, "clone"),
    (57, "fork"),
    (58, "vfork"),
    (74, "fsync"),
    (75, "fdatasync"),
    (77, "ftruncate"),
    (264, "renameat"),
    (316, "renameat2"),
    (247, "waitid"),
    (435, "clone3"),
];
#[cfg(target_arch = "aarch64")]
const CALLS: [(u64, &str); 11] = [
    (64, "write"),
    (66, "writev"),
    (206, "sendto"),
    (220, "clone"),
    (82, "fsync"),
    (83, "fdatasync"),
    (46, "ftruncate"),
    (38, "renameat"),
    (276, "renameat2"),
    (95, "waitid"),
    (435, "clone3"),
];

const TRACEME: c_int = 0;
const SYSCALL: c_int = 24;
const SETOPTIONS: c_int = 0x4200;
const GET_SYSCALL_INFO: c_int = 0x420e;
const OPTION_SYSGOOD: usize = 1;
const OPTION_EXITKILL: usize = 0x10_0000;
const SIGKILL: c_int = 9;
const SIGTRAP: c_int = 5;
/// A stop for a system call, as the option above marks it.
const SYSCALL_STOP: c_int = SIGTRAP | 0x80;

/// `struct ptrace_syscall_info` (Linux 5.3), as it is at the entry of a call.
#[repr(C)]
#[derive(Default)]
struct Info {
    operation: u8,
    padding: [u8; 3],
    architecture: u32,
    instruction: u64,
    stack: u64,
    number: u64,
    arguments: [u64; 6],
    rest: u64,
}
const AT_ENTRY: u8 = 1;

unsafe extern "C" {
    fn ptrace(request: c_int, process: c_int, address: usize, data: *mut c_void) -> c_long;
    fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    safe fn kill(process: c_int, signal: c_int) -> c_int;
}

/// A process that stands still between two calls.
pub struct Traced {
    id: c_int,
    /// To be delivered when it goes on.
    signal: c_int,
}

impl Traced {
    /// Starts a program. `None` where this machine allows no tracing.
    pub fn start(mut command: Command) -> Option<Traced> {
        // SAFETY: between fork and exec only this one system call is made.
        unsafe {
            command.pre_exec(|| match ptrace(TRACEME, 0, 0, std::ptr::null_mut()) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        // It is reaped by `wait` below.
        #[allow(clippy::zombie_processes)]
        let child = command.spawn().ok()?;
        let traced = Traced { id: c_int::try_from(child.id()).unwrap(), signal: 0 };
        // The stop behind exec.
        traced.wait();
        let options = OPTION_SYSGOOD | OPTION_EXITKILL;
        // SAFETY: this request takes numbers only.
        unsafe { ptrace(SETOPTIONS, traced.id, 0, std::ptr::without_provenance_mut(options)) };
        Some(traced)
    }

    /// Lets it run to the entry of the next call of the table, or to its end.
    pub fn next_call(&mut self) -> Result<Call, ExitStatus> {
        loop {
            let signal = std::mem::take(&mut self.signal).cast_unsigned() as usize;
            // SAFETY: this request takes numbers only.
            unsafe { ptrace(SYSCALL, self.id, 0, std::ptr::without_provenance_mut(signal)) };
            let status = self.wait();
            let Some(stop) = status.stopped_signal() else { return Err(status) };
            if stop != SYSCALL_STOP {
                self.signal = stop;
                continue;
            }
            let mut info = Info::default();
            // SAFETY: the kernel writes at most as many bytes as it is told that there are.
            unsafe { ptrace(GET_SYSCALL_INFO, self.id, size_of::<Info>(), (&raw mut info).cast()) };
            let known = CALLS.iter().find(|(number, _)| info.operation == AT_ENTRY && *number == info.number);
            if let Some((_, name)) = known {
                return Ok(Call { name, arguments: info.arguments });
            }
        }
    }

    /// What a descriptor of the process leads to.
    pub fn target(&self, descriptor: u64) -> String {
        let link = std::fs::read_link(format!("/proc/{}/fd/{descriptor}", self.id)).unwrap_or_default();
        link.to_string_lossy().into_owned()
    }

    /// Bytes of the process's memory.
    pub fn memory(&self, address: u64, length: u64) -> Vec<u8> {
        let mut memory = std::fs::File::open(format!("/proc/{}/mem", self.id)).unwrap();
        memory.seek(SeekFrom::Start(address)).unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        memory.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Kills it before the call happens.
    pub fn kill(self) {
        kill(self.id, SIGKILL);
        while self.wait().stopped_signal().is_some() {}
    }

    fn wait(&self) -> ExitStatus {
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        let id = unsafe { waitpid(self.id, &raw mut status, 0) };
        assert_eq!(id, self.id, "{}", std::io::Error::last_os_error());
        ExitStatus::from_raw(status)
    }
}
