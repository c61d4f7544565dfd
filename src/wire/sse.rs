//! Event-stream framing: bytes → events. Pure.
//!
//! The text/event-stream format of the WHATWG HTML standard, section 9.2.6 (read 2026-11), as tolerant as servers need it:
//! line ends LF, CRLF or CR, also mixed; a byte order mark; comments; bytes that are not UTF-8 replaced. Surprising: an event
//! without data is given too when it sets an id or a `retry`, because resuming a stream needs them.

use std::borrow::Cow;

/// Bytes of one event; a server that sends more is broken or hostile.
pub const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The event's type; empty means `message`.
    pub name: String,
    /// The data lines, joined by LF.
    pub data: String,
    /// The id that this event sets.
    pub id: Option<String>,
    /// How long to wait before a new connection, in milliseconds.
    pub retry_ms: Option<u64>,
}

/// An event larger than [`EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq)]
pub struct TooLarge;

/// Takes bytes as they come and gives events as they are whole.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR, so that an LF belongs to it.
    after_cr: bool,
    has_begun: bool,
    event: Event,
    has_data: bool,
    event_bytes: usize,
}

impl Parser {
    /// The events that these bytes complete, in order. The same events for every way of splitting the bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = after;
                continue;
            }
            let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
            let (line, end) = rest.split_at(length);
            self.line.extend_from_slice(line);
            self.event_bytes += length;
            if self.event_bytes > EVENT_BYTES_MAX {
                return Err(TooLarge);
            }
            let Some((end, after)) = end.split_first() else { break };
            self.after_cr = *end == b'\r';
            events.extend(self.end_line());
            rest = after;
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = std::mem::take(&mut self.line);
        // Checking is much faster than replacing.
        let text = std::str::from_utf8(&bytes).map_or_else(|_| String::from_utf8_lossy(&bytes), Cow::Borrowed);
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let line = if is_first { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => self.event.retry_ms = value.parse().ok(),
            // Comments (an empty field name) and fields that a later version of the format has.
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        self.event_bytes = 0;
        let has_data = std::mem::take(&mut self.has_data);
        let event = std::mem::take(&mut self.event);
        (has_data || event.id.is_some() || event.retry_ms.is_some()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn events(text: &str) -> Vec<Event> {
        Parser::default().push(text.as_bytes()).unwrap()
    }

    fn data(text: &str) -> Vec<String> {
        events(text).into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn reads_events_with_any_line_end() {
        assert_eq!(data("data: a\n\ndata:b\r\n\r\ndata: c\r\rdata: d\ndata: e\n\n"), ["a", "b", "c", "d\ne"]);
    }

    #[test]
    fn leaves_out_comments_and_events_without_anything() {
        assert_eq!(data("\u{feff}: hello\n\nevent: ping\n\ndata: a\n\n"), ["a"]);
    }

    #[test]
    fn keeps_name_id_and_retry() {
        let event =
            Event { name: "endpoint".to_owned(), data: "/x".to_owned(), id: Some("7".to_owned()), retry_ms: Some(500) };
        assert_eq!(events("event: endpoint\nid: 7\nretry: 500\ndata: /x\n\n"), [event]);
        assert_eq!(events("id: 8\n\n")[0].id.as_deref(), Some("8"));
        assert_eq!(events("retry: 5s\ndata: x\n\n")[0].retry_ms, None);
    }

    #[test]
    fn an_unfinished_event_is_none() {
        assert_eq!(data("data: a\n"), Vec::<String>::new());
    }

    #[test]
    fn splitting_changes_nothing() {
        const TEXT: &str = "\u{feff}event: a\r\ndata: ä\r\ndata: b\r\n\r\n: c\ndata\n\nid: 1\rdata: x\r\rretry: 9\n\n";
        let whole = events(TEXT);
        testing::check_property(500, |random| {
            let mut parser = Parser::default();
            let mut rest = TEXT.as_bytes();
            let mut found = Vec::new();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.below(rest.len()) + 1);
                found.extend(parser.push(piece).unwrap());
                rest = after;
            }
            assert_eq!(found, whole);
        });
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1024 * 1024];
        assert_eq!((0..40).find_map(|_| parser.push(&piece).err()), Some(TooLarge));
    }
}
