//! Answers from a file instead of a provider: the turns of a journal, for trying the runtime without a key.
//!
//! Not a mock of a provider: the wire is not exercised. The tools are the real ones, so their results may differ from those
//! that stand in the file; they are not compared.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use crate::conversation::{Record, Turn};

/// Bytes of a file that are read; a journal of a long run stays far below.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The turns that are still to come.
pub struct Replay {
    turns: VecDeque<Turn>,
    turns_total: usize,
}

impl Replay {
    /// Reads the file: one record a line, of which only turns count. A last line without its end is left out, as after a
    /// crash. Fails with what is wrong and the number of the line, never with what stands there.
    pub fn open(path: &str) -> Result<Replay, String> {
        let file = File::open(path).map_err(|error| format!("the file cannot be opened ({error})"))?;
        let mut reader = BufReader::new(file.take(FILE_BYTES_MAX));
        let mut turns = VecDeque::new();
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let length =
                reader.read_until(b'\n', &mut line).map_err(|error| format!("the file cannot be read ({error})"))?;
            if length == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Record>(&line) {
                Ok(Record::Turn(turn)) => turns.push_back(turn),
                Ok(_) => {}
                Err(_) if line.last() != Some(&b'\n') => break,
                Err(error) => {
                    let column = error.column();
                    return Err(format!("line {number} column {column}: not a record of a journal"));
                }
            }
        }
        if turns.is_empty() {
            return Err("the file holds no turn".to_owned());
        }
        let turns_total = turns.len();
        Ok(Replay { turns, turns_total })
    }

    pub fn next_turn(&mut self) -> Option<Turn> {
        self.turns.pop_front()
    }

    pub fn turns_total(&self) -> usize {
        self.turns_total
    }
}
