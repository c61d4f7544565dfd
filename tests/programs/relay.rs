//! A child process whose stdin, stdout and stderr are a test's: it connects to the test and carries bytes.
//!
//! The address of the test is its last argument. It says first who and where it is, and then what it reads; what the test
//! sends are frames: one byte for the place, four for the length, the bytes. It ends when the test is gone, or tells it to.
//! Std only: the tests compile it with `rustc`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

fn main() {
    let address = std::env::args().next_back().expect("an address");
    let mut test = TcpStream::connect(address).expect("the test listens");
    test.set_nodelay(true).expect("a socket");
    let directory = std::env::current_dir().unwrap_or_default();
    let mut hello = format!("id={}\ndirectory={}\n", std::process::id(), directory.display());
    for (name, value) in std::env::vars_os() {
        hello += &format!("{}={}\n", name.display(), value.display());
    }
    test.write_all((hello + "\n").as_bytes()).expect("the test reads");
    let mut input = test.try_clone().expect("a socket");
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if input.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = input.shutdown(Shutdown::Write);
    });
    obey(test);
}

fn obey(mut test: TcpStream) {
    let mut head = [0; 5];
    while test.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut bytes = vec![0; length as usize];
        if test.read_exact(&mut bytes).is_err() {
            return;
        }
        // Whoever reads may be gone; the test sees that in other ways.
        let _ = match head[0] {
            b'o' => std::io::stdout().write_all(&bytes).and_then(|()| std::io::stdout().flush()),
            b'e' => std::io::stderr().write_all(&bytes),
            _ => std::process::exit(i32::from(head[0])),
        };
    }
}
