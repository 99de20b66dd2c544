//! A first line that tells whether a text file still is what was written.
//!
//! It is a comment wherever one may stand: TOML, and PEM, where text before the first block is nobody's business (RFC 7468 section 2).
//! A file without that line is somebody's own words and is taken as it is, so that an operator can still write one; and whatever bit
//! is lost, either the line does not fit what follows, or it is no such line any more and what follows is whole.

/// What the line begins with.
const HEAD: &str = "# check ";

fn line_of(text: &str) -> String {
    let hash = blake3::hash(text.as_bytes()).to_hex();
    format!("{HEAD}{}: whoever changes what follows takes this line away\n", &hash[..16])
}

/// The text with its first line.
pub fn with_check(text: &str) -> String {
    line_of(text) + text
}

/// Whether a file still is what was written.
///
/// # Errors
/// It has changed.
pub fn check(file: &str) -> Result<(), &'static str> {
    if !file.starts_with(HEAD) {
        return Ok(());
    }
    let (line, text) = file.split_at(file.find('\n').map_or(file.len(), |end| end + 1));
    if line == line_of(text) { Ok(()) } else { Err("it has changed on the disk: its checksum is wrong") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found_or_leaves_the_text_whole() {
        let text = "one = 1\ntwo = \"2\"\n";
        let file = with_check(text);
        assert_eq!((check(&file), check(text)), (Ok(()), Ok(())));
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone().into_bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            // what is no text any more is refused by whoever reads it as text
            let Ok(bad) = String::from_utf8(bad) else { continue };
            assert!(check(&bad).is_err() || bad.ends_with(text), "bit {bit}");
        }
        for len in HEAD.len()..file.len() {
            assert!(check(&file[..len]).is_err(), "cut to {len}");
        }
    }
}
