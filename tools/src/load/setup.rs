//! Brings a chain into the state that a plan starts from, and finds out what its operations cost there.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bench::{
    Kind, Phase, Plan,
    expect::Model,
    sign::{Fees, GasLimits, sign},
};
use eyre::{WrapErr, bail};
use serde::Serialize;

use super::{
    chain::Chain,
    drive::Drive,
    submit::Pace,
    verify::{Problems, Sent},
};

/// How the set-up is sent: quickly, and kindly to small pools.
const PACE: Pace = Pace { rate: None, batch: 50, outstanding: 2_000, duration: None };

/// Operations of a kind whose gas is estimated.
const SAMPLES: usize = 6;

/// One phase as it went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseReport {
    pub(crate) name: &'static str,
    pub(crate) transactions: usize,
    pub(crate) seconds: f64,
}

/// Sends all phases; returns the model of what they made.
pub(crate) async fn set_up(
    chain: &Chain,
    drive: &Drive,
    plan: &Plan,
    fees: Fees,
    nonces: &mut [u64],
) -> eyre::Result<(Model, Vec<PhaseReport>)> {
    let mut model = Model::default();
    let mut reports = Vec::new();
    let drive = Drive { pace: PACE, ..drive.clone() };
    for phase in plan.phases(fees.fee_max) {
        let began = Instant::now();
        run_phase(chain, &drive, plan, &phase, fees, nonces, &mut model)
            .await
            .wrap_err_with(|| format!("set-up failed in phase `{}`", phase.name))?;
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("set-up: {:7} {:6} transactions in {seconds:.1} s", phase.name, phase.steps.len());
        reports.push(PhaseReport { name: phase.name, transactions: phase.steps.len(), seconds });
    }
    Ok((model, reports))
}

async fn run_phase(
    chain: &Chain,
    drive: &Drive,
    plan: &Plan,
    phase: &Phase,
    fees: Fees,
    nonces: &mut [u64],
    model: &mut Model,
) -> eyre::Result<()> {
    let operations: Vec<_> = phase.steps.iter().map(|step| (step.from, step.operation.clone())).collect();
    let signed = sign(&operations, &plan.world, &plan.accounts, fees, &GasLimits::new(), nonces);
    let transactions = Arc::new(signed);
    let trace = drive.run(chain, transactions.clone(), plan.accounts.count(), phase.name).await?;
    let sent = Sent { plan, operations: &operations, transactions: &transactions, fees };
    let mut problems = Problems::default();
    let inclusions = sent.verify(chain, &trace.blocks, &mut problems).await?;
    for (reason, count) in trace.refusals {
        problems.add("refused", || format!("{count} times: {reason}"));
    }
    if inclusions.len() != transactions.len() {
        problems.add("lost", || format!("{} of {} included", inclusions.len(), transactions.len()));
    }
    for inclusion in &inclusions {
        let (from, operation) = &operations[inclusion.index];
        if let Err(refusal) = model.apply(&plan.world, *from, operation, inclusion.timestamp) {
            problems.add("model", || format!("{operation:?}: {refusal}"));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.examples.join("\n"));
    }
    Ok(())
}

/// Gas limits for each kind of operation: half as much again as the most that some of them need, in steps
/// that make two nodes with slightly different estimates agree.
pub(crate) async fn gas_limits(chain: &Chain, plan: &Plan) -> eyre::Result<GasLimits> {
    const STEP: u64 = 25_000;
    let mut samples: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
    for (from, operation) in &plan.operations {
        let (count, most) = samples.entry(operation.kind()).or_default();
        if *count == SAMPLES {
            continue;
        }
        *count += 1;
        let call = operation.call(*from, &plan.world, &plan.accounts);
        let estimate = chain.estimate(plan.accounts.address(*from), &call).await;
        *most = estimate.wrap_err_with(|| format!("{operation:?}"))?.max(*most);
    }
    let mut limits = GasLimits::new();
    for (kind, (_, most)) in samples {
        if most > kind.gas_max() {
            bail!("{} needs {most} gas, which is more than {} was funded for", kind.name(), kind.gas_max());
        }
        let limit = if kind == Kind::Transfer { most } else { (most + most / 2).next_multiple_of(STEP) };
        limits.insert(kind, limit.min(kind.gas_max()));
    }
    Ok(limits)
}
