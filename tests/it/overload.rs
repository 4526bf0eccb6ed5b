//! More than a node can take, and more than anybody's share: what it does for the others meanwhile.
//!
//! They want the machine for themselves: they run when `SLUICE_OVERLOAD=1`, one at a time (`--test-threads 1`).
//!
//! Everything is compared with what the same node did in the same run, before, after and between, since the machine is
//! shared with whoever sends. `SLUICE_OVERLOAD_SECONDS` says how long twice the peak is offered, ten times as much for
//! a tenth of that: 60 unless given, and 30 at least, since in 10 s one moment of 0.1 s is the hundredth that p99 is
//! about. With `SLUICE_OVERLOAD_HASHES` each transaction computes so many hashes, so that the node lacks time for
//! execution, and not for the recovery of senders.

mod crowd;
mod flood;
mod forgers;

use std::{
    fmt::{Display, Formatter},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use alloy_signer_local::PrivateKeySigner;
use net::{
    ingress::limits::{FAULTS_MAX, FAULTS_PER_SECOND, WINDOW_TRANSACTIONS},
    ports::{self, Carrier},
};
use serde_json::json;
use tests::{
    machine::Usage,
    node::Node,
    rpc::{Rpc, quantity},
    wallet::{account, hex_of, sign, template},
};
use tokio::runtime::{Builder, Runtime};

use self::crowd::{Crowd, Pace, Tally, Work, client_key, keys};
use self::flood::Flood;
use self::forgers::Forgers;

/// What each account is funded with: enough for some ten thousand transfers that wait.
const FUNDS_ETHER: u64 = 40;

/// What a phase is not judged by, at its begin; and where more is offered than a node takes, until its queues are full.
const WARM_UP: Duration = Duration::from_secs(1);
const FILLING: Duration = Duration::from_secs(3);

/// What a node holds rises for its first turns, so many of which are not looked at; of the next, so many tell.
const FILLED: usize = 5;
const TELLING: usize = 10;

/// Longest wait for the next end where something is under way.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a node's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Who receives one wei with each transfer.
const SINK: Address = Address::repeat_byte(0x51);

const TRANSFER: Work = Work { to: SINK, gas_limit: 21_000, is_replaced: false };

/// A contract that computes so many hashes whenever it is called: 70 gas each.
fn hashing(count: u16) -> Bytes {
    let [high, low] = count.to_be_bytes();
    let runtime = [&[0x61, high, low][..], &hex!("5b6020600020506001900380600357")[..], &[0]].concat();
    let size = u8::try_from(runtime.len()).expect("a few bytes");
    [&[0x60, size, 0x60, 0x0a, 0x5f, 0x39, 0x60, size, 0x5f, 0xf3][..], &runtime].concat().into()
}

/// Time in which a node is at its peak, before and after it is offered more; and in which it is offered more at a
/// time, since no more is signed before.
const PEAK: Duration = Duration::from_secs(5);
const OVER: u64 = 20;

/// What a thousand clients may make a node hold: a window each.
const MEMORY_MORE_MAX: u64 = 1_024 * 256 * 1024;

/// A node with a way in, and funded accounts.
struct Stage {
    node: Node,
    metrics: Rpc,
    quic: String,
    runtime: Runtime,
    accounts: Vec<PrivateKeySigner>,
}

impl Stage {
    fn new(folder: &Path, accounts: usize, flags: &[&str]) -> Self {
        let quic = format!("127.0.0.1:{}", ports::free(&[Carrier::Udp]).expect("a port")[0]);
        let metrics = format!("127.0.0.1:{}", ports::free(&[Carrier::Tcp]).expect("a port")[0]);
        let node = Node::dev(folder, &[&["--quic", quic.as_str(), "--metrics", metrics.as_str()], flags].concat());
        let metrics = Rpc::new(&format!("http://{metrics}/metrics"));
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let stage = Self { node, metrics, quic, runtime, accounts: keys("overload account", accounts) };
        stage.fund();
        stage
    }

    /// Ten rich accounts pay for all.
    fn fund(&self) {
        let rich: Vec<_> = (0..10).map(account).collect();
        let value = U256::from(FUNDS_ETHER) * U256::from(10_u64.pow(18));
        for (number, poor) in self.accounts.iter().enumerate() {
            let (payer, nonce) = (&rich[number % 10], u64::try_from(number / 10).expect("a few"));
            let tx = sign(payer, TxEip1559 { to: TxKind::Call(poor.address()), value, ..template(nonce) });
            if number + 10 < self.accounts.len() {
                self.node.rpc.call("eth_sendRawTransaction", json!([hex_of(&tx)]));
            } else {
                self.include(&tx);
            }
        }
    }

    /// What transactions are to do: send a wei, to a contract that takes its time if that is wanted.
    fn work(&self) -> Work {
        let hashes = variable("SLUICE_OVERLOAD_HASHES").unwrap_or(0);
        let Some(count) = u16::try_from(hashes).ok().filter(|count| *count > 0) else {
            return Work { is_replaced: true, ..TRANSFER };
        };
        let deployer = account(0);
        let nonce = quantity(&self.node.rpc.call("eth_getTransactionCount", json!([deployer.address(), "pending"])));
        let tx = TxEip1559 { to: TxKind::Create, input: hashing(count), gas_limit: 200_000, ..template(nonce) };
        self.include(&sign(&deployer, tx));
        Work { to: deployer.address().create(nonce), gas_limit: 22_000 + 70 * hashes, is_replaced: true }
    }

    /// Slots that the node's ordering gave up, up to half a second ago.
    fn given_up(&self) -> f64 {
        self.metrics.metric("engine_slot_given_up_total").expect("a count")
    }

    /// Submits over JSON-RPC and waits until it is included.
    fn include(&self, raw: &Bytes) {
        let hash = self.node.rpc.call("eth_sendRawTransaction", json!([hex_of(raw)]));
        let until = Instant::now() + PATIENCE;
        while self.node.rpc.call("eth_getTransactionReceipt", json!([hash])).is_null() {
            assert!(Instant::now() < until, "{hash} is not included");
            thread::park_timeout(LOOK);
        }
    }

    /// Lets everybody send at these paces for a while; waits until all has ended.
    fn phase(&self, crowd: &Crowd, paces: &[Pace], time: Duration) -> Figures {
        let memory = Memory::watch(self.node.process());
        let begun = Instant::now();
        let due = self.runtime.block_on(crowd.send(paces, time));
        let memory = memory.taken();
        let (end, waiting) = (begun + time, crowd.under_way());
        let warm_up = if matches!(paces, [Pace::Open(_), ..]) { FILLING } else { WARM_UP };
        let tally = self.runtime.block_on(crowd.settle(PATIENCE));
        let settled = end.elapsed();
        Figures { settled, ..Figures::new(begun + warm_up, end, due, waiting, tally, &memory) }
    }
}

/// Looks at a process's memory until it is taken.
struct Memory {
    done: Arc<AtomicBool>,
    watching: JoinHandle<Vec<Usage>>,
}

impl Memory {
    fn watch(process: u32) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let watching = thread::spawn(move || {
            let mut seen = Vec::new();
            while !told.load(Ordering::Relaxed) {
                seen.extend(Usage::of(process));
                thread::park_timeout(LOOK);
            }
            seen
        });
        Self { done, watching }
    }

    fn taken(self) -> Vec<Usage> {
        self.done.store(true, Ordering::Relaxed);
        self.watching.join().expect("it looks")
    }
}

