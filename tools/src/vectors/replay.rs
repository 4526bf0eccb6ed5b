//! Real blocks with the part of the state that they read: executed plainly and along their access lists.
//!
//! Both forms are read: `rpc` (a block as JSON-RPC gives it) and `split` (environment and transactions apart).
//! Only the transactions run. Checked are gas and receipts root of the header where they can be known, and
//! that every mode gives the plain loop's receipts and changes, bit for bit.
//!
//! A line has `mode`, `threads`, `txs`, `gas`, `ms` (one per round) and `checked`. In another mode than the plain
//! loop, every round executes the block plainly as well: `plainMs`, `ratio` of neighbours as median, least and
//! most, and the `ceiling` that so many cores could reach. The last line sums up blocks of at least 4 Mgas: the
//! ratio of summed medians, the geometric mean, and the least of the blocks' median and of their best ratios.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Instant,
};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2718::Encodable2718,
    eip2930::{AccessList as TransactionAccessList, AccessListItem},
    eip7702::{Authorization, SignedAuthorization},
    eip7840::BlobParams,
};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Signature, TxKind, U256, keccak256, map::HashMap};
use bench::ceiling::makespan;
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, OrderingParams},
    ports::{StateError, StateView},
    types::{Account, Block, BlockBody, ConsensusHeader, Envelope, Height, StateChanges, Transaction, TrieHandle},
};
use eyre::{WrapErr, ensure, eyre};
use serde_json::{Map, Value, json};
use vm::{
    HeaderRules, RevmExecutor,
    code::CodeCache,
    sequential::{Finished, Run},
    workers::Workers,
};

use super::{
    Mode, Settings,
    case::{Case, Judged},
};

/// Heights from which mainnet's forks hold.
const MAINNET: [(u64, Fork); 14] = [
    (0, Fork::Frontier),
    (1_150_000, Fork::Homestead),
    (2_463_000, Fork::Tangerine),
    (2_675_000, Fork::SpuriousDragon),
    (4_370_000, Fork::Byzantium),
    (7_280_000, Fork::Petersburg),
    (9_069_000, Fork::Istanbul),
    (12_244_000, Fork::Berlin),
    (12_965_000, Fork::London),
    (15_537_394, Fork::Paris),
    (17_034_870, Fork::Shanghai),
    (19_426_587, Fork::Cancun),
    (22_431_084, Fork::Prague),
    (23_935_694, Fork::Osaka),
];

/// Blocks of less gas do not count for the speed.
const COUNTED_GAS_MIN: f64 = 4_000_000.0;

/// Times that each transaction is timed for the ceiling; the least counts.
const CEILING_ROUNDS: usize = 3;

/// The state that a block reads, in maps.
#[derive(Debug, Default)]
struct PreState {
    accounts: HashMap<Address, (Account, HashMap<U256, U256>)>,
    codes: HashMap<B256, Bytes>,
    block_hashes: BTreeMap<u64, B256>,
}

impl StateView for PreState {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        Ok(self.accounts.get(&address).map(|entry| entry.0))
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        let slots = self.accounts.get(&address).map(|entry| &entry.1);
        Ok(slots.and_then(|slots| slots.get(&key)).copied().unwrap_or_default())
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.codes.get(&hash).cloned().ok_or_else(|| StateError::Corrupt(format!("no code has the hash {hash}")))
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        Ok(self.block_hashes.get(&height.0).copied())
    }

    fn root_after(&self, _: Option<&TrieHandle>, _: &StateChanges) -> Result<(B256, TrieHandle), StateError> {
        Err(StateError::Corrupt("a part of a state has no root".to_owned()))
    }
}

/// A block and everything that is needed to run it.
struct Input {
    chain: ChainSpec,
    block: Block,
    state: PreState,
    /// What the header says, where it can be compared.
    gas_used: Option<u64>,
    receipts_root: Option<B256>,
}

