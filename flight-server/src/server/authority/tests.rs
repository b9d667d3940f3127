use super::*;
use bytes::Bytes;
use http::uri::Authority;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::{collection::vec, prelude::*};
use std::{convert::Infallible, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A field by a literal with incremental indexing, as gRPC's C core writes them.
fn spelled(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x40], &string(name.as_bytes())[..], &string(value)].concat()
}

fn string(value: &[u8]) -> Vec<u8> {
    [integer(0, 7, value.len()), value.to_vec()].concat()
}

fn integer(tag: u8, prefix_bits: u32, value: usize) -> Vec<u8> {
    let full = (1 << prefix_bits) - 1;
    if value < full {
        return vec![tag | value as u8];
    }
    let (mut octets, mut rest) = (vec![tag | full as u8], value - full);
    while rest >= 0x80 {
        octets.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    octets.push(rest as u8);
    octets
}

/// A frame on the first stream.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    [PREFACE, &settings, &frames.concat()].concat()
}

/// What comes out when it is read in pieces that end at these places.
fn passed(octets: &[u8], ends: &[usize]) -> Vec<u8> {
    let mut passed = octets.to_vec();
    let mut authorities = Authorities::default();
    let mut begin = 0;
    for &end in ends.iter().filter(|end| **end <= octets.len()).chain([&octets.len()]) {
        if end > begin {
            authorities.pass(&mut passed[begin..end]);
            begin = end;
        }
    }
    passed
}

/// The same in one piece, in two wherever that is, and octet by octet.
fn passed_anyhow(octets: &[u8]) -> Vec<u8> {
    let whole = passed(octets, &[]);
    for end in 1..octets.len() {
        assert_eq!(passed(octets, &[end]), whole, "split at {end}");
    }
    assert_eq!(passed(octets, &(1..octets.len()).collect::<Vec<_>>()), whole);
    whole
}

/// The block of pyarrow's first call, as it sends it.
fn first_call(authority: &[u8]) -> Vec<u8> {
    [
        spelled(":path", b"/arrow.flight.protocol.FlightService/ListActions"),
        spelled(":authority", authority),
        vec![0x83, 0x86],
        spelled("content-type", b"application/grpc"),
        spelled("te", b"trailers"),
        spelled("user-agent", b"grpc-c++/1.81.1 grpc-c/54.0.0 (linux; chttp2)"),
    ]
    .concat()
}

#[test]
fn a_path_becomes_a_name_of_the_same_length() {
    let call = |authority: &[u8]| {
        let later = frame(HEADERS, END_HEADERS, &[0xC4, 0xC3, 0x83, 0x86]);
        connection(&[
            frame(HEADERS, END_HEADERS, &first_call(authority)),
            frame(0, 1, b"%2F"),
            later,
        ])
    };
    assert_eq!(passed_anyhow(&call(b"tmp%2Fp_1%2Fs:1:2")), call(b"tmp-2Fp_1-2Fs:1-2"));
    assert_eq!(passed_anyhow(&call(b"localhost:47470")), call(b"localhost:47470"));
    assert_eq!(passed(&call(&[b'%'; 5000]), &[]), call(&[b'-'; 5000]));
}

#[test]
fn every_way_to_write_the_field_is_known() {
    let (path, level) = (string(b"a%2Fb"), string(b"a-2Fb"));
    for ahead in [
        vec![0x41],
        vec![0x01],
        vec![0x11],
        [vec![0x00], string(NAME)].concat(),
        [vec![0x10], string(NAME)].concat(),
        [vec![0x2F, 0x3F, 0xE1, 0x1F, 0x40], string(NAME)].concat(),
    ] {
        let of = |value: &[u8]| connection(&[frame(HEADERS, END_HEADERS, &[&ahead, value, &[0x83]].concat())]);
        assert_eq!(passed_anyhow(&of(&path)), of(&level), "{ahead:x?}");
    }
    // Other names, and a value that is coded.
    for field in [
        [vec![0x44], path.clone()].concat(),
        spelled(":authoritz", b"a%2Fb"),
        spelled(":authorit", b"a%2Fb"),
        spelled(":authority2", b"a%2Fb"),
        spelled("", b"a%2Fb"),
        spelled(":authority", b""),
        vec![0x41, 0x82, b'%', b'%'],
        [&[0x40, 0x8A], NAME, &path].concat(),
        integer(0x40, 6, 70).into_iter().chain(path).collect(),
    ] {
        let octets = connection(&[frame(HEADERS, END_HEADERS, &field)]);
        assert_eq!(passed_anyhow(&octets), octets, "{field:x?}");
    }
}

#[test]
fn a_block_may_be_padded_and_in_parts() {
    let of = |authority: &[u8]| {
        let block = first_call(authority);
        let (head, rest) = block.split_at(70);
        let (middle, end) = rest.split_at(3);
        let padding = spelled(":authority", b"%%");
        let priority = [0, 0, 0, 0, 16];
        let padded = [&[padding.len() as u8], &priority[..], head, &padding].concat();
        connection(&[
            frame(HEADERS, PADDED | PRIORITY, &padded),
            frame(CONTINUATION, 0, middle),
            frame(CONTINUATION, 0, &[]),
            frame(CONTINUATION, END_HEADERS | PADDED | PRIORITY, end),
            frame(
                HEADERS,
                END_HEADERS | PADDED,
                &[&[1][..], &spelled(":authority", authority), b"%"].concat(),
            ),
        ])
    };
    assert_eq!(passed_anyhow(&of(b"tmp%2Fs")), of(b"tmp-2Fs"));
}