/// What a phase came to.
struct Figures {
    due: u64,
    /// Submissions without an end when the phase was over.
    waiting: usize,
    /// How long it took until they had theirs.
    settled: Duration,
    tally: Tally,
    /// Included a second.
    goodput: f64,
    /// From admitted to final.
    half: Duration,
    tail: Duration,
    /// Bytes of memory of its own on average.
    own: u64,
    /// Bytes in memory at most, with the pages of its database.
    resident_max: u64,
}

impl Figures {
    fn new(begin: Instant, end: Instant, due: u64, waiting: usize, tally: Tally, memory: &[Usage]) -> Self {
        let within = tally.finals.iter().filter(|(when, _)| (begin..end).contains(when)).count();
        let resident_max = memory.iter().map(|usage| usage.resident_bytes).max().unwrap_or(0);
        let own = memory.iter().map(|usage| usage.own_bytes).sum::<u64>() / memory.len().max(1) as u64;
        let goodput = f64::from(u32::try_from(within).expect("a few")) / (end - begin).as_secs_f64();
        let settled = Duration::ZERO;
        let (half, tail) = (Self::part(&tally.finals, 50), Self::part(&tally.finals, 99));
        Self { due, waiting, settled, goodput, half, tail, own, resident_max, tally }
    }

    /// The time from admitted to final that so many of a hundred did not exceed.
    fn part<'a>(finals: impl IntoIterator<Item = &'a (Instant, Duration)>, percent: usize) -> Duration {
        let mut times: Vec<Duration> = finals.into_iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        times.get(times.len() * percent / 100).copied().unwrap_or_default()
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Tally { submitted, admitted, included, refused, dropped, strange, .. } = &self.tally;
        write!(
            f,
            "{:.0}/s included, p50 {:?}, p99 {:?} from admitted; {} due, {submitted} submitted, {admitted} admitted, \
             {included} included, refused {refused:?}, dropped {dropped:?}, {strange} strange; {} under way at the \
             end, for {:?}; {} MiB of its own, at most {} with its database's pages",
            self.goodput,
            self.half,
            self.tail,
            self.due,
            self.waiting,
            self.settled,
            self.own >> 20,
            self.resident_max >> 20,
        )
    }
}