/// Folders that hold a block, below `path`, in order of name.
pub(crate) fn find(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if path.join("pre_state.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut folders: Vec<_> = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    let below: Vec<_> = folders.iter().map(|folder| find(folder)).collect::<Result<_, _>>()?;
    Ok(below.concat())
}

/// Runs the block in one folder.
pub(crate) fn run(folder: &Path, settings: Settings) -> Case {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let input = match read(folder) {
        Ok(input) => input,
        Err(error) => return Case::judge(&name, None, 0, || Err(error)),
    };
    let fork = input.chain.forks.base.max(input.chain.fork_at(input.block.header.timestamp)).name();
    let mut more = Map::new();
    Case::judge(&name, Some(fork), 0, || check(input, settings, &mut more)).with(more)
}

fn check(input: Input, settings: Settings, more: &mut Map<String, Value>) -> eyre::Result<Judged> {
    let Input { chain, block, state, gas_used, receipts_root } = input;
    let workers = Workers::new(settings.threads).wrap_err("cannot start threads")?;
    let executor = RevmExecutor::with_rules(Arc::new(chain), HeaderRules::ETHEREUM).with_workers(workers);
    let plain = executor.transactions(&state, &block, true)?;
    let list = plain.access_list.clone().unwrap_or_default();
    let root = vm::outcome::receipts_root(&plain.receipts).0;
    let (mut got, mut want) = (json!({}), json!({}));
    let mut checked = Vec::new();
    let mut compare = |name: &'static str, is: Value, must: Value| {
        checked.push(name);
        (got[name], want[name]) = (is, must);
    };
    if let Some(gas_used) = gas_used {
        compare("gasUsed", json!(plain.gas_used), json!(gas_used));
    }
    if let Some(receipts_root) = receipts_root {
        compare("receiptsRoot", json!(root), json!(receipts_root));
    }
    let (mut milliseconds, mut plain_milliseconds) = (Vec::new(), Vec::new());
    let mut same = true;
    for _ in 0..settings.rounds {
        if settings.mode != Mode::Sequential {
            let begun = Instant::now();
            let finished = executor.transactions(&state, &block, false)?;
            plain_milliseconds.push(since(begun));
            drop(finished);
        }
        let begun = Instant::now();
        let finished = match settings.mode {
            Mode::Sequential => executor.transactions(&state, &block, false)?,
            Mode::Lead => executor.transactions_led(&state, &block, false)?,
            Mode::Replay => executor.transactions_listed(&state, &block, &list)?,
        };
        milliseconds.push(since(begun));
        same &= equal(&plain, &finished);
    }
    if settings.mode != Mode::Sequential {
        let ratios = plain_milliseconds.iter().zip(&milliseconds).map(|(plain, own)| plain / own).collect();
        let (median, least, most) = spread(ratios);
        more.insert("plainMs".to_owned(), json!(plain_milliseconds));
        more.insert("ratio".to_owned(), json!([median, least, most].map(rounded)));
        let ceiling = ceiling(&executor, &state, &block, settings)?;
        more.insert("ceiling".to_owned(), json!(rounded(ceiling)));
    }
    compare("sameAsPlainLoop", json!(same), json!(true));
    more.insert("mode".to_owned(), json!(settings.mode.name()));
    more.insert("threads".to_owned(), json!(settings.threads));
    more.insert("txs".to_owned(), json!(block.body.transactions.len()));
    more.insert("gas".to_owned(), json!(plain.gas_used));
    more.insert("ms".to_owned(), json!(milliseconds));
    more.insert("checked".to_owned(), json!(checked));
    Ok(Judged::equal(got, want))
}

/// Milliseconds since then, to a microsecond.
fn since(begun: Instant) -> f64 {
    rounded(begun.elapsed().as_secs_f64() * 1e3)
}

fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// Median, least and most; 1 of nothing.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(1.0);
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

/// How many times as fast as one core so many cores could be at best: from the times of single transactions and,
/// unless the access list is known, from who uses whose results.
fn ceiling(executor: &RevmExecutor, state: &PreState, block: &Block, settings: Settings) -> eyre::Result<f64> {
    let transactions = &block.body.transactions;
    let mut times = vec![f64::MAX; transactions.len()];
    let codes = CodeCache::default();
    for _ in 0..CEILING_ROUNDS {
        let mut run = Run::open(executor.chain(), &codes, state, block.header.inner());
        for (time, transaction) in times.iter_mut().zip(transactions) {
            let begun = Instant::now();
            run.transact(transaction).map_err(|refusal| eyre!("{refusal}"))?;
            *time = time.min(begun.elapsed().as_secs_f64());
        }
    }
    let dependencies = match settings.mode {
        Mode::Lead => executor.dependencies(state, block)?,
        _ => vec![Vec::new(); times.len()],
    };
    let sum: f64 = times.iter().sum();
    Ok(if times.is_empty() { 1.0 } else { sum / makespan(&times, &dependencies, settings.threads) })
}

