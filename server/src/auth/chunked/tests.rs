//! AWS's published streams, and what becomes of them when they are tampered with.

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
const CHUNKS: [&str; 3] = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
];
const TRAILER_SEED: &str = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
const TRAILER_CHUNKS: [&str; 3] = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
];
const TRAILER: &str = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
const SIZE: u64 = 66_560;

fn signer(seed: &str) -> ChunkSigner {
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed, &mut bytes).unwrap();
    let key = SigningKey::derive(SECRET, "20130524", "us-east-1");
    ChunkSigner::new(
        key,
        "20130524T000000Z",
        "20130524/us-east-1/s3/aws4_request",
        bytes,
    )
}

fn signed(seed: &str, trailer: TrailerUse) -> Framing {
    Framing {
        decoded_len: SIZE,
        signer: Some(signer(seed)),
        trailer,
    }
}

fn unsigned(decoded_len: u64, trailer: TrailerUse) -> Framing {
    Framing {
        decoded_len,
        signer: None,
        trailer,
    }
}

fn declared() -> TrailerUse {
    TrailerUse::Declared("x-amz-checksum-crc32c".to_owned())
}

fn body(signatures: [&str; 3], end: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (size, signature) in [65_536_usize, 1024, 0].into_iter().zip(signatures) {
        body.extend(format!("{size:x};chunk-signature={signature}\r\n").into_bytes());
        body.extend(std::iter::repeat_n(b'a', size));
        if size > 0 {
            body.extend(b"\r\n");
        }
    }
    body.extend(end.as_bytes());
    body
}

type Decoded = Result<(Vec<u8>, Option<(String, String)>)>;

fn decode_in_pieces(framing: Framing, body: &[u8], piece: usize) -> Decoded {
    let mut decoder = ChunkDecoder::new(framing);
    let mut out = Vec::new();
    for piece in body.chunks(piece) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(data) = decoder.next(&mut input)? {
            out.extend_from_slice(&data);
        }
    }
    Ok((out, decoder.finish()?))
}

fn decode(framing: Framing, body: &[u8]) -> Decoded {
    decode_in_pieces(framing, body, 4096)
}

fn code(framing: Framing, body: &[u8]) -> Code {
    decode(framing, body).expect_err("must be refused").code()
}

#[test]
fn the_published_signed_stream_is_decoded_however_it_is_cut() {
    for piece in [1, 7, 1000, 1 << 20] {
        let (data, trailer) = decode_in_pieces(
            signed(SEED, TrailerUse::Never),
            &body(CHUNKS, "\r\n"),
            piece,
        )
        .unwrap();
        assert_eq!(data, vec![b'a'; 66_560]);
        assert_eq!(trailer, None);
    }
}

