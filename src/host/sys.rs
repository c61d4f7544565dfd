//! The kernel: system calls that std does not offer. The only unsafe code.