/// How fast blocks were beside the plain loop.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    plain: f64,
    own: f64,
    ratios: Vec<f64>,
    ceilings: Vec<f64>,
    best_least: f64,
}

impl Speed {
    /// Counts a block, if it is one and large enough.
    pub(crate) fn count(&mut self, case: &Case) {
        let number = |name: &str| case.field(name).and_then(Value::as_f64);
        let list =
            |name: &str| -> Option<Vec<f64>> { case.field(name)?.as_array()?.iter().map(Value::as_f64).collect() };
        let (Some(gas), Some(ceiling)) = (number("gas"), number("ceiling")) else { return };
        let (Some(plain), Some(own), Some(ratio)) = (list("plainMs"), list("ms"), list("ratio")) else { return };
        if gas < COUNTED_GAS_MIN || own.is_empty() {
            return;
        }
        let best = ratio.last().copied().unwrap_or_default();
        self.best_least = if self.ratios.is_empty() { best } else { self.best_least.min(best) };
        self.plain += spread(plain).0;
        self.own += spread(own).0;
        self.ratios.push(ratio.first().copied().unwrap_or_default());
        self.ceilings.push(ceiling);
    }

    /// What all of them come to.
    pub(crate) fn summary(&self) -> Option<Value> {
        let mean = |values: &[f64]| (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp();
        let least = self.ratios.iter().copied().min_by(f64::total_cmp)?;
        Some(json!({
            "blocks": self.ratios.len(),
            "summed": rounded(self.plain / self.own),
            "geometricMean": rounded(mean(&self.ratios)),
            "least": rounded(least),
            "leastOfBest": self.best_least,
            "ceilingGeometricMean": rounded(mean(&self.ceilings)),
        }))
    }
}

fn equal(one: &Finished, other: &Finished) -> bool {
    one.receipts == other.receipts && one.changes == other.changes && one.gas_used == other.gas_used
}

fn parse(path: &Path) -> eyre::Result<Value> {
    let file = File::open(path).wrap_err_with(|| format!("cannot open {}", path.display()))?;
    serde_json::from_reader(std::io::BufReader::new(file)).wrap_err_with(|| path.display().to_string())
}

fn read(folder: &Path) -> eyre::Result<Input> {
    let (block, pre) = (parse(&folder.join("block.json"))?, parse(&folder.join("pre_state.json"))?);
    if block.get("transactions").is_some() {
        read_rpc(folder, &block, &pre).wrap_err_with(|| folder.display().to_string())
    } else {
        read_split(&block, &parse(&folder.join("txs.json"))?, &pre).wrap_err_with(|| folder.display().to_string())
    }
}

/// A number, written in decimals or as 0x-prefixed hex.
fn number(value: &Value, field: &str) -> eyre::Result<U256> {
    number_if_any(value, field)?.ok_or_else(|| eyre!("`{field}` is missing"))
}

fn number_if_any(value: &Value, field: &str) -> eyre::Result<Option<U256>> {
    match value.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let number = number.to_string();
            Ok(Some(number.parse().wrap_err_with(|| format!("`{field}` is {number}"))?))
        }
        Some(Value::String(text)) => {
            let hex = text.strip_prefix("0x").ok_or_else(|| eyre!("`{field}` is {text}, not hex"))?;
            let hex = if hex.is_empty() { "0" } else { hex };
            Ok(Some(U256::from_str_radix(hex, 16).wrap_err_with(|| format!("`{field}` is {text}"))?))
        }
        Some(other) => Err(eyre!("`{field}` is {other}")),
    }
}

fn to<T: TryFrom<U256>>(field: &str, value: U256) -> eyre::Result<T> {
    T::try_from(value).map_err(|_| eyre!("`{field}` is {value}, too large"))
}

fn word<T: TryFrom<U256>>(value: &Value, field: &str) -> eyre::Result<T> {
    to(field, number(value, field)?)
}

fn word_or_zero<T: TryFrom<U256>>(value: &Value, field: &str) -> eyre::Result<T> {
    to(field, number_if_any(value, field)?.unwrap_or_default())
}

