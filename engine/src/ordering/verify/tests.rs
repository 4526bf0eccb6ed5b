//! Forged certificates against a naive checker, replay across domains, and evidence that convicts only the faulty.
//!
//! `SLUICE_CERTIFICATES` sets the cases with mock signatures (default 20,000), `SLUICE_CERTIFICATES_BLS` those with
//! real ones (default 150), `SLUICE_SEED` the seed.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, keccak256};
use alloy_rlp::{Decodable as _, Encodable};

use super::{CertificateError, EvidenceError, WordError, certificate, evidence, proposal, vote};
use crate::{
    crypto::{
        Committee, Scheme, Signer,
        bls::BlsScheme,
        tests::{Random, secret, setting, signers},
    },
    ordering::certify::certify,
    testing::{MockScheme, MockSigner},
    types::{
        Certificate, ConsensusHeader, Domain, Epoch, Evidence, PublicKey, Signature, SignedHeader, Signers, Slot,
        Stake, Statement, Validator, ValidatorIndex, ValidatorSet, Vote, validator::SetError, vote::Kind,
    },
};

const EPOCH: u64 = 5;

/// A set with everybody's signer.
struct World {
    set: ValidatorSet,
    committee: Arc<dyn Committee>,
    signers: Vec<Box<dyn Signer>>,
    stranger: Box<dyn Signer>,
    domain: Domain,
}

fn signer(real: bool, number: u64) -> (PublicKey, Box<dyn Signer>) {
    if real {
        let secret = secret(number);
        (secret.public_key(), Box::new(secret))
    } else {
        let signer = MockSigner::new(number);
        (signer.public_key(), Box::new(signer))
    }
}

impl World {
    fn new(real: bool, stakes: &[u64]) -> Self {
        let (keys, signers): (Vec<_>, Vec<_>) = (0..).zip(stakes).map(|(number, _)| signer(real, number)).unzip();
        let validators = keys.into_iter().zip(stakes);
        let validators =
            validators.map(|(public_key, stake)| Validator { public_key, stake: *stake, operator: Address::ZERO });
        let set = ValidatorSet::new(Epoch(EPOCH), validators.collect()).unwrap();
        let committee = if real { BlsScheme.committee(&set) } else { MockScheme.committee(&set) }.unwrap();
        let domain = Domain { chain_id: 7, genesis: B256::repeat_byte(9) };
        Self { set, committee, signers, stranger: signer(real, 999_999).1, domain }
    }

    fn sum(&self, who: &[usize], hash: B256) -> Signature {
        let shares: Vec<_> = who.iter().map(|who| self.signers[*who].sign(hash)).collect();
        self.committee.aggregate(&shares).unwrap_or_default()
    }

    fn vote(&self, who: u16, statement: Statement) -> Vote {
        let (epoch, voter) = (self.set.epoch(), ValidatorIndex(who));
        let signature = self.signers[usize::from(who)].sign(self.domain.vote(epoch, &statement));
        Vote { epoch, statement, voter, signature }
    }

    fn certificate(&self, who: &[usize], statement: Statement) -> Certificate {
        let epoch = self.set.epoch();
        let signature = self.sum(who, self.domain.vote(epoch, &statement));
        Certificate { epoch, statement, signers: signers(self.set.size(), who.iter().copied()), signature }
    }

    fn header(&self, who: u16, slot: u64, height: u64) -> Box<SignedHeader> {
        let share = self.domain.hash(Kind::Seed, Epoch(EPOCH), Slot(slot), B256::ZERO);
        let header = ConsensusHeader {
            chain_id: self.domain.chain_id,
            epoch: EPOCH,
            slot,
            height,
            proposer: who,
            seed_share: self.signers[usize::from(who)].sign(share),
            ..ConsensusHeader::default()
        };
        let hash = self.domain.hash(Kind::Proposal, Epoch(EPOCH), Slot(slot), header.id());
        let signature = self.signers[usize::from(who)].sign(hash);
        Box::new(SignedHeader { header, signature })
    }
}

