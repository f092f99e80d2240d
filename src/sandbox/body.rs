//! Bodies in the two formats both sides speak, JSON and msgpack, as one kind of value.
//!
//! Used for reading requests, for the journal and for answering. Binary data, which JSON has no word for, is an object
//! with the one key `$binary` (base64). Must never read more than the cap.

use std::{fmt, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Longest body read, before and after decompression. Above any provider's own limit, so that those can answer.
pub(super) const CAP: usize = 4 * 1024 * 1024;

/// The key that marks binary data.
pub(super) const BINARY: &str = "$binary";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Msgpack,
}

impl Format {
    /// The content type, without a charset: ably-js compares it exactly.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Msgpack => "application/x-msgpack",
        }
    }

    /// Returns the format a media type (parameters ignored) names.
    pub fn of(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-msgpack") {
            Some(Self::Msgpack)
        } else {
            None
        }
    }

    pub fn decode(self, bytes: &[u8]) -> Result<Value, String> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
            Self::Msgpack => {
                let mut input = rmp_serde::Deserializer::from_read_ref(bytes);
                input.set_max_depth(128);
                Plain::deserialize(&mut input).map(|plain| plain.0).map_err(|error| error.to_string())
            }
        }
    }

    pub fn encode(self, value: &Value) -> Vec<u8> {
        match self {
            Self::Json => value.to_string().into_bytes(),
            Self::Msgpack => {
                let mut bytes = Vec::new();
                let mut output = rmp_serde::Serializer::new(&mut bytes);
                // A JSON value always has a msgpack form and a vector takes every byte.
                value.serialize(&mut output).expect("a JSON value fits msgpack");
                bytes
            }
        }
    }
}

/// Returns the bytes a gzip body stands for, at most [`CAP`] of them.
pub(super) fn gunzip(bytes: &[u8]) -> Result<Bytes, Problem> {
    let mut plain = Vec::new();
    let mut input = flate2::read::GzDecoder::new(bytes).take(CAP as u64 + 1);
    input.read_to_end(&mut plain).map_err(|_| Problem::Gzip)?;
    if plain.len() > CAP { Err(Problem::TooLarge) } else { Ok(plain.into()) }
}

/// Why a body could not be read; each provider has its own words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    TooLarge,
    Gzip,
    /// The client went silent in the middle.
    Incomplete,
}

/// A value read from msgpack, where keys may be anything and strings may be bytes.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(PlainVisitor).map(Self)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a msgpack value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // JavaScript's msgpack may write whole numbers as floats; JSON would show them as whole numbers.
        let whole = value as i64;
        if whole as f64 == value { Ok(whole.into()) } else { Ok(value.into()) }
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Object(Map::from_iter([(BINARY.to_owned(), STANDARD.encode(value).into())])))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Plain(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((Plain(key), Plain(value))) = map.next_entry()? {
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            values.insert(key, value);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_formats_carry_the_same_value() {
        let value = json!([{"a": [1, -2, 2.5, true, null], "ü": {"b": "c"}}]);
        for format in [Format::Json, Format::Msgpack] {
            assert_eq!(format.decode(&format.encode(&value)), Ok(value.clone()), "{format:?}");
        }
    }

    #[test]
    fn msgpack_binary_is_marked() {
        // {"data": bin8 of two bytes}
        let bytes = [0x81, 0xa4, b'd', b'a', b't', b'a', 0xc4, 2, 0xff, 0x00];
        assert_eq!(Format::Msgpack.decode(&bytes), Ok(json!({"data": {"$binary": "/wA="}})));
    }

    #[test]
    fn broken_bodies_are_errors() {
        assert!(Format::Json.decode(b"{").is_err());
        assert!(Format::Msgpack.decode(&[0x92, 0x01]).is_err());
        assert!(Format::Msgpack.decode(&[0x91; 4000]).is_err(), "too deep");
        assert_eq!(gunzip(b"not gzip"), Err(Problem::Gzip));
    }

    #[test]
    fn a_gzip_bomb_is_cut_off() {
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut bomb, &vec![b' '; CAP + 1]).unwrap();
        assert_eq!(gunzip(&bomb.finish().unwrap()), Err(Problem::TooLarge));
    }
}
