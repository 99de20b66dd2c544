//! Frames on streams: a four-byte little-endian length, then postcard. The length is checked before anything is allocated.

use serde::{Serialize, de::DeserializeOwned};

use crate::limits;

/// Bytes before each frame.
pub const HEADER: usize = 4;

/// A frame that cannot be sent or understood. The stream it came on is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the bound; nothing was allocated.
    #[error("a frame of {len} bytes is over the limit of {limit}")]
    TooLong { len: usize, limit: usize },
    /// The bytes are no such message.
    #[error("a frame does not decode: {0}")]
    Malformed(String),
}

/// Encodes one message with its header.
///
/// # Errors
/// [`FrameError::TooLong`] when the message is over `limit` bytes.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::new();
    encode_into(message, &mut out, limit)?;
    Ok(out)
}

/// Appends one message with its header, so that many frames make one write.
///
/// # Errors
/// [`FrameError::TooLong`] when the message is over `limit` bytes. `out` is as it was then.
pub fn encode_into<T: Serialize>(message: &T, out: &mut Vec<u8>, limit: usize) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let result = postcard::serialize_with_flavor(message, Appended(out)).map_err(|e| FrameError::Malformed(e.to_string())).and_then(|()| {
        let len = out.len() - start - HEADER;
        let header = u32::try_from(len).ok().filter(|_| len <= limit).ok_or(FrameError::TooLong { len, limit })?;
        out[start..start + HEADER].copy_from_slice(&header.to_le_bytes());
        Ok(())
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Lets postcard write behind what a buffer already holds.
struct Appended<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads a header: how many bytes follow.
///
/// # Errors
/// [`FrameError::TooLong`] when they are over `limit`.
pub fn body_len(header: [u8; HEADER], limit: usize) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(header) as usize;
    if len > limit { Err(FrameError::TooLong { len, limit }) } else { Ok(len) }
}

/// Decodes one message that fills the bytes exactly.
///
/// # Errors
/// [`FrameError::Malformed`] for anything else, trailing bytes included.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::Malformed(format!("{} bytes too many", rest.len()))),
        Err(e) => Err(FrameError::Malformed(e.to_string())),
    }
}

/// A value's encoded bytes; what does not encode weighs a whole control frame, which is more than any room for a part of one.
pub fn weight<T: Serialize>(value: &T) -> usize {
    postcard::experimental::serialized_size(value).unwrap_or(limits::CONTROL_FRAME)
}

/// [`encode`] bounded by [`limits::CONTROL_FRAME`].
///
/// # Errors
/// As [`encode`].
pub fn encode_control<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    encode(message, limits::CONTROL_FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_exact() {
        // postcard writes a three-byte length before 2^16 bytes
        let body = |n: usize| vec![7u8; n];
        assert!(encode(&body(65_533), 65_536).is_ok());
        assert_eq!(encode(&body(65_534), 65_536), Err(FrameError::TooLong { len: 65_537, limit: 65_536 }));
        assert_eq!(body_len(9u32.to_le_bytes(), 9), Ok(9));
        assert_eq!(body_len(10u32.to_le_bytes(), 9), Err(FrameError::TooLong { len: 10, limit: 9 }));
    }

    #[test]
    fn frames_append_and_a_refused_one_leaves_no_trace() {
        let mut out = encode_control(&1u8).expect("encodes");
        assert!(matches!(encode_into(&"four", &mut out, 4), Err(FrameError::TooLong { len: 5, limit: 4 })));
        encode_into(&"four", &mut out, 5).expect("fits");
        assert_eq!(out, [1, 0, 0, 0, 1, 5, 0, 0, 0, 4, b'f', b'o', b'u', b'r']);
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut frame = encode_control(&5u8).expect("encodes");
        assert_eq!(decode::<u8>(&frame[HEADER..]), Ok(5));
        frame.push(0);
        assert!(decode::<u8>(&frame[HEADER..]).is_err());
    }
}