fn variable(name: &str) -> Option<u64> {
    let given = std::env::var(name).ok()?;
    Some(given.parse().unwrap_or_else(|_| panic!("{name} is {given}, which is no number")))
}

/// Says plainly that nothing is tested, if that is so.
fn skipped() -> bool {
    let skipped = variable("SLUICE_OVERLOAD").unwrap_or(0) == 0;
    if skipped {
        println!("skipped: it wants the machine for itself; set SLUICE_OVERLOAD=1");
    }
    skipped
}

#[test]
fn offered_twice_and_ten_times_its_peak_a_node_includes_as_much_as_soon_and_tells_each_its_end() {
    if skipped() {
        return;
    }
    const CLIENTS: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage::new(folder.path(), 2_000, &[]);
    let clients = (0..CLIENTS).map(|number| client_key("overload client", number)).collect();
    let work = stage.work();
    let crowd = stage.runtime.block_on(Crowd::connect(&stage.quic, clients, &stage.accounts, work));
    crowd.sign(40);
    let warm = stage.phase(&crowd, &[Pace::Closed; CLIENTS], Duration::from_secs(3));
    let at_peak = || {
        crowd.sign(50);
        let peak = stage.phase(&crowd, &[Pace::Closed; CLIENTS], PEAK);
        println!("peak: {peak}");
        peak
    };
    let given_up = stage.given_up();
    let time = variable("SLUICE_OVERLOAD_SECONDS").unwrap_or(60);
    let mut last = at_peak();
    let mut included = warm.tally.included + last.tally.included;
    for (times, time) in [(2.0, time), (10.0, (time / 10).max(30))] {
        let (mut peaks, mut phases) = (vec![last], Vec::new());
        for begin in (0..time).step_by(usize::try_from(OVER).expect("a few")) {
            let (peak, seconds) = (&peaks[peaks.len() - 1], OVER.min(time - begin));
            let wanted = peak.tally.included * seconds / PEAK.as_secs() * 13 / 10;
            crowd.sign(1 + usize::try_from(wanted).expect("a few") / stage.accounts.len());
            let pace = Pace::Open(times * peak.goodput / 8.0);
            let span = Duration::from_secs(seconds);
            let over = stage.phase(&crowd, &[pace; CLIENTS], span);
            println!("{times} times the peak for {span:?}: {over}");
            phases.push(over);
            peaks.push(at_peak());
        }
        let both = peaks[1..].iter().chain(&phases);
        included += both.map(|phase| phase.tally.included).sum::<u64>();
        judge(&peaks, &phases);
        last = peaks.pop().expect("one at least");
    }
    let balance = stage.node.rpc.call("eth_getBalance", json!([work.to, "latest"]));
    assert_eq!(quantity(&balance), included, "each is included once, and nothing else is");
    assert!((stage.given_up() - given_up).abs() < 0.5, "a timer of ordering fired");
}

