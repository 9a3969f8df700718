//! Where in what passes a line of a script begins to hold, and what passes then: a function of the messages, however they are cut
//! into pieces on their way.

use crate::messages::{Protocol, Reader};
use worldline_laws::script::{After, Line, Trouble, Way};

/// How far one way of one link has come.
#[derive(Debug)]
pub struct Place {
    pub direction: Way,
    protocol: Protocol,
    reader: Reader,
    /// The line that holds, and what has passed since.
    holds: Option<Held>,
    /// The beginning of a message that waits for its end.
    kept: Vec<u8>,
}

#[derive(Debug)]
struct Held {
    line: Line,
    bytes: u64,
    messages: u64,
    /// Its place is reached.
    reached: bool,
    /// One message was swallowed, where one is enough.
    over: bool,
}

/// What passes where a line holds.
#[derive(Debug, Default)]
pub struct Passed {
    pub at_once: Vec<u8>,
    /// Behind that, and late.
    pub late: Vec<u8>,
    /// Behind that the link meets its trouble.
    pub met: bool,
}

impl Place {
    pub fn new(direction: Way, protocol: Protocol) -> Self {
        Self { direction, protocol, reader: Reader::new(protocol, direction), holds: None, kept: vec![] }
    }

    /// All of it passes, and what was kept.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.reader.read(bytes);
        self.holds = None;
        [std::mem::take(&mut self.kept).as_slice(), bytes].concat()
    }

    /// What passes: whole messages, so that it is the same however they come.
    pub fn follow(&mut self, line: Line, bytes: &[u8]) -> Passed {
        if self.holds.as_ref().is_none_or(|held| held.line != line) {
            self.holds = Some(Held { line, bytes: 0, messages: 0, reached: false, over: false });
        }
        let before = self.kept.len();
        self.kept.extend_from_slice(bytes);
        let ends = self.reader.read(bytes);
        let Some(held) = self.holds.as_mut().filter(|_| line.way == self.direction) else {
            return Passed { at_once: std::mem::take(&mut self.kept), ..Passed::default() };
        };
        let (mut passed, mut at) = (Passed::default(), 0);
        for (end, counts) in ends.into_iter().map(|(end, counts)| (before + end, counts)) {
            let message = &self.kept[at..end];
            at = end;
            let place = held.place(message.len()).filter(|_| counts && !held.reached && !held.over);
            let whole = if let Some(place) = place {
                held.reached = true;
                passed.at_once.extend_from_slice(&message[..place]);
                &message[place..]
            } else {
                message
            };
            match (held.reached, line.trouble) {
                (false, _) => passed.at_once.extend_from_slice(whole),
                (true, Trouble::Delay) => passed.late.extend_from_slice(whole),
                // Where an answer is known by its name the others are heard.
                (true, Trouble::Swallow) if self.protocol == Protocol::Nats => {
                    (held.reached, held.over) = (false, true);
                }
                (true, Trouble::Swallow) => {}
                (true, Trouble::Cut | Trouble::Reset | Trouble::HalfClose) => {
                    passed.met = true;
                    break;
                }
            }
            held.bytes += if counts { message.len() as u64 } else { 0 };
            held.messages += u64::from(counts);
        }
        self.kept.drain(..at);
        passed
    }
}

impl Held {
    /// Whether its place lies in the next message: behind how many of its bytes.
    fn place(&self, length: usize) -> Option<usize> {
        match self.line.after {
            After::Bytes(bytes) => {
                let left = usize::try_from(u64::from(bytes).saturating_sub(self.bytes)).unwrap_or(usize::MAX);
                (left < length).then_some(left)
            }
            After::Messages(messages) => (self.messages >= u64::from(messages)).then_some(0),
        }
    }
}

#[test]
fn the_same_line_does_the_same_to_the_same_bytes() {
    let text = "PUB a 1\r\n1\r\nPING\r\nPUB a 1\r\n2\r\nPUB a 1\r\n3\r\n";
    let passed = |line: Line, piece: usize| {
        let (mut place, mut all, mut late) = (Place::new(Way::ToService, Protocol::Nats), vec![], false);
        for bytes in text.as_bytes().chunks(piece) {
            let passed = place.follow(line, bytes);
            late |= !passed.late.is_empty();
            all.extend([passed.at_once, passed.late].concat());
            if passed.met {
                return (String::from_utf8(all).unwrap(), true, late);
            }
        }
        (String::from_utf8(all).unwrap(), false, late)
    };
    let told = |after, trouble| {
        let line = Line { way: Way::ToService, after, trouble };
        let whole = passed(line, text.len());
        (1..text.len()).for_each(|piece| assert_eq!(passed(line, piece), whole, "{line:?} in pieces of {piece}"));
        whole
    };
    assert_eq!(told(After::Bytes(5), Trouble::Cut), (text[..5].to_owned(), true, false));
    assert_eq!(told(After::Bytes(13), Trouble::Cut), (text[..19].to_owned(), true, false), "a ping does not count");
    assert_eq!(told(After::Messages(1), Trouble::Reset), (text[..18].to_owned(), true, false));
    assert_eq!(told(After::Messages(2), Trouble::HalfClose), (text[..30].to_owned(), true, false));
    assert_eq!(told(After::Messages(9), Trouble::Cut), (text.to_owned(), false, false));
    let without_the_second = [&text[..18], &text[30..]].concat();
    assert_eq!(told(After::Messages(1), Trouble::Swallow), (without_the_second, false, false));
    assert_eq!(told(After::Messages(1), Trouble::Delay), (text.to_owned(), false, true));
    let other = Line { way: Way::ToCaller, after: After::Bytes(0), trouble: Trouble::Cut };
    assert_eq!(passed(other, 3), (text.to_owned(), false, false));
}
