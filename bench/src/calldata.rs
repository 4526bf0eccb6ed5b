//! Call data by hand: a selector and words, nothing that a load generator has to look up.

use alloy_primitives::{Address, Bytes, U256, keccak256};

/// Call data under construction; arguments are appended in order.
#[derive(Clone, Debug, Default)]
pub struct Calldata(Vec<u8>);

impl Calldata {
    /// Starts a call of the function with this signature, such as `transfer(address,uint256)`.
    #[must_use]
    pub fn call(signature: &str) -> Self {
        Self(keccak256(signature)[..4].to_vec())
    }

    /// Starts constructor arguments behind creation code.
    #[must_use]
    pub fn creation(code: &Bytes) -> Self {
        Self(code.to_vec())
    }

    /// Appends an address.
    #[must_use]
    pub fn address(mut self, address: Address) -> Self {
        self.0.extend_from_slice(address.into_word().as_slice());
        self
    }

    /// Appends an unsigned number of any width.
    #[must_use]
    pub fn uint(mut self, value: U256) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes::<32>());
        self
    }

    /// Appends an unsigned number of at most 128 bits.
    #[must_use]
    pub fn number(self, value: u128) -> Self {
        self.uint(U256::from(value))
    }

    /// Appends a truth value.
    #[must_use]
    pub fn boolean(self, value: bool) -> Self {
        self.number(u128::from(value))
    }

    /// Appends the length and the items of an array of addresses.
    #[must_use]
    pub fn addresses(self, items: impl ExactSizeIterator<Item = Address>) -> Self {
        let length = self.uint(U256::from(items.len()));
        items.fold(length, Self::address)
    }

    /// Appends the length and the bytes of a string, padded to words.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        let mut data = self.uint(U256::from(text.len()));
        data.0.extend_from_slice(text.as_bytes());
        let padding = text.len().next_multiple_of(32) - text.len();
        data.0.resize(data.0.len() + padding, 0);
        data
    }

    /// The finished bytes.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, hex};

    use super::*;

    #[test]
    fn a_transfer_is_encoded_as_every_wallet_encodes_it() {
        let to = address!("00000000000000000000000000000000000000aa");
        let data = Calldata::call("transfer(address,uint256)").address(to).number(5).finish();
        let expected = hex!(
            "a9059cbb"
            "00000000000000000000000000000000000000000000000000000000000000aa"
            "0000000000000000000000000000000000000000000000000000000000000005"
        );
        assert_eq!(data[..], expected);
    }

    #[test]
    fn strings_fill_whole_words() {
        let data = Calldata::default().text("abc").finish();
        assert_eq!(data.len(), 64);
        assert_eq!(&data[32..36], b"abc\0");
        assert_eq!(Calldata::default().text("").finish().len(), 32);
    }
}
