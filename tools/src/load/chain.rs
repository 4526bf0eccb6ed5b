//! A node, as far as a load needs one: typed questions over JSON-RPC.

use alloy_primitives::{Address, B256, U64, U256};
use bench::encode::Call;
use eyre::{WrapErr, eyre};
use net::rpc_client::{ClientError, RpcClient};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Calls in one batch of questions.
const BATCH_CALLS: usize = 200;

/// A block without its transactions' bodies.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockSummary {
    pub(crate) number: U64,
    pub(crate) hash: B256,
    pub(crate) parent_hash: B256,
    pub(crate) timestamp: U64,
    pub(crate) gas_used: U64,
    pub(crate) gas_limit: U64,
    #[serde(default)]
    pub(crate) base_fee_per_gas: U256,
    pub(crate) transactions: Vec<B256>,
}

impl BlockSummary {
    pub(crate) fn height(&self) -> u64 {
        self.number.to()
    }
}

/// A receipt; what is compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipt {
    pub(crate) transaction_hash: B256,
    pub(crate) transaction_index: U64,
    pub(crate) block_hash: B256,
    pub(crate) block_number: U64,
    pub(crate) from: Address,
    pub(crate) to: Option<Address>,
    #[serde(default)]
    pub(crate) contract_address: Option<Address>,
    pub(crate) status: U64,
    pub(crate) gas_used: U64,
    pub(crate) cumulative_gas_used: U64,
    pub(crate) effective_gas_price: U256,
    pub(crate) logs: Vec<Log>,
}

/// A log; what is compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Log {
    pub(crate) log_index: U64,
    pub(crate) transaction_hash: B256,
    pub(crate) block_hash: B256,
}

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    client: RpcClient,
}

impl Chain {
    pub(crate) fn new(url: &str) -> eyre::Result<Self> {
        Ok(Self { client: RpcClient::new(url)? })
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, params: Value) -> eyre::Result<T> {
        self.client.call(method, params).await.wrap_err_with(|| method.to_owned())
    }

    pub(crate) async fn chain_id(&self) -> eyre::Result<u64> {
        Ok(self.ask::<U64>("eth_chainId", json!([])).await?.to())
    }

    pub(crate) async fn version(&self) -> eyre::Result<String> {
        self.ask("web3_clientVersion", json!([])).await
    }

    pub(crate) async fn height(&self) -> eyre::Result<u64> {
        Ok(self.ask::<U64>("eth_blockNumber", json!([])).await?.to())
    }

    pub(crate) async fn nonce(&self, account: Address) -> eyre::Result<u64> {
        Ok(self.ask::<U64>("eth_getTransactionCount", json!([account, "latest"])).await?.to())
    }

    /// The block at a height, `None` if there is none yet.
    pub(crate) async fn block(&self, height: u64) -> eyre::Result<Option<BlockSummary>> {
        self.ask("eth_getBlockByNumber", json!([U64::from(height), false])).await
    }

    pub(crate) async fn latest(&self) -> eyre::Result<BlockSummary> {
        self.ask("eth_getBlockByNumber", json!(["latest", false])).await
    }

    /// Receipts of a block; asked for one by one where they are too many for the node, or for its time.
    pub(crate) async fn receipts(&self, block: &BlockSummary) -> eyre::Result<Vec<Receipt>> {
        match self.client.call("eth_getBlockReceipts", json!([block.number])).await {
            Ok(receipts) => Ok(receipts),
            Err(ClientError::Call { .. } | ClientError::Transport(_)) => {
                let calls = block.transactions.iter().map(|hash| ("eth_getTransactionReceipt", json!([hash])));
                self.many(calls.collect()).await
            }
            Err(error) => Err(error).wrap_err("eth_getBlockReceipts"),
        }
    }

    pub(crate) async fn receipts_by_hash(&self, hashes: &[B256]) -> eyre::Result<Vec<Option<Receipt>>> {
        self.many(hashes.iter().map(|hash| ("eth_getTransactionReceipt", json!([hash]))).collect()).await
    }

    pub(crate) async fn estimate(&self, from: Address, call: &Call) -> eyre::Result<u64> {
        let request = json!({ "from": from, "to": call.to.to(), "value": call.value, "input": call.input });
        Ok(self.ask::<U64>("eth_estimateGas", json!([request])).await?.to())
    }

    pub(crate) async fn balances(&self, accounts: &[Address]) -> eyre::Result<Vec<U256>> {
        self.many(accounts.iter().map(|account| ("eth_getBalance", json!([account, "latest"]))).collect()).await
    }

    pub(crate) async fn nonces(&self, accounts: &[Address]) -> eyre::Result<Vec<u64>> {
        let calls = accounts.iter().map(|account| ("eth_getTransactionCount", json!([account, "latest"])));
        Ok(self.many::<U64>(calls.collect()).await?.into_iter().map(|nonce| nonce.to()).collect())
    }

    /// Reads contracts: targets and inputs in, the words of each answer out.
    pub(crate) async fn read(&self, calls: &[(Address, alloy_primitives::Bytes)]) -> eyre::Result<Vec<Vec<U256>>> {
        let request = |(to, input)| ("eth_call", json!([{ "to": to, "input": input }, "latest"]));
        let calls: Vec<(&'static str, Value)> = calls.iter().map(|(to, input)| request((to, input))).collect();
        let answers: Vec<alloy_primitives::Bytes> = self.many(calls).await?;
        let words = |bytes: alloy_primitives::Bytes| bytes.chunks(32).map(U256::from_be_slice).collect();
        Ok(answers.into_iter().map(words).collect())
    }

    /// Asks many questions, some at a time.
    async fn many<T: DeserializeOwned>(&self, calls: Vec<(&'static str, Value)>) -> eyre::Result<Vec<T>> {
        let mut answers = Vec::with_capacity(calls.len());
        for chunk in calls.chunks(BATCH_CALLS) {
            for (answer, (method, params)) in self.client.batch(chunk.to_vec()).await.into_iter().zip(chunk) {
                let value = answer.wrap_err_with(|| format!("{method} {params}"))?;
                answers.push(serde_json::from_value(value).map_err(|error| eyre!("{method} {params}: {error}"))?);
            }
        }
        Ok(answers)
    }
}
