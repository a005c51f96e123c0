//! An origin that fails at random: right bytes or an error, within the deadline.

use std::time::Duration;

use proptest::prelude::*;

use super::script::{Seen, Server, Step, answer, send};
use super::source::{bytes, fetch, good, right};
use super::{config, in_time};
use crate::origin::Client;
use crate::source::FetchError;

const SIZE: usize = (3 << 20) + 12_345;

const SILENCE: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug)]
enum Mood {
    Good,
    /// The answer breaks off after a part, of 255, of it.
    Breaks(u8, bool),
    Status(u16),
    Resets,
    Garbage,
    OtherRange,
    OtherTag,
    /// Chunks that are longer, or shorter, than the range.
    Chunks(i8),
    /// A few bytes at a time.
    Trickles,
    /// Nothing more comes, before the answer or in its middle.
    Hangs(bool),
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        2 => Just(Mood::Good),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(at, resets)| Mood::Breaks(at, resets)),
        2 => prop_oneof![Just(500), Just(503), Just(429)].prop_map(Mood::Status),
        1 => Just(Mood::Resets),
        1 => Just(Mood::Garbage),
        1 => Just(Mood::OtherRange),
        1 => Just(Mood::OtherTag),
        2 => any::<i8>().prop_map(Mood::Chunks),
        1 => Just(Mood::Trickles),
        1 => any::<bool>().prop_map(Mood::Hangs),
    ]
}

fn steps(mood: Mood, seen: &Seen) -> Vec<Step> {
    let (first, end) = seen.range();
    let (head, len) = (right(first, end, SIZE), end - first);
    let with_length = format!("HTTP/1.1 206 X\r\n{head}content-length: {len}\r\n\r\n");
    match mood {
        Mood::Good => vec![good(seen, SIZE)],
        Mood::Breaks(at, resets) => {
            let part = len * usize::from(at) / 256;
            let end = if resets { Step::Reset } else { Step::Close };
            vec![
                send(with_length),
                Step::Send(bytes(first..first + part)),
                end,
            ]
        }
        Mood::Status(status) => vec![answer(status, "", b"<Error/>")],
        Mood::Resets => vec![Step::Reset],
        Mood::Hangs(true) => vec![Step::Hang],
        Mood::Hangs(false) => {
            let part = Step::Send(bytes(first..first + len / 2));
            vec![send(with_length), part, Step::Hang]
        }
        Mood::Garbage => vec![Step::Send(bytes(0..1000)), Step::Close],
        Mood::OtherRange => {
            let head = right(first + 1, end + 1, SIZE);
            vec![answer(206, &head, &bytes(first + 1..end + 1))]
        }
        Mood::OtherTag => {
            let head = head.replace("\"e\"", "\"f\"");
            vec![answer(206, &head, &vec![0; len])]
        }
        Mood::Chunks(more) => {
            let end = (end.saturating_add_signed(isize::from(more))).max(first + 1);
            let head = format!("HTTP/1.1 206 X\r\n{head}transfer-encoding: chunked\r\n\r\n");
            let mut steps = vec![send(head)];
            for at in (first..end).step_by(100_000) {
                let chunk = bytes(at..end.min(at + 100_000));
                steps.push(send(format!("{:x}\r\n", chunk.len())));
                steps.push(Step::Send(chunk));
                steps.push(send("\r\n"));
            }
            steps.push(send("0\r\n\r\n"));
            steps
        }
        Mood::Trickles => {
            let mut steps = vec![send(with_length)];
            let pieces = (first..end).step_by(len / 10 + 1);
            steps.extend(pieces.map(|at| Step::Send(bytes(at..end.min(at + len / 10 + 1)))));
            steps
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flaky_origin_never_gives_a_wrong_byte(
        moods in prop::collection::vec(mood(), 1..12),
        start in 0..SIZE - 1,
        len in 1..SIZE,
    ) {
        let range = start..SIZE.min(start + len);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let of_server = moods.clone();
            let server = Server::start(move |n, seen| {
                steps(of_server.get(n).copied().unwrap_or(Mood::Good), seen)
            })
            .await;
            // If that is too short for a busy machine, there is one failure more.
            let mut config = config(&server.url());
            config.deadlines.head = SILENCE;
            config.deadlines.silence = SILENCE;
            let client = Client::new(config).unwrap();
            let (yielded, end) = in_time(fetch(&client, SIZE, range.clone())).await;
            assert!(yielded.len() <= range.len());
            assert_eq!(yielded, bytes(range.start..range.start + yielded.len()));
            match end {
                Ok(()) => assert_eq!(yielded.len(), range.len()),
                // Only who has said so is believed to have changed.
                Err(FetchError::Changed) => {
                    assert!(moods.iter().any(|mood| matches!(mood, Mood::OtherTag)));
                }
                Err(FetchError::Denied(why)) => panic!("{why}"),
                Err(FetchError::Unavailable(_) | FetchError::Corrupt(_)) => {}
            }
        });
    }
}
