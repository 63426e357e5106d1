//! What the bytes of a file say that it is, before anything is compiled.
//!
//! `plugin` asks before it loads a component or has it compiled. The engine judges what is in it.

use anyhow::bail;

/// A section's length in LEB128 has so many bytes at most.
const LENGTH_BYTES_AT_MOST: usize = 5;

/// An error in words unless it is a component as far as can be seen. Bytes 4 to 8 tell a core module (version 1, layer 0) from a
/// component (layer 1).
pub(super) fn check(bytes: &[u8]) -> anyhow::Result<()> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) if is_cut(&bytes[8..]) => {
            bail!("it ends in the middle: it is not whole, or not all of it has been copied yet")
        }
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            bail!(
                "it is a core WebAssembly module and not a component: build it for wasm32-wasip2, or make one of it by \
                 `wasm-tools component new`"
            )
        }
        _ => bail!("it is not WebAssembly, or not all of it has been copied yet"),
    }
}

/// Whether the last section has fewer bytes than it says: each begins with its kind and its length.
fn is_cut(mut sections: &[u8]) -> bool {
    while let [_kind, rest @ ..] = sections {
        let Some(digits) = rest.iter().take(LENGTH_BYTES_AT_MOST).position(|byte| byte & 0x80 == 0) else {
            // The engine says what else it may be.
            return rest.len() < LENGTH_BYTES_AT_MOST;
        };
        let (length, content) = rest.split_at(digits + 1);
        let digit = |(place, byte): (usize, &u8)| u64::from(byte & 0x7f) << (7 * place);
        let length: u64 = length.iter().enumerate().map(digit).sum();
        let Some(next) = usize::try_from(length).ok().and_then(|length| content.get(length..)) else {
            return true;
        };
        sections = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_component_is_said_in_words() {
        for (bytes, words) in [
            (&b""[..], "it is not WebAssembly"),
            (b"\0asm\x0d\0\x01", "it is not WebAssembly"),
            (b"#!/bin/sh", "it is not WebAssembly"),
            (b"\0asm\x01\0\0\0", "it is a core WebAssembly module"),
            (b"\0asm\x0d\0\x01\0\x00", "it ends in the middle"),
            (b"\0asm\x0d\0\x01\0\x00\x82", "it ends in the middle"),
            (b"\0asm\x0d\0\x01\0\x00\x02\x01", "it ends in the middle"),
            (b"\0asm\x0d\0\x01\0\x00\xff\xff\xff\xff\x0f", "it ends in the middle"),
        ] {
            let error = check(bytes).expect_err(words).to_string();
            assert!(error.starts_with(words), "{bytes:?}: {error}");
        }
        for bytes in [&b"\0asm\x0d\0\x01\0"[..], b"\0asm\x0d\0\x01\0\x00\x02\x01x", b"\0asm\x0d\0\x01\0\x00\x82\0\x01x"]
        {
            check(bytes).expect("the engine judges the rest");
        }
    }

    proptest! {
        #[test]
        fn every_part_of_a_component_is_cut(lengths in vec(0_usize..300, 1..5), cut in any::<prop::sample::Index>()) {
            let mut component = b"\0asm\x0d\0\x01\0".to_vec();
            let mut ends = vec![component.len()];
            for length in lengths {
                component.extend([0, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
                component.extend(vec![b'x'; length]);
                ends.push(component.len());
            }
            prop_assert!(check(&component).is_ok());
            let part = &component[..cut.index(component.len())];
            prop_assert_eq!(check(part).is_ok(), ends.contains(&part.len()));
        }

        #[test]
        fn any_bytes_are_judged(bytes in vec(any::<u8>(), 0..64)) {
            prop_assert!(!is_cut(&bytes) || !bytes.is_empty());
        }
    }
}