#[test]
fn the_published_stream_with_a_trailer_is_decoded() {
    let end =
        format!("x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{TRAILER}\r\n\r\n");
    let (data, trailer) = decode(
        signed(TRAILER_SEED, declared()),
        &body(TRAILER_CHUNKS, &end),
    )
    .unwrap();
    assert_eq!(data.len(), 66_560);
    assert_eq!(
        trailer,
        Some(("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned()))
    );
}

#[test]
fn a_signed_stream_that_was_changed_is_refused() {
    let whole = body(CHUNKS, "\r\n");
    let never = || signed(SEED, TrailerUse::Never);
    let mut flipped = whole.clone();
    flipped[1000] ^= 1;
    assert_eq!(code(never(), &flipped), Code::SignatureDoesNotMatch);
    let swapped = body([CHUNKS[1], CHUNKS[0], CHUNKS[2]], "\r\n");
    assert_eq!(code(never(), &swapped), Code::SignatureDoesNotMatch);
    assert_eq!(
        code(never(), &body([CHUNKS[0], CHUNKS[1], CHUNKS[1]], "\r\n")),
        Code::SignatureDoesNotMatch
    );
    for cut in [10, 5000, 65_700, whole.len() - 100, whole.len() - 1] {
        assert_eq!(code(never(), &whole[..cut]), Code::IncompleteBody, "{cut}");
    }
    let mut longer = whole;
    longer.push(b'x');
    assert_eq!(code(never(), &longer), Code::IncompleteBody);
}

#[test]
fn a_trailer_is_what_was_declared_and_signed() {
    let value = "x-amz-checksum-crc32c:sOO8/Q==\r\n";
    let signature = format!("x-amz-trailer-signature:{TRAILER}\r\n");
    let other = format!("x-amz-trailer-signature:{}\r\n", "00".repeat(32));
    let rows = [
        (format!("{signature}\r\n"), Code::MalformedTrailerError),
        (format!("{value}\r\n"), Code::MalformedTrailerError),
        ("\r\n".to_owned(), Code::MalformedTrailerError),
        (
            format!("{value}{value}{signature}\r\n"),
            Code::MalformedTrailerError,
        ),
        (
            format!("{value}{signature}{signature}\r\n"),
            Code::MalformedTrailerError,
        ),
        (
            format!("x-amz-checksum-crc32:AAAAAA==\r\n{signature}\r\n"),
            Code::MalformedTrailerError,
        ),
        (format!("{value}{other}\r\n"), Code::SignatureDoesNotMatch),
        (
            format!("x-amz-checksum-crc32c:AAAAAA==\r\n{signature}\r\n"),
            Code::SignatureDoesNotMatch,
        ),
        (format!("{value}{signature}"), Code::IncompleteBody),
    ];
    for (end, expected) in rows {
        let framing = signed(TRAILER_SEED, declared());
        assert_eq!(
            code(framing, &body(TRAILER_CHUNKS, &end)),
            expected,
            "{end}"
        );
    }
}

#[test]
fn the_unsigned_form_is_decoded() {
    let text = b"b;x=y\r\nhello world\r\n0\r\nx-amz-checksum-crc32c:yZRlqg==\r\n\r\n";
    let (data, trailer) = decode(unsigned(11, declared()), text).unwrap();
    assert_eq!(data, b"hello world");
    assert_eq!(trailer.unwrap().1, "yZRlqg==");
    let (data, trailer) = decode(unsigned(0, TrailerUse::Undeclared), b"0\r\n\r\n").unwrap();
    assert_eq!((data.len(), trailer), (0, None));
}

#[test]
fn broken_framing_is_incomplete() {
    let rows: [&[u8]; 12] = [
        b"",
        b"b\nhello world\r\n0\r\n\r\n",
        b"b\r\nhello world0\r\n\r\n",
        b"b\r\nhello worldxx0\r\n\r\n",
        b"\r\nhello world\r\n0\r\n\r\n",
        b"+b\r\nhello world\r\n0\r\n\r\n",
        b"0xb\r\nhello world\r\n0\r\n\r\n",
        b"-1\r\nhello world\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello world\r\n0\r\n\r\n",
        b"c\r\nhello world!\r\n0\r\n\r\n",
        b"a\r\nhello worl\r\n0\r\n\r\n",
        b"b\r\nhello world\r\n0\r\n",
    ];
    for row in rows {
        let framing = unsigned(11, TrailerUse::Undeclared);
        assert_eq!(
            code(framing, row),
            Code::IncompleteBody,
            "{}",
            row.escape_ascii()
        );
    }
    let long = format!("b;{}\r\nhello world\r\n0\r\n\r\n", "x".repeat(2000));
    assert_eq!(
        code(unsigned(11, TrailerUse::Undeclared), long.as_bytes()),
        Code::IncompleteBody
    );
}

#[test]
fn only_the_last_chunk_may_be_small() {
    let text = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert_eq!(
        code(unsigned(11, TrailerUse::Undeclared), text),
        Code::InvalidChunkSizeError
    );
}
