//! The two floors beneath a run: what it costs to post the same bytes and to read the answers, and to do nothing else.
//!
//! The bare loop is a process of this executable, with the library, the features and the settings of the runtime's own client.
//! curl is one process, too, which posts one file after the other over a kept connection.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig};

/// The bodies of a recording, one after the other in the same buffer, as a program keeps them that appends what is new.
struct Recording(BufReader<File>);

impl Recording {
    fn open(path: &Path) -> Recording {
        Recording(BufReader::new(File::open(path).unwrap()))
    }

    /// Makes the buffer the next body. False: there is none.
    fn next(&mut self, body: &mut Vec<u8>) -> bool {
        let mut numbers = [0; 16];
        if self.0.read_exact(&mut numbers).is_err() {
            return false;
        }
        let (kept, new) = numbers.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        body.truncate(number(kept) as usize);
        (&mut self.0).take(number(new)).read_to_end(body).unwrap();
        true
    }
}

/// Posts a recording. `authority` is the file of the server's authority; empty without TLS.
pub fn post(url: &str, recording: &str, authority: &str) {
    let mut recording = Recording::open(Path::new(recording));
    let agent = agent(authority);
    let (mut body, mut piece) = (Vec::new(), vec![0; 16 * 1024]);
    while recording.next(&mut body) {
        let request = agent.post(url).content_type("application/json").header("Authorization", "Bearer measured");
        let answer = request.config().timeout_per_read(Some(Duration::from_secs(600))).build().send(&body).unwrap();
        assert_eq!(answer.status(), 200);
        let mut reader = answer.into_body().into_reader();
        while reader.read(&mut piece).unwrap() > 0 {}
    }
}

/// As `host/http.rs` sets it.
fn agent(authority: &str) -> ureq::Agent {
    let roots = match authority {
        "" => RootCerts::WebPki,
        file => {
            let pem = std::fs::read(file).unwrap();
            RootCerts::from(ureq::tls::parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate.to_owned()),
                _ => None,
            }))
        }
    };
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_per_write(Some(Duration::from_secs(60)))
        .timeout_recv_body(Some(Duration::from_secs(3600)))
        .max_idle_age(Duration::from_secs(4))
        .max_idle_connections(1)
        .max_response_header_size(64 * 1024)
        .input_buffer_size(16 * 1024)
        .output_buffer_size(16 * 1024);
    config.build().new_agent()
}

/// Puts the bodies of a recording into files of a folder, and gives their names in order.
pub fn write_bodies(recording: &Path, folder: &Path) -> Vec<String> {
    std::fs::create_dir_all(folder).unwrap();
    let mut recording = Recording::open(recording);
    let (mut body, mut files) = (Vec::new(), Vec::new());
    while recording.next(&mut body) {
        let file = folder.join(files.len().to_string());
        std::fs::write(&file, &body).unwrap();
        files.push(file.to_str().unwrap().to_owned());
    }
    files
}

/// The configuration file with which one curl posts these files in order.
pub fn write_curl_config(config: &Path, url: &str, files: &[String], authority: &str) {
    let mut out = File::create(config).unwrap();
    for (index, file) in files.iter().enumerate() {
        let next = if index == 0 { "" } else { "next\n" };
        let trust = if authority.is_empty() { String::new() } else { format!("cacert = \"{authority}\"\n") };
        // Without the header `Expect` curl does not wait for leave to send a large body.
        write!(
            out,
            "{next}url = \"{url}\"\ndata-binary = \"@{file}\"\noutput = \"/dev/null\"\nsilent\nfail\nhttp1.1\nnoproxy = \"*\"\n{trust}\
             header = \"Expect:\"\nheader = \"Content-Type: application/json\"\nheader = \"Authorization: Bearer measured\"\n"
        )
        .unwrap();
    }
}