/// A certificate as it may arrive.
#[derive(Clone, Debug)]
struct Raw {
    epoch: u64,
    kind: u8,
    slot: u64,
    id: Vec<u8>,
    size: u16,
    bitmap: Vec<u8>,
    signature: Signature,
}

fn list(items: &[&dyn Encodable]) -> Vec<u8> {
    let mut payload = Vec::new();
    items.iter().for_each(|item| item.encode(&mut payload));
    let mut out = Vec::new();
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
    [out, payload].concat()
}

/// RLP that is there already.
struct Encoded(Vec<u8>);

impl Encodable for Encoded {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        out.put_slice(&self.0);
    }
}

impl Raw {
    fn encoded(&self) -> Vec<u8> {
        let statement = Encoded(list(&[&self.kind, &self.slot, &self.id.as_slice()]));
        let signers = Encoded(list(&[&self.size, &self.bitmap.as_slice()]));
        list(&[&self.epoch, &statement, &signers, &self.signature])
    }

    /// What its signers sign on this chain, written out.
    fn hash(&self, domain: &Domain) -> B256 {
        let mut id = self.id.clone();
        id.resize(32, 0);
        let numbers = [self.epoch.to_be_bytes(), self.slot.to_be_bytes()].concat();
        let chain = domain.chain_id.to_be_bytes();
        keccak256([b"sluice", &[self.kind][..], &chain, domain.genesis.as_slice(), &numbers, &id].concat())
    }