fn text<'a>(value: &'a Value, field: &str) -> eyre::Result<&'a str> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| eyre!("`{field}` is missing"))
}

fn list<'a>(value: &'a Value, field: &str) -> eyre::Result<&'a Vec<Value>> {
    value.get(field).and_then(Value::as_array).ok_or_else(|| eyre!("`{field}` is no list"))
}

fn parsed<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    value: &Value,
    field: &str,
) -> eyre::Result<T> {
    text(value, field)?.parse().wrap_err_with(|| format!("`{field}`"))
}

fn read_rpc(folder: &Path, block: &Value, pre: &Value) -> eyre::Result<Input> {
    let height: u64 = word(block, "number")?;
    let fork = MAINNET.iter().rev().find(|(from, _)| *from <= height).map_or(Fork::Frontier, |(_, fork)| *fork);
    let header = Header {
        number: height,
        timestamp: word(block, "timestamp")?,
        beneficiary: parsed(block, "miner")?,
        gas_limit: word(block, "gasLimit")?,
        difficulty: word(block, "difficulty")?,
        mix_hash: parsed(block, "mixHash")?,
        base_fee_per_gas: number_if_any(block, "baseFeePerGas")?.map(|fee| to("baseFeePerGas", fee)).transpose()?,
        excess_blob_gas: number_if_any(block, "excessBlobGas")?.map(|gas| to("excessBlobGas", gas)).transpose()?,
        ..Header::default()
    };
    let names = Names::RPC;
    let transactions = list(block, "transactions")?;
    let transactions = transactions.iter().map(|tx| transaction(tx, &names, 1)).collect::<eyre::Result<_>>()?;
    // rpc/NUMBER lies two folders below what all blocks share.
    let shared = folder.parent().and_then(Path::parent).ok_or_else(|| eyre!("no folder above"))?;
    let mut state = accounts(pre)?;
    let codes = shared_codes(shared)?;
    let hashes = state.accounts.values().map(|(account, _)| account.code_hash).filter(|hash| *hash != KECCAK256_EMPTY);
    for hash in hashes.collect::<Vec<_>>() {
        let code = codes.get(&hash).ok_or_else(|| eyre!("codes.json.gz has no code {hash}"))?;
        state.codes.insert(hash, code.clone());
    }
    for (height, hash) in parse(&shared.join("block_hashes.json"))?.as_object().into_iter().flatten() {
        state.block_hashes.insert(height.parse()?, hash.as_str().unwrap_or_default().parse()?);
    }
    Ok(Input {
        chain: chain(1, fork),
        block: whole(header, transactions),
        state,
        gas_used: Some(word(block, "gasUsed")?),
        // Before Byzantium a receipt carries the state root, and this state has none.
        receipts_root: (fork >= Fork::Byzantium).then(|| parsed(block, "receiptsRoot")).transpose()?,
    })
}

fn read_split(block: &Value, txs: &Value, pre: &Value) -> eyre::Result<Input> {
    let (spec, chain_id) = (text(block, "spec_id")?, word(block, "chain_id")?);
    let fork = Fork::ALL.into_iter().find(|fork| fork.name().eq_ignore_ascii_case(spec));
    let fork = fork.ok_or_else(|| eyre!("`spec_id` is {spec}, which is not supported"))?;
    let header = Header {
        number: word(block, "number")?,
        timestamp: word(block, "timestamp")?,
        beneficiary: parsed(block, "coinbase")?,
        gas_limit: word(block, "gas_limit")?,
        difficulty: word(block, "difficulty")?,
        mix_hash: parsed(block, "prevrandao")?,
        base_fee_per_gas: Some(word(block, "basefee")?),
        // The fixture has no blob schedule: a blob gas price of 1.
        excess_blob_gas: Some(0),
        ..Header::default()
    };
    let names = Names::SPLIT;
    let transactions = txs.as_array().ok_or_else(|| eyre!("txs.json is no list"))?;
    let transactions = transactions.iter().map(|tx| transaction(tx, &names, chain_id)).collect::<eyre::Result<_>>()?;
    let mut state = accounts(pre)?;
    for (height, hash) in block.get("block_hashes").and_then(Value::as_object).into_iter().flatten() {
        state.block_hashes.insert(height.parse()?, hash.as_str().unwrap_or_default().parse()?);
    }
    let block = whole(header, transactions);
    Ok(Input { chain: chain(chain_id, fork), block, state, gas_used: None, receipts_root: None })
}

