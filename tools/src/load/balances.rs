//! Compares what every account and contract has at the end with what the model says.

use alloy_primitives::{Address, Bytes, U256};
use bench::{
    AccountId, Plan,
    calldata::Calldata,
    expect::{Holder, Ledger, Model, Reserve},
    world::{PoolId, TokenId},
};

use super::{chain::Chain, verify::Problems};

/// A question to a contract, what it is about, and the words it must answer with.
struct Question {
    about: String,
    to: Address,
    input: Bytes,
    expected: Vec<U256>,
}

/// Compares wei and nonces; returns how many accounts were compared.
pub(crate) async fn check_wei(
    chain: &Chain,
    plan: &Plan,
    ledger: &Ledger,
    nonces: &[u64],
    problems: &mut Problems,
) -> eyre::Result<usize> {
    // Anybody may use the funder meanwhile; the others are this run's own.
    let ids: Vec<AccountId> = plan.accounts.funded().collect();
    let addresses: Vec<Address> = ids.iter().map(|id| plan.accounts.address(*id)).collect();
    for ((id, address), balance) in ids.iter().zip(&addresses).zip(chain.balances(&addresses).await?) {
        let expected = ledger.balance(*id);
        if balance != expected {
            problems.add("wrong balance", || format!("{address} has {balance} wei, not {expected}"));
        }
    }
    for ((id, address), nonce) in ids.iter().zip(&addresses).zip(chain.nonces(&addresses).await?) {
        let expected = nonces[id.index()];
        if nonce != expected {
            problems.add("wrong nonce", || format!("{address} has nonce {nonce}, not {expected}"));
        }
    }
    Ok(ids.len())
}

/// Compares tokens, pools and markets; returns how many figures were compared.
pub(crate) async fn check_contracts(
    chain: &Chain,
    plan: &Plan,
    model: &Model,
    problems: &mut Problems,
) -> eyre::Result<usize> {
    if let Err(sentence) = model.check() {
        problems.add("model", || sentence);
    }
    let questions = questions(plan, model);
    let calls: Vec<(Address, Bytes)> = questions.iter().map(|asked| (asked.to, asked.input.clone())).collect();
    for (asked, answer) in questions.iter().zip(chain.read(&calls).await?) {
        // More words may follow, such as the time of the last trade.
        if answer.get(..asked.expected.len()) != Some(asked.expected.as_slice()) {
            let words = || format!("{}: {answer:?}, not {:?}", asked.about, asked.expected);
            problems.add("wrong balance", words);
        }
    }
    check_markets(chain, plan, model, problems).await?;
    Ok(questions.len() + plan.world.assets().count())
}

fn questions(plan: &Plan, model: &Model) -> Vec<Question> {
    let mut questions = Vec::new();
    for token in plan.world.token_ids() {
        let expected = vec![model.supply(token)];
        let input = Calldata::call("totalSupply()").finish();
        let about = format!("supply of token {}", token.0);
        questions.push(Question { about, to: plan.world.token(token), input, expected });
    }
    for (token, holder, units) in model.holdings() {
        questions.push(holding(plan, token, holder, units));
    }
    for pool in plan.world.pool_ids() {
        let state = model.pool(pool);
        let to = plan.world.pool(pool).address;
        let shares = Calldata::call("totalSupply()").finish();
        let about = |what: &str| format!("{what} of pool {}", pool.0);
        let reserves = Question {
            about: about("reserves"),
            to,
            input: Calldata::call("reserves()").finish(),
            expected: vec![state.reserve0, state.reserve1],
        };
        questions.push(reserves);
        questions.push(Question { about: about("shares"), to, input: shares, expected: vec![state.shares] });
    }
    for (asset, account, position) in model.positions() {
        let input = Calldata::call("positions(address,address)");
        let input = input.address(plan.world.token(asset)).address(plan.accounts.address(account)).finish();
        let expected = vec![position.scaled_supply, position.scaled_debt];
        let about = format!("position of {account:?} in market {}", asset.0);
        questions.push(Question { about, to: plan.world.lending, input, expected });
    }
    questions
}

fn holding(plan: &Plan, token: TokenId, holder: Holder, units: U256) -> Question {
    let pool = |pool: PoolId| plan.world.pool(pool).address;
    let address = match holder {
        Holder::Account(id) => plan.accounts.address(id),
        Holder::Pool(id) => pool(id),
        Holder::Lending => plan.world.lending,
        Holder::OrderBook => plan.world.book,
    };
    Question {
        about: format!("token {} of {holder:?}", token.0),
        to: plan.world.token(token),
        input: Calldata::call("balanceOf(address)").address(address).finish(),
        expected: vec![units],
    }
}

/// A market answers with interest up to the moment of the question, which it names.
async fn check_markets(chain: &Chain, plan: &Plan, model: &Model, problems: &mut Problems) -> eyre::Result<()> {
    let call = |asset| {
        let input = Calldata::call("reserveOf(address)").address(plan.world.token(asset)).finish();
        (plan.world.lending, input)
    };
    let calls: Vec<(Address, Bytes)> = plan.world.assets().map(call).collect();
    for (asset, words) in plan.world.assets().zip(chain.read(&calls).await?) {
        let now = words.get(5).and_then(|word| u64::try_from(*word).ok()).unwrap_or_default();
        let expected = model.reserve(asset, now).map(|reserve| reserve_words(&reserve));
        if words.get(..7) != expected.as_ref().map(<[U256; 7]>::as_slice) {
            problems.add("wrong balance", || format!("market {}: {words:?}, not {expected:?}", asset.0));
        }
    }
    Ok(())
}

/// The first words of the contract's struct.
fn reserve_words(reserve: &Reserve) -> [U256; 7] {
    [
        reserve.supply_index,
        reserve.borrow_index,
        reserve.scaled_supply,
        reserve.scaled_debt,
        reserve.cash,
        U256::from(reserve.updated_at),
        reserve.fees,
    ]
}
