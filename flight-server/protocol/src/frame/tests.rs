use super::*;
use arrow_flight::FlightData;
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use prost::Message;

/// What the stock codec puts on the wire.
fn stock(data: &FlightData) -> Bytes {
    let message = data.encode_to_vec();
    let mut out = BytesMut::new();
    out.put_slice(&prefix(message.len()).unwrap());
    out.put_slice(&message);
    out.freeze()
}

/// All messages of a stream that arrives in frames of `sizes` (repeated), and how it ended.
fn parse_all(wire: &[u8], sizes: &[usize], caps: Caps) -> Result<Vec<FlightMessage>, FrameError> {
    let mut parser = Parser::new(caps);
    let (mut out, mut rest, mut turn) = (Vec::new(), wire, 0);
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(sizes[turn % sizes.len()].clamp(1, rest.len()));
        parser.push(Bytes::copy_from_slice(frame));
        while let Some(message) = parser.next_message()? {
            out.push(message);
        }
        (rest, turn) = (after, turn + 1);
    }
    parser.finish().map(|()| out)
}

fn same(message: &FlightMessage, data: &FlightData) -> bool {
    message.descriptor == data.flight_descriptor
        && message.data_header == data.data_header
        && message.app_metadata == data.app_metadata
        && message.body.concat() == data.data_body
}

fn flight_data() -> impl Strategy<Value = FlightData> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let descriptor = prop::option::of(prop::collection::vec("[a-z]{0,9}", 0..3).prop_map(FlightDescriptor::new_path));
    (
        descriptor,
        bytes(),
        bytes(),
        prop::collection::vec(any::<u8>(), 0..5000),
    )
        .prop_map(|(d, header, meta, body)| FlightData {
            flight_descriptor: d,
            data_header: header.into(),
            app_metadata: meta.into(),
            data_body: body.into(),
        })
}

#[test]
fn a_body_is_a_slice_of_its_frame() {
    let data = FlightData {
        data_body: vec![7; 4096].into(),
        data_header: vec![1; 200].into(),
        ..Default::default()
    };
    let wire = stock(&data);
    let mut parser = Parser::new(Caps::default());
    parser.push(wire.clone());
    let message = parser.next_message().unwrap().unwrap();
    assert_eq!(message.body.len(), 1);
    let range = wire.as_ptr_range();
    assert!(range.contains(&message.body[0].as_ptr()) && range.contains(&message.data_header.as_ptr()));
}

#[test]
fn a_byte_a_frame_does_not_cost_a_slice_a_byte() {
    let data = FlightData {
        data_body: vec![7; 100_000].into(),
        ..Default::default()
    };
    let messages = parse_all(&stock(&data), &[1], Caps::default()).unwrap();
    assert_eq!((messages[0].body.len(), messages[0].body_len()), (1, 100_000));
}

#[test]
fn fields_in_any_order_twice_and_unknown_are_taken() {
    let mut message = Vec::new();
    for (number, bytes) in [
        (1000, &b"old body"[..]),
        (77, b"news"),
        (3, b"meta"),
        (1000, b"body"),
        (2, b"head"),
    ] {
        message.extend(field(number, bytes));
    }
    message.extend([
        8 << 3,
        0x96,
        1,
        9 << 3 | 5,
        1,
        2,
        3,
        4,
        10 << 3 | 1,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
    ]);
    let wire = [&prefix(message.len()).unwrap()[..], &message].concat();
    for size in 1..wire.len() {
        let got = parse_all(&wire, &[size], Caps::default()).unwrap();
        let [m] = &got[..] else { panic!("{got:?}") };
        assert_eq!(
            (&m.data_header[..], &m.app_metadata[..], m.body.concat()),
            (&b"head"[..], &b"meta"[..], b"body".to_vec())
        );
    }
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut out);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend(bytes);
    out
}

#[test]
fn a_claimed_length_beyond_its_cap_is_refused_before_the_bytes_come() {
    let caps = Caps {
        message: 1000,
        header: 100,
        app_metadata: 10,
    };
    let refused = |wire: &[u8]| {
        let mut parser = Parser::new(caps);
        parser.push(Bytes::copy_from_slice(wire));
        parser.next_message().unwrap_err()
    };
    assert_eq!(
        refused(&[0, 0x7f, 0, 0, 0]),
        FrameError::TooLarge {
            what: "message",
            bytes: 0x7f00_0000,
            most: 1000
        }
    );
    let header = [&prefix(500).unwrap()[..], &[2 << 3 | 2, 101]].concat();
    assert_eq!(
        refused(&header),
        FrameError::TooLarge {
            what: "data_header",
            bytes: 101,
            most: 100
        }
    );
    let meta = [&prefix(500).unwrap()[..], &[3 << 3 | 2, 11]].concat();
    assert_eq!(
        refused(&meta),
        FrameError::TooLarge {
            what: "app_metadata",
            bytes: 11,
            most: 10
        }
    );
}

