//! Reads the reason out of revert data: `Error(string)` and `Panic(uint256)` of Solidity.
//!
//! Source: Solidity ABI specification; the panic texts are go-ethereum's (`accounts/abi`).

use alloy_primitives::U256;

const ERROR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
const PANIC: [u8; 4] = [0x4e, 0x48, 0x7b, 0x71];

/// Longest reason that is repeated in an error message, in bytes; the data carries all of it.
const REASON_BYTES_MAX: usize = 1_024;

/// The reason in `output`, if it holds one of the two standard errors.
pub(super) fn reason(output: &[u8]) -> Option<String> {
    let (selector, arguments) = output.split_first_chunk::<4>()?;
    match *selector {
        ERROR => string(arguments),
        PANIC => Some(panic(word(arguments, 0)?)),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<U256> {
    U256::try_from_be_slice(bytes.get(at..at.checked_add(32)?)?)
}

fn string(arguments: &[u8]) -> Option<String> {
    let start = usize::try_from(word(arguments, 0)?).ok()?;
    let length = usize::try_from(word(arguments, start)?).ok()?;
    let start = start.checked_add(32)?;
    let bytes = arguments.get(start..start.checked_add(length)?)?;
    let shown = bytes.get(..REASON_BYTES_MAX).unwrap_or(bytes);
    Some(String::from_utf8_lossy(shown).into_owned())
}

fn panic(code: U256) -> String {
    let text = match u64::try_from(code) {
        Ok(0x00) => "generic panic",
        Ok(0x01) => "assert(false)",
        Ok(0x11) => "arithmetic underflow or overflow",
        Ok(0x12) => "division or modulo by zero",
        Ok(0x21) => "enum overflow",
        Ok(0x22) => "invalid encoded storage byte array accessed",
        Ok(0x31) => "out-of-bounds array access; popping on an empty array",
        Ok(0x32) => "out-of-bounds access of an array or bytesN",
        Ok(0x41) => "out of memory",
        Ok(0x51) => "uninitialized function",
        _ => return format!("unknown panic code: {code:#x}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;

    fn check(data: &str, expected: Option<&str>) {
        assert_eq!(reason(&hex::decode(data).unwrap()).as_deref(), expected, "{data}");
    }

    #[test]
    fn standard_errors_are_read_and_anything_else_is_left_alone() {
        let word = |value: u64| format!("{value:064x}");
        let text = format!("08c379a0{}{}6e6f206d6f6e6579{}", word(32), word(8), "0".repeat(48));
        check(&text, Some("no money"));
        check(&format!("08c379a0{}{}", word(32), word(0)), Some(""));
        check(&format!("4e487b71{}", word(0x11)), Some("arithmetic underflow or overflow"));
        check(&format!("4e487b71{}", word(0x01)), Some("assert(false)"));
        check(&format!("4e487b71{}", word(0x99)), Some("unknown panic code: 0x99"));
        for broken in [
            "",
            "08c379",
            "08c379a0",
            "deadbeef",
            &format!("08c379a0{}", word(32)),
            &format!("08c379a0{}{}61", word(32), word(2)),
            &format!("08c379a0{}{}", word(u64::MAX), word(1)),
            &format!("08c379a0{}", "ff".repeat(64)),
            "4e487b71",
        ] {
            check(broken, None);
        }
    }
}