#[test]
fn what_is_not_in_order_is_left_alone_from_there_on() {
    let call = frame(HEADERS, END_HEADERS, &spelled(":authority", b"%"));
    for strange in [
        frame(CONTINUATION, 0, &[]),
        [frame(HEADERS, 0, &[]), frame(0, 0, &[])].concat(),
        frame(HEADERS, END_HEADERS, &[0x41, 9]),
        frame(HEADERS, END_HEADERS, &[0x7F, 0x80, 0x80, 0x80, 0x80, 0, 0]),
        frame(HEADERS, END_HEADERS | PADDED, &[9, 0x83]),
        frame(HEADERS, END_HEADERS | PRIORITY, &[9, 0x83]),
    ] {
        let octets = connection(&[strange.clone(), call.clone()]);
        assert_eq!(passed_anyhow(&octets), octets, "{strange:x?}");
    }
    for (text, rest) in [
        ("GET / HTTP/1.1\r\n\r\n", &call),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\n\n", &call),
    ] {
        let octets = [text.as_bytes(), rest].concat();
        assert_eq!(passed_anyhow(&octets), octets);
    }
}

/// hyper answers on what came through, and refuses the same as it was.
#[tokio::test]
async fn the_server_takes_what_comes_out() {
    let octets = connection(&[frame(HEADERS, END_HEADERS | 1, &first_call(b"tmp%2Fs"))]);
    assert_eq!(answer(&octets).await, 3, "RST_STREAM");
    assert_eq!(answer(&passed(&octets, &[])).await, HEADERS);
}

/// The kind of the first frame that a server sends on the first stream.
async fn answer(octets: &[u8]) -> u8 {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let service = service_fn(async |_| Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new())));
    let serving = tokio::spawn(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service),
    );
    client.write_all(octets).await.unwrap();
    let answered = async {
        loop {
            let mut head = [0; FRAME_HEAD_BYTES];
            client.read_exact(&mut head).await.unwrap();
            let [l0, l1, l2, kind, .., stream] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            client.read_exact(&mut payload).await.unwrap();
            if stream == 1 {
                return kind;
            }
        }
    };
    let kind = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    serving.abort();
    kind
}

/// A frame that is none of a header block, or a whole block without an authority that is changed.
fn harmless() -> impl Strategy<Value = Vec<u8>> {
    let name = "[a-z:-]{0,12}".prop_filter("another name", |name| name.as_bytes() != NAME);
    let field = prop_oneof![
        (0x80_u8..).prop_map(|indexed| match indexed {
            0xFF => vec![0xFF, 0],
            _ => vec![indexed],
        }),
        (name, vec(any::<u8>(), 0..300)).prop_map(|(name, value)| spelled(&name, &value)),
        (2_usize..300, vec(any::<u8>(), 0..9))
            .prop_map(|(name, value)| [integer(0x10, 4, name), string(&value)].concat()),
        "[a-z.]{1,20}(:[0-9]{1,5})?".prop_map(|host| spelled(":authority", host.as_bytes())),
        vec(any::<u8>(), 0..9).prop_map(|coded| [&[0x41, 0x80 | coded.len() as u8], &coded[..]].concat()),
    ];
    let block =
        (vec(field, 0..6), any::<prop::sample::Index>(), vec(any::<u8>(), 0..9)).prop_map(|(fields, cut, padding)| {
            let block = fields.concat();
            let (head, end) = block.split_at(cut.index(block.len() + 1));
            let padded = [&[padding.len() as u8], head, &padding].concat();
            [frame(HEADERS, PADDED, &padded), frame(CONTINUATION, END_HEADERS, end)].concat()
        });
    let other = (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..99))
        .prop_filter("of a header block", |(kind, ..)| {
            ![HEADERS, CONTINUATION].contains(kind)
        })
        .prop_map(|(kind, flags, payload)| frame(kind, flags, &payload));
    prop_oneof![block, other]
}

proptest! {
    #[test]
    fn all_else_stays_as_it_is(frames in vec(harmless(), 0..8), mut ends in vec(0_usize..4000, 0..20)) {
        ends.sort_unstable();
        let octets = connection(&frames);
        prop_assert_eq!(passed(&octets, &ends), octets);
    }

    #[test]
    fn every_authority_is_one_thereafter(value in vec(any::<u8>(), 1..300), frames in vec(harmless(), 0..4)) {
        let before = [connection(&frames), frame(HEADERS, END_HEADERS, &spelled(":authority", &value))].concat();
        let after = passed(&before, &[]);
        let (same, value) = after.split_at(after.len() - value.len());
        prop_assert!(before.starts_with(same));
        prop_assert!(Authority::try_from(value).is_ok(), "{:?}", value);
    }

    #[test]
    fn no_octets_hurt(octets in vec(any::<u8>(), 0..600), blocks in any::<bool>(), mut ends in vec(0_usize..700, 0..20)) {
        ends.sort_unstable();
        let octets = match blocks {
            true => connection(&octets.chunks(99).map(|block| frame(HEADERS, END_HEADERS, block)).collect::<Vec<_>>()),
            false => [PREFACE, &octets].concat(),
        };
        let whole = passed(&octets, &[]);
        prop_assert_eq!(whole.len(), octets.len());
        prop_assert_eq!(passed(&octets, &ends), whole);
    }
}