/// Holds what a node did while it was offered too much to what it did at its peaks around that.
fn judge(peaks: &[Figures], phases: &[Figures]) {
    let goodput = |of: &[Figures]| of.iter().map(|phase| phase.goodput).sum::<f64>() / of.len() as f64;
    let tail = |of: &[Figures]| Figures::part(of.iter().flat_map(|phase| &phase.tally.finals), 99);
    // It writes its state down every ten to twenty seconds, and lets go of what it kept until then: hence means.
    let memory = |of: &[Figures]| of.iter().map(|phase| phase.own).sum::<u64>() / of.len() as u64;
    let (over, at_peak) = ((goodput(phases), tail(phases)), (goodput(peaks), tail(peaks)));
    let filled = &phases[FILLED.min(phases.len() - 1)..];
    let (early, late) = filled.split_at(filled.len() / 2);
    let (early, late) = (memory(if early.is_empty() { peaks } else { early }), memory(late));
    println!(
        "  {:.3} of the peak, p99 {:?} and {:?} at the peak, {} MiB and then {}",
        over.0 / at_peak.0,
        over.1,
        at_peak.1,
        early >> 20,
        late >> 20
    );
    for phase in phases {
        assert_eq!((phase.tally.ended(), phase.tally.strange), (phase.tally.submitted, 0), "one end each: {phase}");
    }
    assert!(over.0 >= 0.9 * at_peak.0, "{} a second, {} at the peak", over.0, at_peak.0);
    assert!(over.1 <= 2 * at_peak.1, "p99 {:?}, at the peak {:?}", over.1, at_peak.1);
    if filled.len() >= TELLING {
        assert!(late * 20 <= early * 21, "{early} bytes of memory of its own, then {late}");
    }
}

#[test]
fn a_client_that_wants_ten_shares_leaves_nine_others_theirs() {
    if skipped() {
        return;
    }
    const CLIENTS: usize = 10;
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage::new(folder.path(), 500, &[]);
    let clients = (0..CLIENTS).map(|number| client_key("fair client", number)).collect();
    let crowd = stage.runtime.block_on(Crowd::connect(&stage.quic, clients, &stage.accounts, TRANSFER));
    let time = Duration::from_secs(4);
    crowd.sign(120);
    // More than any machine takes.
    let all = stage.phase(&crowd, &[Pace::Open(20_000.0); CLIENTS], time);
    let share = f64::from(u32::try_from(all.tally.admitted).expect("a few")) / 4.0 / 10.0;
    crowd.sign(250);
    let time = Duration::from_secs(8);
    let mut paces = [Pace::Open(2.0 * share); CLIENTS];
    paces[0] = Pace::Open(10.0 * share);
    let due = stage.runtime.block_on(crowd.send(&paces, time));
    let admitted = crowd.admitted();
    let fair = admitted.iter().sum::<u64>() / 10;
    let tally = stage.runtime.block_on(crowd.settle(PATIENCE));
    println!("share {share:.0}/s; {due} due, fair share {fair}, the greedy one first: {admitted:?}");
    assert!(due > tally.submitted, "they were held back, or nobody was greedy");
    assert!(admitted[1..].iter().all(|count| *count * 100 >= fair * 95), "{admitted:?}, fair {fair}");
    assert_eq!((tally.ended(), tally.strange), (tally.submitted, 0));
}

