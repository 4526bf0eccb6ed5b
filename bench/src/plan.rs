//! Everything a run does, before it is known where it runs: the accounts, the contracts, the set-up in phases
//! and the operations that are timed.
//!
//! | phase | who | does |
//! |---|---|---|
//! | fund | funder | sends wei to every account |
//! | deploy | owner | creates contracts, mints, lists markets, sets prices, provides liquidity |
//! | enter | senders, borrowers | approve, supply collateral, borrow: senders a little, borrowers nearly all they may |
//! | quote | senders | place the orders that an order book begins with |
//! | crash | owner | lowers the price of the borrowers' collateral, hands the oracle to the first sender |
//!
//! A phase needs all before it to be included; inside a phase only the order of each account matters, and in
//! `quote` the order of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use alloy_signer_local::PrivateKeySigner;

use crate::{
    accounts::{AccountId, Accounts},
    contention::{self, Contention},
    operation::Operation,
    shapes::{Generator, PRICE, Scale, Shape, homes},
    world::{Layout, Spender, TokenId, World},
};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// As users would.
    Shape(Shape),
    /// So that transactions are in each other's way to a known degree.
    Contention(Contention),
}

impl From<Shape> for Traffic {
    fn from(shape: Shape) -> Self {
        Self::Shape(shape)
    }
}

impl From<Contention> for Traffic {
    fn from(contention: Contention) -> Self {
        Self::Contention(contention)
    }
}

impl Traffic {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Shape(shape) => shape.name().to_owned(),
            Self::Contention(contention) => contention.name(),
        }
    }

    fn layout(self, scale: Scale) -> Layout {
        match self {
            Self::Shape(shape) => Layout::of(shape, scale),
            Self::Contention(contention) => contention.layout(),
        }
    }

    /// Whether accounts are liquidated.
    const fn has_borrowers(self) -> bool {
        matches!(self, Self::Shape(shape) if shape.has_market())
    }
}

/// What a plan follows from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is sent.
    pub traffic: Traffic,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Accounts that send.
    pub senders: u32,
    /// Operations that are timed.
    pub transactions: usize,
    /// Width of a shape's contended state; a contention names its own.
    pub scale: Scale,
    /// Key of the account that pays for all others.
    pub funder: PrivateKeySigner,
}

/// One transaction of the set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who sends it.
    pub from: AccountId,
    /// What it does.
    pub operation: Operation,
}

/// Steps that may be sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What the phase is for, in one word.
    pub name: &'static str,
    /// In order per account.
    pub steps: Vec<Step>,
}

/// A run, ready to be signed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is sent.
    pub traffic: Traffic,
    /// Who acts.
    pub accounts: Accounts,
    /// On what.
    pub world: World,
    /// What is timed, in order of intended arrival.
    pub operations: Vec<(AccountId, Operation)>,
}

/// Accounts that are liquidated, for each market.
const BORROWERS_PER_MARKET: u32 = 4;

/// Accounts one minting transaction serves: 15 M gas, below the cap of EIP-7825.
const MINT_ACCOUNTS_MAX: u32 = 500;

/// Whole tokens are 18 decimals.
pub(crate) const TOKEN: u128 = 1_000_000_000_000_000_000;

/// Units of each token minted for a sender or borrower.
const MINTED: u128 = 1_000_000_000 * TOKEN;

/// Units of each token minted for the owner, for pools and markets.
const MINTED_OWNER: u128 = 10_000_000_000 * TOKEN;

/// Units of each token in a new pool: the largest trade moves its price by two millionths.
const POOL_LIQUIDITY: u128 = 1_000_000 * TOKEN;

/// Units the owner supplies to each market.
const MARKET_LIQUIDITY: u128 = 1_000_000_000 * TOKEN;

/// Units a sender or borrower supplies before the clock starts.
pub(crate) const COLLATERAL: u128 = 1_000_000 * TOKEN;

/// Units a borrower owes: 93 % of what its collateral allows at first.
const BORROWED: u128 = 700_000 * TOKEN;

/// Price of the borrowers' collateral once it has fallen: health 0.64, which no liquidation raises to one,
/// because collateral factor times bonus (0.81) is above it.
const PRICE_FALLEN: u128 = PRICE * 6 / 10;

/// Wei for rounding and for the fees of the set-up that the gas limits do not name.
const WEI_SPARE: u128 = 10_000_000_000_000_000;