#[test]
fn what_is_no_message_is_refused() {
    let refused = |message: &[u8]| {
        parse_all(
            &[&prefix(message.len()).unwrap()[..], message].concat(),
            &[3],
            Caps::default(),
        )
    };
    assert!(
        matches!(refused(&[2 << 3 | 2, 5, 1]), Err(FrameError::Malformed(_))),
        "a field longer than its message"
    );
    assert!(
        matches!(refused(&[2 << 3 | 3]), Err(FrameError::Malformed(_))),
        "a group"
    );
    assert!(
        matches!(refused(&[2, 0]), Err(FrameError::Malformed(_))),
        "field number 0"
    );
    assert!(
        matches!(refused(&[0xff; 12]), Err(FrameError::Malformed(_))),
        "an endless varint"
    );
    assert!(
        matches!(refused(&[0x12, 0x80]), Err(FrameError::Malformed(_))),
        "a length cut off"
    );
    assert!(
        matches!(refused(&[1 << 3 | 2, 2, 0xff, 0xff]), Err(FrameError::Malformed(_))),
        "no descriptor"
    );
    assert_eq!(
        parse_all(&[1, 0, 0, 0, 0], &[1], Caps::default()),
        Err(FrameError::Compressed)
    );
    assert!(matches!(
        parse_all(&[9, 0, 0, 0, 0], &[1], Caps::default()),
        Err(FrameError::Malformed(_))
    ));
}

#[test]
fn a_stream_may_end_only_between_messages() {
    let wire = stock(&FlightData {
        data_body: vec![1; 50].into(),
        ..Default::default()
    });
    for end in 1..wire.len() {
        assert_eq!(
            parse_all(&wire[..end], &[7], Caps::default()),
            Err(FrameError::Truncated),
            "{end}"
        );
    }
    assert_eq!(parse_all(&[], &[1], Caps::default()), Ok(vec![]));
}

#[test]
fn an_empty_message_is_a_message() {
    assert_eq!(
        parse_all(&[0; 10], &[4], Caps::default()),
        Ok(vec![FlightMessage::default(); 2])
    );
}

#[test]
fn a_message_that_grpc_cannot_frame_is_refused() {
    assert!(head(None, b"x", b"", u32::MAX as usize).is_err());
    assert!(prefix(u32::MAX as usize).is_ok());
}

/// Random streams, half of them mutations of good ones, in random frames: an answer or an error, never a panic, never more
/// than was sent.
#[test]
fn no_stream_panics() {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    println!("seed {seed:#x}");
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = stock(&FlightData {
        flight_descriptor: Some(FlightDescriptor::new_cmd("{\"path\":\"/a\"}")),
        data_header: vec![1; 40].into(),
        app_metadata: vec![2; 10].into(),
        data_body: vec![3; 64].into(),
    });
    for round in 0..20_000 {
        let mut wire = if round % 2 == 0 {
            good.to_vec()
        } else {
            (0..next() % 64).map(|_| next() as u8).collect()
        };
        for _ in 0..next() % 4 {
            match next() % 3 {
                0 if !wire.is_empty() => {
                    let at = next() as usize % wire.len();
                    wire[at] = next() as u8;
                }
                1 => wire.truncate(next() as usize % (wire.len() + 1)),
                _ => wire.insert(next() as usize % (wire.len() + 1), next() as u8),
            }
        }
        let caps = Caps {
            message: 1 << 16,
            header: 64,
            app_metadata: 64,
        };
        let sizes = [next() as usize % 40 + 1, next() as usize % 9 + 1];
        if let Ok(messages) = parse_all(&wire, &sizes, caps) {
            assert!(
                messages
                    .iter()
                    .map(|m| m.body_len() + m.data_header.len())
                    .sum::<usize>()
                    <= wire.len()
            );
        }
        let mut small = Messages::new(1 << 16);
        small.push(wire.into());
        while let Ok(Some(_)) = small.next_message() {}
    }
}

proptest! {
    #[test]
    fn what_the_stock_codec_writes_is_read(data in prop::collection::vec(flight_data(), 1..4), sizes in prop::collection::vec(1usize..3000, 1..6)) {
        let wire: Vec<u8> = data.iter().flat_map(|d| stock(d).to_vec()).collect();
        let got = parse_all(&wire, &sizes, Caps::default()).unwrap();
        prop_assert_eq!(got.len(), data.len());
        prop_assert!(got.iter().zip(&data).all(|(m, d)| same(m, d)));
    }

    #[test]
    fn what_is_written_the_stock_codec_reads(data in flight_data()) {
        let mut wire = head(data.flight_descriptor.as_ref(), &data.data_header, &data.app_metadata, data.data_body.len()).unwrap().to_vec();
        wire.extend_from_slice(&data.data_body);
        prop_assert_eq!(FlightData::decode(&wire[5..]).unwrap(), data);
        prop_assert_eq!(u32::from_be_bytes(wire[1..5].try_into().unwrap()) as usize, wire.len() - 5);
    }

    #[test]
    fn small_messages_are_split(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6), size in 1usize..60) {
        let wire: Vec<u8> = messages.iter().flat_map(|m| [&prefix(m.len()).unwrap()[..], m].concat()).collect();
        let (mut splitter, mut got) = (Messages::new(64), Vec::new());
        for frame in wire.chunks(size) {
            splitter.push(Bytes::copy_from_slice(frame));
            while let Some(message) = splitter.next_message().unwrap() {
                got.push(message.to_vec());
            }
        }
        prop_assert_eq!(got, messages);
        prop_assert!(splitter.finish().is_ok());
    }
}