#[test]
fn a_client_with_weight_keeps_its_rate_while_ten_thousand_without_come_and_go() {
    if skipped() {
        return;
    }
    const ATTEMPTS: u32 = 10_000;
    const AT_A_TIME: u32 = 1_000;
    let folder = tempfile::tempdir().expect("a folder");
    let weighty = client_key("weighty client", 0);
    let list = folder.path().join("weights");
    std::fs::write(&list, format!("{} 1\n", hex::encode(weighty.public_key()))).expect("a file");
    let list = list.display().to_string();
    let stage = Stage::new(&folder.path().join("data"), 400, &["--quic.weights", &list]);
    let crowd = stage.runtime.block_on(Crowd::connect(&stage.quic, vec![weighty], &stage.accounts, TRANSFER));
    crowd.sign(100);
    let peak = stage.phase(&crowd, &[Pace::Closed], Duration::from_secs(4));
    // What it wants leaves most of a shared machine to those who flood.
    let pace = [Pace::Open(peak.goodput / 8.0)];
    let time = Duration::from_secs(4);
    crowd.sign(100);
    let alone = stage.phase(&crowd, &pace, time);
    let before_bytes = alone.resident_max;
    let mut flood = Flood::begin(&stage.quic, ATTEMPTS, AT_A_TIME);
    let mut during = Vec::new();
    let mut most = 0;
    while !flood.has_ended() {
        crowd.sign(60);
        let phase = stage.phase(&crowd, &pace, time);
        most = most.max(phase.resident_max);
        during.push(phase);
    }
    let flooded = flood.end();
    let rate = |phases: &[Figures]| {
        let [admitted, count] = [phases.iter().map(|phase| phase.tally.admitted).sum(), phases.len() as u64];
        f64::from(u32::try_from(admitted / count).expect("a few")) / time.as_secs_f64()
    };
    let (before, under) = (rate(std::slice::from_ref(&alone)), rate(&during));
    println!(
        "alone {before:.0}/s, p99 {:?}; flooded {under:.0}/s over {} phases of {time:?}, p99 {:?}; {flooded}; {} MiB \
         before, {} at most",
        alone.tail,
        during.len(),
        during.iter().map(|phase| phase.tail).max().unwrap_or_default(),
        before_bytes >> 20,
        most >> 20,
    );
    assert!(under >= 0.95 * before, "{under} of {before}");
    assert!(most < before_bytes + MEMORY_MORE_MAX, "{most} bytes, {} before", before_bytes);
    for phase in &during {
        assert_eq!((phase.tally.ended(), phase.tally.strange), (phase.tally.submitted, 0), "one end each: {phase}");
    }
}

#[test]
fn sixteen_who_forge_fifty_thousand_signatures_a_second_cost_others_nothing() {
    if skipped() {
        return;
    }
    const FORGERS: usize = 16;
    const PER_SECOND: u64 = 50_000;
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage::new(folder.path(), 800, &[]);
    let clients = (0..4).map(|number| client_key("honest client", number)).collect();
    let crowd = stage.runtime.block_on(Crowd::connect(&stage.quic, clients, &stage.accounts, TRANSFER));
    crowd.sign(60);
    let peak = stage.phase(&crowd, &[Pace::Closed; 4], Duration::from_secs(4));
    let paces = [Pace::Open(peak.goodput / 2.0 / 4.0); 4];
    let time = Duration::from_secs(8);
    crowd.sign(100);
    let alone = stage.phase(&crowd, &paces, time);
    crowd.sign(100);
    let forgers = Forgers::begin(&stage.quic, FORGERS, PER_SECOND);
    let beside = stage.phase(&crowd, &paces, time);
    let forged = forgers.end();
    println!("peak {:.0}/s; half of it, alone: {alone}; beside forgers: {beside}; {forged}", peak.goodput);
    assert_eq!(forged.admitted, 0);
    // Their budget, what time gives back, and what was on its way when it was spent.
    let seconds = forged.time.as_secs() + 1;
    let allowed = FORGERS as u64 * (FAULTS_MAX + FAULTS_PER_SECOND * seconds + WINDOW_TRANSACTIONS as u64);
    assert!(forged.refused <= allowed, "{forged}, and senders of {allowed} may be looked for");
    assert!(forged.unheard > forged.refused, "{forged}");
    assert!(beside.goodput >= 0.9 * alone.goodput, "{beside}");
    for phase in [&alone, &beside] {
        assert_eq!((phase.tally.ended(), phase.tally.strange), (phase.tally.submitted, 0), "one end each: {phase}");
    }
}