impl Plan {
    /// Draws the operations and lays out the contracts for an owner whose next nonce is what `owner_nonce` says.
    pub fn new<E>(settings: &Settings, owner_nonce: impl FnOnce(&Accounts) -> Result<u64, E>) -> Result<Self, E> {
        let Settings { traffic, seed, senders, scale, transactions, .. } = *settings;
        let borrowers = if traffic.has_borrowers() { BORROWERS_PER_MARKET * u32::from(scale.markets) } else { 0 };
        let accounts = Accounts::new(seed, settings.funder.clone(), borrowers, senders);
        let nonce = owner_nonce(&accounts)?;
        let world = World::new(&traffic.layout(scale), accounts.address(AccountId::OWNER), nonce);
        let operations = match traffic {
            Traffic::Shape(shape) => Generator::new(shape, seed, &world, &accounts).take(transactions).collect(),
            Traffic::Contention(contention) => {
                contention::Generator::new(contention, seed, &accounts).take(transactions).collect()
            }
        };
        Ok(Self { traffic, accounts, world, operations })
    }

    /// The set-up, for transactions that pay at most `fee_max` wei for each gas.
    #[must_use]
    pub fn phases(&self, fee_max: u128) -> Vec<Phase> {
        let mut phases = vec![
            Phase { name: "deploy", steps: self.deploy() },
            Phase { name: "enter", steps: self.enter() },
            Phase { name: "quote", steps: self.quote() },
            Phase { name: "crash", steps: self.crash() },
        ];
        phases.insert(0, Phase { name: "fund", steps: self.fund(&phases, fee_max) });
        phases.retain(|phase| !phase.steps.is_empty());
        phases
    }

    /// Gives each account the wei its transactions can cost at most.
    fn fund(&self, phases: &[Phase], fee_max: u128) -> Vec<Step> {
        let mut needs = vec![WEI_SPARE; self.accounts.count()];
        for step in phases.iter().flat_map(|phase| &phase.steps) {
            needs[step.from.index()] += u128::from(step.operation.gas_limit_max()) * fee_max;
        }
        for (from, operation) in &self.operations {
            needs[from.index()] += u128::from(operation.gas_limit_max()) * fee_max;
        }
        for (id, value) in self.values() {
            needs[id.index()] += value;
        }
        let transfer = |to: AccountId| {
            let operation = Operation::Transfer { to, value: needs[to.index()] };
            Step { from: AccountId::FUNDER, operation }
        };
        self.accounts.funded().map(transfer).collect()
    }

    /// Wei that accounts must have to send on, fees aside; an account may occur more than once.
    fn values(&self) -> Vec<(AccountId, u128)> {
        match self.traffic {
            Traffic::Contention(Contention::NativeChain) => vec![contention::chain_start(&self.accounts)],
            _ => self.operations.iter().map(|(from, operation)| (*from, operation.value())).collect(),
        }
    }

    fn deploy(&self) -> Vec<Step> {
        let deployments = self.world.deployments.iter().map(|(deployment, _)| Operation::Deploy(*deployment));
        let mut operations: Vec<Operation> = deployments.collect();
        let holders = self.holders();
        for token in self.world.token_ids() {
            operations.push(Operation::Mint { token, to: owner_only(), amount: MINTED_OWNER });
            for Range { start, end } in holders.get(&token).into_iter().flatten().cloned() {
                let chunks = (start..end).step_by(MINT_ACCOUNTS_MAX as usize);
                operations.extend(chunks.map(|start| {
                    let to = start..end.min(start + MINT_ACCOUNTS_MAX);
                    Operation::Mint { token, to, amount: MINTED }
                }));
            }
            if !self.world.pools.is_empty() {
                operations.push(Operation::Approve { token, spender: Spender::Router });
            }
        }
        operations.extend(self.world.pool_ids().map(|pool| Operation::AddLiquidity { pool, amount: POOL_LIQUIDITY }));
        for asset in self.world.assets() {
            operations.push(Operation::Approve { token: asset, spender: Spender::Lending });
            operations.push(Operation::ListReserve { asset });
            operations.push(Operation::SetPrice { asset, price: PRICE });
            operations.push(Operation::Deposit { asset, amount: MARKET_LIQUIDITY });
        }
        let step = |operation| Step { from: AccountId::OWNER, operation };
        operations.into_iter().map(step).collect()
    }

    /// The accounts besides the owner for which each token is minted.
    fn holders(&self) -> BTreeMap<TokenId, Vec<Range<u32>>> {
        match self.traffic {
            Traffic::Shape(_) => {
                let end = u32::try_from(self.accounts.count()).unwrap_or(u32::MAX);
                let all = AccountId::OWNER.0 + 1..end;
                self.world.token_ids().map(|token| (token, vec![all.clone()])).collect()
            }
            Traffic::Contention(_) => contention::holders(self),
        }
    }