fn whole(header: Header, transactions: Vec<Arc<Transaction>>) -> Block {
    let body = BlockBody { transactions, withdrawals: None };
    Block { consensus: ConsensusHeader::default(), header: header.seal_slow(), body }
}

fn chain(chain_id: u64, fork: Fork) -> ChainSpec {
    let blobs = match fork {
        Fork::Cancun => Some(BlobParams::cancun()),
        Fork::Prague => Some(BlobParams::prague()),
        Fork::Osaka => Some(BlobParams::osaka()),
        _ => None,
    };
    ChainSpec {
        chain_id,
        forks: ForkSchedule {
            base: fork,
            times: Vec::new(),
            blobs: blobs.map(|blobs| (0, blobs)).into_iter().collect(),
        },
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header: Header::default(),
        alloc: BTreeMap::new(),
    }
}

/// What the two forms call the fields of a transaction.
#[derive(Clone, Copy)]
struct Names {
    kind: &'static str,
    sender: &'static str,
    input: &'static str,
    gas: &'static str,
    price: &'static str,
    cap: &'static str,
    tip: &'static str,
    chain_id: &'static str,
    list: &'static str,
    keys: &'static str,
    blobs: &'static str,
    blob_cap: &'static str,
    authorizations: &'static str,
}

impl Names {
    const RPC: Self = Self {
        kind: "type",
        sender: "from",
        input: "input",
        gas: "gas",
        price: "gasPrice",
        cap: "maxFeePerGas",
        tip: "maxPriorityFeePerGas",
        chain_id: "chainId",
        list: "accessList",
        keys: "storageKeys",
        blobs: "blobVersionedHashes",
        blob_cap: "maxFeePerBlobGas",
        authorizations: "authorizationList",
    };
    const SPLIT: Self = Self {
        kind: "tx_type",
        sender: "caller",
        input: "data",
        gas: "gas_limit",
        price: "gas_price",
        cap: "gas_price",
        tip: "gas_priority_fee",
        chain_id: "chain_id",
        list: "access_list",
        keys: "storage_keys",
        blobs: "blob_hashes",
        blob_cap: "max_fee_per_blob_gas",
        authorizations: "authorization_list",
    };
}

/// A transaction with the sender that stands beside it; nobody checks its signature.
fn transaction(tx: &Value, names: &Names, chain_id: u64) -> eyre::Result<Arc<Transaction>> {
    let kind = match tx.get("to") {
        None | Some(Value::Null) => TxKind::Create,
        Some(_) => TxKind::Call(parsed(tx, "to")?),
    };
    let (nonce, value, input) = (word(tx, "nonce")?, number(tx, "value")?, parsed::<Bytes>(tx, names.input)?);
    let gas_limit = word(tx, names.gas)?;
    let gas_price = word_or_zero(tx, names.price)?;
    let cap = word_or_zero(tx, names.cap)?;
    let tip = word_or_zero(tx, names.tip)?;
    let (max_fee_per_gas, max_priority_fee_per_gas, to) = (cap, tip, kind);
    let access_list = access_list(tx, names)?;
    let signature = Signature::new(U256::from(1), U256::from(1), false);
    let callee = || kind.to().copied().ok_or_else(|| eyre!("`to` is missing"));
    let envelope: Envelope = match word::<u64>(tx, names.kind)? {
        0 => {
            let chain_id = number_if_any(tx, names.chain_id)?.map(|id| self::to(names.chain_id, id)).transpose()?;
            TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input }.into_signed(signature).into()
        }
        1 => TxEip2930 { chain_id, nonce, gas_price, gas_limit, to, value, access_list, input }
            .into_signed(signature)
            .into(),
        2 => TxEip1559 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value,
            access_list,
            input,
        }
        .into_signed(signature)
        .into(),
        3 => {
            let tx = TxEip4844 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to: callee()?,
                value,
                access_list,
                blob_versioned_hashes: blob_hashes(tx, names)?,
                max_fee_per_blob_gas: word(tx, names.blob_cap)?,
                input,
            };
            Envelope::Eip4844(tx.into_signed(signature))
        }
        4 => TxEip7702 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: callee()?,
            value,
            access_list,
            authorization_list: authorizations(tx, names)?,
            input,
        }
        .into_signed(signature)
        .into(),
        other => return Err(eyre!("type {other} is not supported")),
    };
    let sender = parsed(tx, names.sender)?;
    Ok(Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), sender)?))
}

