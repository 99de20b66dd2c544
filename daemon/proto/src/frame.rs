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
    let mut out = postcard::to_extend(message, vec![0; HEADER]).map_err(|e| FrameError::Malformed(e.to_string()))?;
    let len = out.len() - HEADER;
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    let short = u32::try_from(len).map_err(|_| FrameError::TooLong { len, limit })?;
    out[..HEADER].copy_from_slice(&short.to_le_bytes());
    Ok(out)
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
    fn trailing_bytes_are_refused() {
        let mut frame = encode_control(&5u8).expect("encodes");
        assert_eq!(decode::<u8>(&frame[HEADER..]), Ok(5));
        frame.push(0);
        assert!(decode::<u8>(&frame[HEADER..]).is_err());
    }
}
