//! The compiled contracts, as `contracts/build.mjs` wrote them.

use std::sync::LazyLock;

use alloy_primitives::{Bytes, hex};

/// A contract that the shapes deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contract {
    /// An EIP-20 token with a minting owner.
    Token,
    /// The pool of two tokens; only the factory deploys it.
    Pair,
    /// Creates pairs.
    PairFactory,
    /// What traders call.
    Router,
    /// Prices set by their owner.
    PriceOracle,
    /// The money market.
    Lending,
    /// The limit order book of one market.
    OrderBook,
}

impl Contract {
    /// Every contract.
    pub const ALL: [Self; 7] =
        [Self::Token, Self::Pair, Self::PairFactory, Self::Router, Self::PriceOracle, Self::Lending, Self::OrderBook];

    /// Its name in the sources.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "Token",
            Self::Pair => "Pair",
            Self::PairFactory => "PairFactory",
            Self::Router => "Router",
            Self::PriceOracle => "PriceOracle",
            Self::Lending => "Lending",
            Self::OrderBook => "OrderBook",
        }
    }

    /// Creation code, without constructor arguments.
    #[must_use]
    pub fn creation_code(self) -> Bytes {
        CODES[self.index()].0.clone()
    }

    /// Code of the deployed contract, immutables zero.
    #[must_use]
    pub fn deployed_code(self) -> Bytes {
        CODES[self.index()].1.clone()
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|other| *other == self).unwrap_or_default()
    }

    const fn json(self) -> &'static str {
        match self {
            Self::Token => include_str!("../contracts/artifacts/Token.json"),
            Self::Pair => include_str!("../contracts/artifacts/Pair.json"),
            Self::PairFactory => include_str!("../contracts/artifacts/PairFactory.json"),
            Self::Router => include_str!("../contracts/artifacts/Router.json"),
            Self::PriceOracle => include_str!("../contracts/artifacts/PriceOracle.json"),
            Self::Lending => include_str!("../contracts/artifacts/Lending.json"),
            Self::OrderBook => include_str!("../contracts/artifacts/OrderBook.json"),
        }
    }
}

static CODES: LazyLock<Vec<(Bytes, Bytes)>> = LazyLock::new(|| Contract::ALL.map(codes).to_vec());

fn codes(contract: Contract) -> (Bytes, Bytes) {
    let artifact: serde_json::Value =
        serde_json::from_str(contract.json()).expect("the committed artefacts are JSON; a test parses them all");
    let code = |key: &str| {
        let text = artifact[key].as_str().unwrap_or_default();
        Bytes::from(hex::decode(text).expect("the committed artefacts hold code in hex; a test parses them all"))
    };
    (code("bytecode"), code("deployedBytecode"))
}

#[cfg(test)]
pub(crate) mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    /// Whether the contract's ABI has a function of this signature, such as `transfer(address,uint256)`.
    pub(crate) fn has_function(contract: Contract, signature: &str) -> bool {
        let artifact: serde_json::Value = serde_json::from_str(contract.json()).unwrap();
        let functions = artifact["abi"].as_array().unwrap();
        functions.iter().filter(|item| item["type"] == "function").any(|item| {
            let inputs: Vec<String> = item["inputs"].as_array().unwrap().iter().map(type_name).collect();
            format!("{}({})", item["name"].as_str().unwrap(), inputs.join(",")) == signature
        })
    }

    fn type_name(input: &serde_json::Value) -> String {
        match input["components"].as_array() {
            Some(parts) => format!("({})", parts.iter().map(type_name).collect::<Vec<_>>().join(",")),
            None => input["type"].as_str().unwrap().to_owned(),
        }
    }

    #[test]
    fn every_artefact_parses_and_names_its_contract() {
        for contract in Contract::ALL {
            let artifact: serde_json::Value = serde_json::from_str(contract.json()).unwrap();
            assert_eq!(artifact["contractName"], contract.name());
            let (creation, deployed) = (contract.creation_code(), contract.deployed_code());
            assert!(creation.len() > deployed.len() && !deployed.is_empty(), "{} has code", contract.name());
            assert!(deployed.len() <= 24_576, "{} fits EIP-170", contract.name());
        }
    }

    #[test]
    fn the_factory_carries_the_code_of_the_pair() {
        let pair = Contract::Pair.creation_code();
        let factory = Contract::PairFactory.creation_code();
        let found = factory.windows(pair.len()).any(|window| keccak256(window) == keccak256(&pair));
        assert!(found, "pair addresses are derived from the pair's artefact");
    }
}