fn blob_hashes(tx: &Value, names: &Names) -> eyre::Result<Vec<B256>> {
    let hashes = list(tx, names.blobs)?;
    hashes.iter().map(|hash| Ok(hash.as_str().unwrap_or_default().parse()?)).collect()
}

fn access_list(tx: &Value, names: &Names) -> eyre::Result<TransactionAccessList> {
    let items = tx.get(names.list).and_then(Value::as_array).into_iter().flatten();
    let items = items.map(|item| {
        // One form has named fields, the other pairs.
        let keys = item.get(names.keys).or_else(|| item.get(1)).and_then(Value::as_array);
        let keys = keys.into_iter().flatten().map(|key| Ok(key.as_str().unwrap_or_default().parse()?));
        let address = item.get("address").or_else(|| item.get(0)).and_then(Value::as_str).unwrap_or_default();
        Ok(AccessListItem { address: address.parse()?, storage_keys: keys.collect::<eyre::Result<_>>()? })
    });
    Ok(TransactionAccessList(items.collect::<eyre::Result<_>>()?))
}

fn authorizations(tx: &Value, names: &Names) -> eyre::Result<Vec<SignedAuthorization>> {
    let list = tx.get(names.authorizations).and_then(Value::as_array).into_iter().flatten();
    list.map(|item| {
        let inner = item.get("inner").unwrap_or(item);
        let chain_id = ["chainId", "chain_id"].into_iter().find_map(|name| number(inner, name).ok());
        let parity = ["yParity", "y_parity", "v"].into_iter().find_map(|name| word::<u8>(item, name).ok());
        let authorization = Authorization {
            chain_id: chain_id.ok_or_else(|| eyre!("an authorization has no chain id"))?,
            address: parsed(inner, "address")?,
            nonce: word(inner, "nonce")?,
        };
        let parity = parity.ok_or_else(|| eyre!("an authorization has no parity"))?;
        Ok(SignedAuthorization::new_unchecked(authorization, parity, number(item, "r")?, number(item, "s")?))
    })
    .collect()
}

fn accounts(pre: &Value) -> eyre::Result<PreState> {
    let mut state = PreState::default();
    for (address, account) in pre.as_object().ok_or_else(|| eyre!("pre_state.json is no object"))? {
        let mut code_hash = KECCAK256_EMPTY;
        if account.get("code_hash").is_some_and(|hash| !hash.is_null()) {
            code_hash = parsed(account, "code_hash")?;
        }
        if account.get("code").is_some_and(|code| !code.is_null()) {
            let code: Bytes = parsed(account, "code")?;
            if !code.is_empty() {
                code_hash = keccak256(&code);
                state.codes.insert(code_hash, code);
            }
        }
        let mut slots = HashMap::default();
        for (key, value) in account.get("storage").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            slots.insert(key.parse().wrap_err("a slot")?, value.parse().wrap_err("a value")?);
        }
        let account = Account { nonce: word(account, "nonce")?, balance: number(account, "balance")?, code_hash };
        state.accounts.insert(address.parse()?, (account, slots));
    }
    Ok(state)
}

type Codes = Arc<HashMap<B256, Bytes>>;

/// The codes that all blocks of a folder share, read once.
fn shared_codes(folder: &Path) -> eyre::Result<Codes> {
    static READ: OnceLock<Mutex<BTreeMap<PathBuf, Codes>>> = OnceLock::new();
    let mut read = READ.get_or_init(Mutex::default).lock().map_err(|_| eyre!("another block panicked"))?;
    if let Some(codes) = read.get(folder) {
        return Ok(codes.clone());
    }
    let path = folder.join("codes.json.gz");
    let file = File::open(&path).wrap_err_with(|| format!("cannot open {}", path.display()))?;
    let text: BTreeMap<B256, Bytes> =
        serde_json::from_reader(std::io::BufReader::new(flate2::read::GzDecoder::new(file)))?;
    for (hash, code) in &text {
        ensure!(keccak256(code) == *hash, "the code named {hash} has another hash");
    }
    let codes = Codes::new(text.into_iter().collect());
    read.insert(folder.to_owned(), codes.clone());
    Ok(codes)
}
