use super::*;
use crate::chance::{Chance, SeededChance};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value},
};

#[test]
fn sizes_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        (" 17 B ", 17),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("64M", 64 << 20),
        ("10 GB", 10_000_000_000),
        ("1.5 GiB", 3 << 29),
        ("0.25k", 256),
        ("7kB", 7000),
        ("15.999EiB", 0),
        ("18446744073709551615", u64::MAX),
    ] {
        match text.parse::<ByteSize>() {
            Ok(size) => assert_eq!(size.0, bytes, "{text}"),
            Err(error) => assert_eq!((error.why, bytes), (TOO_FINE, 0), "{text}"),
        }
    }
}

#[test]
fn what_is_no_size_is_refused_with_a_hint() {
    for text in [
        "",
        "B",
        "MiB",
        "-1",
        "1 zebra",
        "1.",
        ".5",
        "1..2",
        "1e9",
        "0.3B",
        "16EiB",
        "99999999999999999999",
        "１",
    ] {
        let error = text.parse::<ByteSize>().unwrap_err();
        assert!(error.to_string().contains("is not a size"), "{error}");
    }
    assert!("9".repeat(1_000_000).parse::<ByteSize>().unwrap_err().to_string().len() < 200);
}

#[test]
fn sizes_are_written_in_the_shortest_exact_way() {
    for (bytes, text) in [
        (0, "0B"),
        (1, "1B"),
        (1000, "1KB"),
        (1023, "1023B"),
        (1 << 20, "1MiB"),
        (1_024_000, "1000KiB"),
        (10_000_000_000, "10GB"),
        (u64::MAX, "18446744073709551615B"),
    ] {
        assert_eq!(ByteSize(bytes).to_string(), text);
    }
    assert_eq!(ByteSize(3 << 29).rounded(), "1.5 GiB");
    assert_eq!(ByteSize(u64::MAX).rounded(), "15.9 EiB");
    assert_eq!(format!("{:>8}|", ByteSize(1)), "      1B|");
}

#[test]
fn durations_are_read_as_people_write_them() {
    for (text, millis) in [
        ("0", 0),
        ("100ms", 100),
        ("10s", 10_000),
        ("1.5 s", 1_500),
        ("10 min", 600_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1h 30min 5s", 5_405_000),
        ("2 Days", 172_800_000),
        ("1w", 604_800_000),
        ("1000us", 1),
        ("1000000 ns", 1),
        ("3000µs", 3),
    ] {
        assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn what_is_no_duration_is_refused_with_a_hint() {
    for text in [
        "",
        "s",
        "30",
        "-1s",
        "1.5ns",
        "10 parsecs",
        "1h30",
        "s1",
        "1s,2s",
        "999999999999999999999999999999w",
    ] {
        let error = parse_duration(text).unwrap_err();
        assert!(error.to_string().contains("is not a duration"), "{error}");
    }
}

#[test]
fn whatever_is_written_reads_back_as_the_same_value() {
    let seed = 64;
    println!("seed {seed}");
    let chance = SeededChance::new(seed);
    for _ in 0..50_000 {
        // Every magnitude as often as every other, and round numbers as often as crooked ones.
        let crooked = chance.u64() >> chance.below(64);
        let (name, scale) = BINARY.iter().chain(&DECIMAL).nth(chance.below(12) as usize).unwrap();
        let round = (crooked % 100).saturating_mul(*scale);
        for bytes in [crooked, round] {
            let text = ByteSize(bytes).to_string();
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text} {name}");
            let duration = Duration::new(bytes, (chance.below(1_000_000_000)) as u32);
            for duration in [duration, Duration::from_nanos(bytes), Duration::from_secs(bytes)] {
                let text = format_duration(duration);
                assert_eq!(parse_duration(&text).unwrap(), duration, "{text}");
            }
        }
    }
}

#[test]
fn random_text_never_panics() {
    let seed = 65;
    println!("seed {seed}");
    let chance = SeededChance::new(seed);
    let alphabet: Vec<char> = "0123456789.. kKmMgGiIbBsShµ-+eE\u{ff11}\0".chars().collect();
    for _ in 0..50_000 {
        let len = chance.below(12);
        let text: String = (0..len)
            .map(|_| alphabet[chance.below(alphabet.len() as u64) as usize])
            .collect();
        let _ = (text.parse::<ByteSize>(), parse_duration(&text));
    }
}

#[test]
fn settings_hold_sizes_as_text_or_number_and_durations_as_text() {
    let size = |text: &str| ByteSize::deserialize(IntoDeserializer::<value::Error>::into_deserializer(text));
    assert_eq!(size("64MiB"), Ok(ByteSize::mib(64)));
    assert!(size("64 apples").unwrap_err().to_string().contains("is not a size"));
    let number = |bytes: i64| ByteSize::deserialize(IntoDeserializer::<value::Error>::into_deserializer(bytes));
    assert_eq!(number(4096), Ok(ByteSize(4096)));
    assert!(number(-1).is_err());
    let text: value::StrDeserializer<'_, value::Error> = "250ms".into_deserializer();
    assert_eq!(duration::deserialize(text), Ok(Duration::from_millis(250)));
}