    fn enter(&self) -> Vec<Step> {
        let deposits = match self.traffic {
            Traffic::Shape(_) => self.positions(),
            Traffic::Contention(_) => contention::deposits(self),
        };
        let entered = deposits.iter().map(|step| (step.from, &step.operation));
        let timed = self.operations.iter().map(|(from, operation)| (*from, operation));
        let allowances: BTreeSet<_> = entered
            .chain(timed)
            .filter_map(|(from, operation)| self.allowance(operation).map(|(token, spender)| (from, token, spender)))
            .collect();
        let approve = |(from, token, spender)| Step { from, operation: Operation::Approve { token, spender } };
        allowances.into_iter().map(approve).chain(deposits).collect()
    }

    /// What senders and borrowers supply and owe before the clock starts.
    fn positions(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.traffic.has_borrowers() {
            return steps;
        }
        let mut open = |from, collateral, borrowed, amount| {
            steps.push(Step { from, operation: Operation::Deposit { asset: collateral, amount: COLLATERAL } });
            steps.push(Step { from, operation: Operation::Borrow { asset: borrowed, amount } });
        };
        for (position, from) in (0..).zip(self.accounts.senders()) {
            let (collateral, borrowed) = homes(&self.world, position);
            open(from, collateral, borrowed, TOKEN);
        }
        for (position, from) in (0_u32..).zip(self.accounts.borrowers()) {
            let borrowed = TokenId(u16::try_from(position % u32::from(self.world.markets)).unwrap_or_default());
            open(from, self.world.falling_asset(), borrowed, BORROWED);
        }
        steps
    }

    fn quote(&self) -> Vec<Step> {
        match self.traffic {
            Traffic::Contention(Contention::OrderBook) => contention::quotes(&self.accounts),
            _ => Vec::new(),
        }
    }

    /// The token that an operation lets a contract take.
    fn allowance(&self, operation: &Operation) -> Option<(TokenId, Spender)> {
        match operation {
            Operation::Swap { pool, sell_token0, .. } => {
                let pool = self.world.pool(*pool);
                Some((if *sell_token0 { pool.token0 } else { pool.token1 }, Spender::Router))
            }
            Operation::Deposit { asset, .. } | Operation::Repay { asset, .. } => Some((*asset, Spender::Lending)),
            Operation::Liquidate { debt, .. } => Some((*debt, Spender::Lending)),
            Operation::FundBook { asset, .. } => Some((*asset, Spender::OrderBook)),
            _ => None,
        }
    }

    fn crash(&self) -> Vec<Step> {
        if !self.traffic.has_borrowers() || self.accounts.senders().len() == 0 {
            return Vec::new();
        }
        let fall = Operation::SetPrice { asset: self.world.falling_asset(), price: PRICE_FALLEN };
        let hand_over = Operation::TransferOracle { to: self.accounts.sender(0) };
        [fall, hand_over].map(|operation| Step { from: AccountId::OWNER, operation }).to_vec()
    }
}

fn owner_only() -> Range<u32> {
    AccountId::OWNER.0..AccountId::OWNER.0 + 1
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;

    use alloy_primitives::B256;

    use super::*;

    pub(crate) fn settings(traffic: impl Into<Traffic>, senders: u32, transactions: usize) -> Settings {
        let funder = PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).unwrap();
        Settings { traffic: traffic.into(), seed: 42, senders, transactions, scale: Scale::default(), funder }
    }

    pub(crate) fn plan(traffic: impl Into<Traffic>, senders: u32, transactions: usize) -> Plan {
        Plan::new(&settings(traffic, senders, transactions), |_| Ok::<_, Infallible>(0)).unwrap()
    }

    #[test]
    fn every_sender_sends_in_turn() {
        let plan = plan(Shape::Mixed, 7, 100);
        for (position, (from, _)) in plan.operations.iter().enumerate() {
            assert_eq!(*from, plan.accounts.sender(u32::try_from(position % 7).unwrap()));
        }
    }

    #[test]
    fn no_step_exceeds_the_gas_cap_of_a_transaction() {
        let plan = plan(Shape::Mixed, 1_200, 10);
        for step in plan.phases(1).iter().flat_map(|phase| &phase.steps) {
            assert!(step.operation.gas_limit_max() < 1 << 24, "{:?}", step.operation);
        }
    }

    #[test]
    fn transfers_need_no_contract() {
        let phases = plan(Shape::Transfer, 5, 20).phases(1);
        assert_eq!(phases.iter().map(|phase| phase.name).collect::<Vec<_>>(), ["fund"]);
        assert_eq!(phases[0].steps.len(), 6);
    }
}