    fn flip(&mut self, bit: usize) {
        if let Some(byte) = self.bitmap.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

/// Bit by bit, in wide numbers, with every share signed anew.
fn naive(world: &World, raw: &Raw) -> bool {
    let validators = world.set.validators();
    let named = match raw.kind {
        2 | 4 => raw.id.len() == 32,
        3 => raw.id.is_empty(),
        _ => false,
    };
    if !named || raw.epoch != EPOCH || usize::from(raw.size) != validators.len() {
        return false;
    }
    if raw.bitmap.len() != validators.len().div_ceil(8) {
        return false;
    }
    let who: Vec<usize> = (0..raw.bitmap.len() * 8).filter(|bit| raw.bitmap[bit / 8] >> (bit % 8) & 1 == 1).collect();
    if who.iter().any(|who| *who >= validators.len()) {
        return false;
    }
    let total: u128 = validators.iter().map(|validator| u128::from(validator.stake)).sum();
    let stake: u128 = who.iter().map(|who| u128::from(validators[*who].stake)).sum();
    3 * stake > 2 * total && world.sum(&who, raw.hash(&world.domain)) == raw.signature
}

fn taken(world: &World, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let Ok(decoded) = Certificate::decode(&mut rest) else { return false };
    assert_eq!(alloy_rlp::encode(decoded), bytes[..bytes.len() - rest.len()], "one encoding");
    certificate(&world.set, &*world.committee, &world.domain, &decoded).is_ok()
}

/// Stakes such that these signers weigh a quorum and `over` units more; and the signers.
fn at_the_edge(random: &mut Random, size: usize, over: i128) -> Option<(Vec<u64>, Vec<usize>)> {
    let unit = [1, 1_000, u64::MAX / 8 / size as u64][random.below(3)];
    let mut stakes: Vec<u64> = (0..size).map(|_| 1 + random.next() % unit).collect();
    let mut who: Vec<usize> = (0..size).filter(|_| random.below(3) > 0).collect();
    let last = *who.last()?;
    if who.len() == size {
        who.remove(0);
    }
    let sum = |who: &[usize], stakes: &[u64]| who.iter().map(|who| i128::from(stakes[*who])).sum::<i128>();
    let all: Vec<usize> = (0..size).collect();
    stakes[last] = 0;
    let (inside, total) = (sum(&who, &stakes), sum(&all, &stakes));
    let guess = 2 * (total - inside) - inside + 3 * (over + 1);
    // Above a quorum by `over`: inside + x = floor(2 (total + x) / 3) + 1 + over.
    let fits = |x: &i128| *x > 0 && inside + x == 2 * (total + x) / 3 + 1 + over;
    stakes[last] = u64::try_from((guess - 6..guess + 6).find(fits)?).ok()?;
    who.contains(&last).then_some((stakes, who))
}

fn world(random: &mut Random, real: bool) -> (World, Vec<usize>) {
    let size = 1 + random.below(if real { 6 } else { 70 });
    let over = [-1, 0, 0, 1][random.below(4)];
    if random.below(2) == 0
        && let Some((stakes, who)) = at_the_edge(random, size, over)
    {
        return (World::new(real, &stakes), who);
    }
    let most = u64::MAX / size as u64;
    let mut stakes: Vec<u64> = match random.below(3) {
        0 => vec![1; size],
        1 => (0..size).map(|_| 1 + random.next() % 10).collect(),
        _ => (0..size).map(|_| 1 + random.next() % most).collect(),
    };
    if random.below(3) == 0 {
        stakes = vec![1; size];
        stakes[random.below(size)] = (size as u64 / 2).max(1);
    }
    // Most of them, so that half of the cases weigh enough.
    let who = (0..size).filter(|_| random.below(5) > 0).collect();
    (World::new(real, &stakes), who)
}

const FORGERIES: [&str; 16] = [
    "none",
    "none at all",
    "bitmap longer",
    "bitmap shorter",
    "larger set",
    "bit past the set",
    "signer added",
    "signer dropped",
    "share twice",
    "wrong epoch",
    "old epoch's signatures",
    "other statement",
    "other chain",
    "bit of signature",
    "stranger's share",
    "shape of statement",
];

/// A certificate of these signers, forged in one way.
fn forged(random: &mut Random, world: &World, who: &[usize], forgery: &str) -> Raw {
    let size = world.set.size();
    let kind = [2, 3, 4][random.below(3)];
    let id = if kind == 3 { vec![] } else { random.hash().to_vec() };
    let bitmap = vec![0; size.div_ceil(8)];
    let (epoch, slot) = (EPOCH, random.next());
    let mut raw =
        Raw { epoch, kind, slot, id, size: u16::try_from(size).unwrap(), bitmap, signature: Signature::default() };
    who.iter().for_each(|who| raw.flip(*who));
    let mut shares: Vec<Signature> = who.iter().map(|who| world.signers[*who].sign(raw.hash(&world.domain))).collect();
    let any = random.below(size);
    match forgery {
        "signer added" => raw.flip((0..size).find(|index| !who.contains(index)).unwrap_or(any)),
        "signer dropped" => raw.flip(who.get(random.below(who.len().max(1))).copied().unwrap_or(any)),
        "share twice" => shares.extend(shares.first().copied()),
        "stranger's share" => shares.push(world.stranger.sign(raw.hash(&world.domain))),
        "old epoch's signatures" => {
            let old = Raw { epoch: EPOCH - 1, ..raw.clone() }.hash(&world.domain);
            shares = who.iter().map(|who| world.signers[*who].sign(old)).collect();
            raw.epoch -= u64::from(random.below(2) == 0);
        }
        "other chain" => {
            let genesis = if random.below(2) == 0 { world.domain.genesis } else { B256::ZERO };
            let other = Domain { chain_id: 7 + u64::from(!genesis.is_zero()), genesis };
            shares = who.iter().map(|who| world.signers[*who].sign(raw.hash(&other))).collect();
        }
        _ => {}
    }
    raw.signature = world.committee.aggregate(&shares).unwrap_or_default();
    match forgery {
        "none at all" => raw.bitmap.fill(0),
        "bitmap longer" => raw.bitmap.push(0),
        "bitmap shorter" => raw.bitmap.truncate(raw.bitmap.len() - 1),
        "larger set" => {
            raw.size += 1 + u16::try_from(random.below(400)).unwrap();
            raw.bitmap.resize(usize::from(raw.size).div_ceil(8), 0);
        }
        "bit past the set" => raw.flip(size + random.below((raw.bitmap.len() * 8 - size).max(1))),
        "wrong epoch" => raw.epoch += 1,
        "other statement" => match random.below(3) {
            0 => raw.slot ^= 1,
            1 if kind != 3 => raw.id[any % 32] ^= 1,
            _ => raw.kind = if kind == 2 { 4 } else { 2 },
        },
        "shape of statement" => match random.below(3) {
            0 => raw.kind = [0, 1, 5, 255][random.below(4)],
            1 => raw.id.push(0),
            _ => raw.kind = if kind == 3 { 2 } else { 3 },
        },
        "bit of signature" => raw.signature.0[random.below(96)] ^= 1 << random.below(8),
        _ => {}
    }
    raw
}

fn against_the_naive_checker(test: &str, real: bool, cases: u64) {
    let mut random = Random::seeded(test);
    let mut seen = BTreeMap::<_, [u64; 2]>::new();
    let mut done = 0;
    while done < cases {
        let (world, who) = world(&mut random, real);
        for forgery in FORGERIES {
            let raw = forged(&mut random, &world, &who, forgery);
            let (got, want) = (taken(&world, &raw.encoded()), naive(&world, &raw));
            assert_eq!(got, want, "case {done}, {forgery}: {raw:?} by {who:?} of {:?}", world.set);
            seen.entry(forgery).or_default()[usize::from(want)] += 1;
            done += 1;
        }
    }
    eprintln!("{test}: {done} cases; refused and taken: {seen:?}");
    for (forgery, [refused, taken]) in seen {
        let seen = match forgery {
            // One world in two has a quorum.
            "none" => taken > 0 || cases < 1_000,
            // A bitmap of whole bytes has no bits past the set.
            "bit past the set" => refused > 0,
            _ => refused > 0 && taken == 0,
        };
        assert!(seen, "{forgery} was refused {refused} times, taken {taken} times");
    }
}

#[test]
fn forged_certificates_are_refused_as_a_naive_checker_refuses_them() {
    against_the_naive_checker("mock certificates", false, setting("SLUICE_CERTIFICATES", 20_000));
    against_the_naive_checker("real certificates", true, setting("SLUICE_CERTIFICATES_BLS", 150));
}

#[test]
fn a_quorum_is_a_quorum_to_the_unit() {
    let mut random = Random::seeded("a quorum to the unit");
    let mut seen = [0; 3];
    while seen.iter().any(|seen| *seen < 200) {
        let over = random.below(3);
        let size = 2 + random.below(20);
        let Some((stakes, who)) = at_the_edge(&mut random, size, [-1, 0, 1][over]) else { continue };
        let world = World::new(false, &stakes);
        let signed = world.certificate(&who, Statement::Skip { slot: Slot(1) });
        let verdict = certificate(&world.set, &*world.committee, &world.domain, &signed);
        let expected = world.set.quorum();
        let short = CertificateError::Stake { expected, found: Stake(expected.0 - 1) };
        assert_eq!(verdict, if over == 0 { Err(short) } else { Ok(()) }, "{stakes:?} {who:?}");
        seen[over] += 1;
    }
}

#[test]
fn a_sum_of_stake_that_overflows_makes_no_set_and_the_largest_one_counts_right() {
    let half = u64::MAX / 2;
    let (set, domain) = (World::new(false, &[half, half, 1]).set, Domain::default());
    assert_eq!(set.total(), Stake(u64::MAX));
    let mut validators = set.validators().to_vec();
    validators[2].stake = 2;
    assert_eq!(ValidatorSet::new(Epoch(0), validators), Err(SetError::StakeOverflow));
    let world = World { domain, ..World::new(false, &[half, half, 1]) };
    let check = |who: &[usize]| {
        let signed = world.certificate(who, Statement::Skip { slot: Slot(1) });
        certificate(&world.set, &*world.committee, &domain, &signed).is_ok()
    };
    assert!(check(&[0, 1, 2]) && check(&[0, 1]));
    assert!(!check(&[0, 2]) && !check(&[0]) && !check(&[]));
}

#[test]
fn errors_come_in_order_of_cost() {
    let world = World::new(false, &[1, 1, 1, 1]);
    let check = |certificate: &Certificate| {
        super::certificate(&world.set, &*world.committee, &world.domain, certificate).unwrap_err()
    };
    let skip = Statement::Skip { slot: Slot(1) };
    let nothing = Signature::default();
    let mut signed = Certificate { epoch: Epoch(6), statement: skip, signers: Signers::none(3), signature: nothing };
    assert_eq!(check(&signed), CertificateError::Epoch { expected: Epoch(5), found: Epoch(6) });
    signed.epoch = Epoch(5);
    assert_eq!(check(&signed), CertificateError::Size { expected: 4, found: 3 });
    signed.signers = signers(4, 0..2);
    assert_eq!(check(&signed), CertificateError::Stake { expected: Stake(3), found: Stake(2) });
    signed.signers = signers(4, 0..3);
    assert_eq!(check(&signed), CertificateError::Signature);
}

/// One signature for every kind, chain, genesis, epoch, slot and id: it holds where it was made and nowhere else.
#[test]
fn no_signature_means_anything_in_another_domain() {
    let mut hashes = Vec::new();
    for kind in [Kind::Proposal, Kind::Notarize, Kind::Skip, Kind::Finalize, Kind::Seed, Kind::Identity] {
        for (chain_id, genesis) in [(7, 9), (8, 9), (7, 10), (9, 7)] {
            let domain = Domain { chain_id, genesis: B256::repeat_byte(genesis) };
            for (epoch, slot) in [(0, 0), (5, 6), (6, 5), (5, 7), (u64::MAX, 0), (0, u64::MAX)] {
                for id in [B256::ZERO, B256::repeat_byte(1), B256::with_last_byte(1)] {
                    hashes.push(domain.hash(kind, Epoch(epoch), Slot(slot), id));
                }
            }
        }
    }
    let world = World::new(false, &[1]);
    let real = World::new(true, &[1]);
    let one = ValidatorIndex(0);
    for (made, hash) in hashes.iter().enumerate() {
        let signature = world.signers[0].sign(*hash);
        for (used, other) in hashes.iter().enumerate() {
            assert_eq!(
                world.committee.verify(one, *other, &signature),
                made == used,
                "made for {made}, used for {used}"
            );
        }
        // Real signatures for neighbours, which differ in one field or two.
        if made % 24 == 0 {
            let signature = real.signers[0].sign(*hash);
            for (used, other) in hashes.iter().enumerate().skip(made).step_by(3).take(8) {
                assert_eq!(real.committee.verify(one, *other, &signature), made == used);
            }
        }
    }
}

#[test]
fn a_vote_or_a_proposal_is_its_signers_alone() {
    for real in [false, true] {
        let world = World::new(real, &[1, 1]);
        let (set, committee, domain) = (&world.set, &*world.committee, &world.domain);
        let cast = world.vote(1, Statement::Notarize { slot: Slot(3), id: B256::repeat_byte(1) });
        let check = |cast: Vote| vote(set, committee, domain, &cast);
        assert_eq!(check(cast), Ok(()));
        let one = ValidatorIndex(1);
        assert_eq!(check(Vote { voter: ValidatorIndex(0), ..cast }), Err(WordError::Signature(ValidatorIndex(0))));
        assert_eq!(check(Vote { voter: ValidatorIndex(2), ..cast }), Err(WordError::Outside(ValidatorIndex(2))));
        assert_eq!(
            check(Vote { epoch: Epoch(6), ..cast }),
            Err(WordError::Epoch { expected: Epoch(5), found: Epoch(6) })
        );
        assert_eq!(
            check(Vote { statement: Statement::Skip { slot: Slot(3) }, ..cast }),
            Err(WordError::Signature(one))
        );

        let SignedHeader { header, signature } = *world.header(1, 3, 4);
        let check = |header: &ConsensusHeader| {
            proposal(set, committee, domain, &SignedHeader { header: header.clone(), signature })
        };
        assert_eq!(check(&header), Ok(()));
        let stolen = SignedHeader { header: ConsensusHeader { seed_share: signature, ..header.clone() }, signature };
        assert_eq!(proposal(set, committee, domain, &stolen), Err(WordError::Signature(one)));
        let with = |change: fn(&mut ConsensusHeader)| {
            let mut header = header.clone();
            change(&mut header);
            check(&header).unwrap_err()
        };
        assert_eq!(with(|header| header.chain_id = 8), WordError::Chain { expected: 7, found: 8 });
        assert_eq!(with(|header| header.epoch = 6), WordError::Epoch { expected: Epoch(5), found: Epoch(6) });
        assert_eq!(with(|header| header.proposer = 2), WordError::Outside(ValidatorIndex(2)));
        assert_eq!(with(|header| header.proposer = 0), WordError::Signature(ValidatorIndex(0)));
        assert_eq!(with(|header| header.slot = 4), WordError::Signature(one));
        assert_eq!(with(|header| header.timestamp_ms = 1), WordError::Signature(one));
    }
}

/// Everything that can be said of two slots and two blocks.
fn statements() -> Vec<Statement> {
    let mut all = Vec::new();
    for slot in [3, 4].map(Slot) {
        all.push(Statement::Skip { slot });
        for id in [1, 2].map(B256::repeat_byte) {
            all.extend([Statement::Notarize { slot, id }, Statement::Finalize { slot, id }]);
        }
    }
    all
}

/// The table of what nobody may say twice, written out.
fn faulty(one: &Statement, two: &Statement) -> bool {
    let kinds = [one.kind(), two.kind()];
    one.slot() == two.slot()
        && match kinds {
            [Kind::Notarize, Kind::Notarize] | [Kind::Finalize, Kind::Finalize] => one.id() != two.id(),
            [Kind::Skip, Kind::Finalize] | [Kind::Finalize, Kind::Skip] => true,
            _ => false,
        }
}

#[test]
fn two_votes_or_certificates_convict_by_the_table_and_nobody_else() {
    for real in [false, true] {
        let world = World::new(real, &[1, 1, 1, 1]);
        let judge = |proof: Evidence| evidence(&world.set, &*world.committee, &world.domain, &proof);
        for one in statements() {
            for two in statements() {
                let expected = |who: Signers| if faulty(&one, &two) { Ok(who) } else { Err(EvidenceError::Compatible) };
                let votes = Evidence::Votes(world.vote(2, one), world.vote(2, two));
                assert_eq!(judge(votes), expected(signers(4, [2])), "{one:?} {two:?}");
                let certificates = [world.certificate(&[0, 1, 2], one), world.certificate(&[1, 2, 3], two)];
                let [first, second] = certificates.map(Box::new);
                assert_eq!(judge(Evidence::Certificates(first, second)), expected(signers(4, [1, 2])));
            }
        }
    }
}

#[test]
fn two_proposals_convict_their_proposer_if_they_are_of_one_slot() {
    let world = World::new(true, &[1, 1, 1, 1]);
    let judge = |one, two| evidence(&world.set, &*world.committee, &world.domain, &Evidence::Proposals(one, two));
    assert_eq!(judge(world.header(1, 3, 4), world.header(1, 3, 5)), Ok(signers(4, [1])));
    assert_eq!(judge(world.header(1, 3, 4), world.header(1, 3, 4)), Err(EvidenceError::Compatible));
    assert_eq!(judge(world.header(1, 3, 4), world.header(1, 4, 5)), Err(EvidenceError::Compatible));
    assert_eq!(judge(world.header(1, 3, 4), world.header(2, 3, 5)), Err(EvidenceError::Unrelated));
    let mut forged = world.header(1, 3, 5);
    forged.header.timestamp_ms = 1;
    let wrong = Err(EvidenceError::Word(WordError::Signature(ValidatorIndex(1))));
    assert_eq!(judge(world.header(1, 3, 4), forged.clone()), wrong);
    assert_eq!(judge(forged, world.header(1, 3, 4)), wrong);
}

#[test]
fn forged_evidence_convicts_nobody() {
    let world = World::new(false, &[1, 1, 1, 1]);
    let judge = |proof: Evidence| evidence(&world.set, &*world.committee, &world.domain, &proof).unwrap_err();
    let skip = Statement::Skip { slot: Slot(3) };
    let last = Statement::Finalize { slot: Slot(3), id: B256::repeat_byte(1) };
    let (one, two) = (world.vote(2, skip), world.vote(2, last));
    assert_eq!(judge(Evidence::Votes(one, world.vote(1, last))), EvidenceError::Unrelated);
    assert_eq!(judge(Evidence::Votes(one, Vote { epoch: Epoch(4), ..two })), EvidenceError::Unrelated);
    let wrong = EvidenceError::Word(WordError::Signature(ValidatorIndex(2)));
    assert_eq!(judge(Evidence::Votes(one, Vote { signature: one.signature, ..two })), wrong);
    assert_eq!(judge(Evidence::Votes(Vote { signature: two.signature, ..one }, two)), wrong);
    let old = [one, two].map(|vote| Vote { epoch: Epoch(4), ..vote });
    let epoch = WordError::Epoch { expected: Epoch(5), found: Epoch(4) };
    assert_eq!(judge(Evidence::Votes(old[0], old[1])), EvidenceError::Word(epoch));

    let (one, two) = (world.certificate(&[0, 1, 2], skip), world.certificate(&[1, 2, 3], last));
    let judge = |one, two| judge(Evidence::Certificates(Box::new(one), Box::new(two)));
    let wrong = EvidenceError::Certificate(CertificateError::Signature);
    assert_eq!(judge(one, Certificate { signers: one.signers, ..two }), wrong);
    assert_eq!(judge(Certificate { signers: two.signers, ..one }, two), wrong);
    let few = world.certificate(&[1, 2], last);
    let short = CertificateError::Stake { expected: Stake(3), found: Stake(2) };
    assert_eq!(judge(one, few), EvidenceError::Certificate(short));
    assert_eq!(judge(one, Certificate { epoch: Epoch(4), ..two }), EvidenceError::Unrelated);
}

/// A certificate forms exactly if the right shares weigh a quorum, and exactly the senders of wrong ones are named.
#[test]
fn a_certificate_forms_of_the_right_shares_and_names_the_senders_of_wrong_ones() {
    let mut random = Random::seeded("certify");
    for case in 0..1_500 {
        let (world, mut who) = world(&mut random, case % 25 == 0);
        let size = world.set.size();
        let statement = Statement::Notarize { slot: Slot(random.next()), id: random.hash() };
        let hash = world.domain.vote(Epoch(EPOCH), &statement);
        let mut wrong = Vec::new();
        let mut shares = Vec::new();
        for at in (1..who.len()).rev() {
            who.swap(at, random.below(at + 1));
        }
        let odds = [1_000, 20, 4][random.below(3)];
        for index in &who {
            let index = ValidatorIndex(u16::try_from(*index).unwrap());
            let right = world.signers[usize::from(index.0)].sign(hash);
            let share = match random.below(odds) {
                0 => world.stranger.sign(hash),
                1 => Signature::default(),
                _ => right,
            };
            wrong.extend((share != right).then_some(index));
            shares.push((index, share));
            if random.below(10) == 0 {
                shares.push((index, Signature::default()));
            }
        }
        let (formed, mut named) =
            certify(&world.set, &*world.committee, &world.domain, &statement, &shares, world.set.quorum());
        let right = who.iter().copied().filter(|who| !wrong.contains(&ValidatorIndex(u16::try_from(*who).unwrap())));
        let (right, all) = (signers(size, right), signers(size, who.iter().copied()));
        named.sort_unstable();
        wrong.sort_unstable();
        let enough = |signers: &Signers| signers.stake(&world.set) >= world.set.quorum();
        assert_eq!(named, if enough(&all) { wrong } else { vec![] }, "case {case}");
        assert_eq!(formed.map(|formed| formed.signers), enough(&right).then_some(right), "case {case}");
        if let Some(formed) = formed {
            assert_eq!(certificate(&world.set, &*world.committee, &world.domain, &formed), Ok(()));
        }
        let outside = (ValidatorIndex(u16::try_from(size).unwrap()), Signature::default());
        let (_, named) =
            certify(&world.set, &*world.committee, &world.domain, &statement, &[outside], world.set.quorum());
        assert_eq!(named, [outside.0]);
    }
}
