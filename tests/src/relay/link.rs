//! What one direction between two nodes does to packets: decisions alone, without sockets and clocks.
//!
//! Every packet takes the same number of draws whatever the conditions are, so what happens to the n-th packet of a
//! link follows from the seed, the link and n; only its time follows from the clock.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    str::FromStr,
    time::{Duration, Instant},
};

use crate::rng::Rng;

/// Packets that wait in one link; one more is dropped, as a router would.
pub const QUEUE_PACKETS_MAX: usize = 16_384;

/// Bytes that wait in one link: a quarter of a second at 128 Mbyte/s.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;

/// The whole of a share: 1,000 per mille.
const WHOLE: u64 = 1_000;

/// What a link does to packets. The default passes everything at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Time that every packet takes.
    pub delay: Duration,
    /// Most that is added to it, evenly by chance; by itself it changes no order.
    pub jitter: Duration,
    /// Packets lost, per mille.
    pub loss: u16,
    /// Packets that come twice, per mille.
    pub duplicate: u16,
    /// Packets that are held back so that later ones overtake them, per mille.
    pub reorder: u16,
    /// How long those are held back.
    pub hold: Duration,
    /// Bytes per second that pass; no limit if 0.
    pub rate: u64,
    /// Whether anything passes at all; what is under way when a link is closed is lost.
    pub open: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        let zero = Duration::ZERO;
        let hold = Duration::from_millis(20);
        Self { delay: zero, jitter: zero, loss: 0, duplicate: 0, reorder: 0, hold, rate: 0, open: true }
    }
}

impl Conditions {
    /// A constant delay and nothing else.
    #[must_use]
    pub fn delay_ms(delay: u64) -> Self {
        Self { delay: Duration::from_millis(delay), ..Self::default() }
    }

    /// These conditions with words such as `delay=20 loss=100 open=no` applied; times are in milliseconds, shares per
    /// mille, the rate in bytes per second.
    ///
    /// # Errors
    /// The word that says nothing.
    pub fn with(mut self, words: &str) -> Result<Self, String> {
        fn number<T: FromStr>(word: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|_| format!("{word} has no number"))
        }
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word} is no NAME=VALUE"))?;
            let share = || number(word, value).and_then(|share| allowed_share(word, share));
            match name {
                "delay" => self.delay = Duration::from_millis(number(word, value)?),
                "jitter" => self.jitter = Duration::from_millis(number(word, value)?),
                "hold" => self.hold = Duration::from_millis(number(word, value)?),
                "loss" => self.loss = share()?,
                "duplicate" => self.duplicate = share()?,
                "reorder" => self.reorder = share()?,
                "rate" => self.rate = number(word, value)?,
                "open" if matches!(value, "yes" | "no") => self.open = value == "yes",
                _ => return Err(format!("{word} is no condition of a link")),
            }
        }
        Ok(self)
    }
}

fn allowed_share(word: &str, share: u16) -> Result<u16, String> {
    if u64::from(share) <= WHOLE { Ok(share) } else { Err(format!("{word} is more than {WHOLE} per mille")) }
}

/// What became of the packets of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came in.
    pub received: u64,
    /// Packets that went out, second copies included.
    pub forwarded: u64,
    /// Bytes of those.
    pub forwarded_bytes: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets that came twice.
    pub duplicated: u64,
    /// Packets that were held back.
    pub held: u64,
    /// Packets, or second copies, for which there was no room.
    pub overflowed: u64,
    /// Packets that met a closed link, or were under way when it was closed.
    pub cut: u64,
    /// Packets from somebody else than the node at this end.
    pub stray: u64,
    /// Packets that the machine refused to send.
    pub failed: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            forwarded: self.forwarded + other.forwarded,
            forwarded_bytes: self.forwarded_bytes + other.forwarded_bytes,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            held: self.held + other.held,
            overflowed: self.overflowed + other.overflowed,
            cut: self.cut + other.cut,
            stray: self.stray + other.stray,
            failed: self.failed + other.failed,
        }
    }
}

/// A packet under way; the order of fields is the order in which packets leave.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Instant,
    number: u64,
    packet: Vec<u8>,
}

/// One direction between two nodes.
#[derive(Debug)]
pub struct Link {
    conditions: Conditions,
    rng: Rng,
    /// What became of its packets.
    pub counts: Counts,
    waiting: BinaryHeap<Reverse<Waiting>>,
    waiting_bytes: usize,
    numbered: u64,
    /// When the last packet in order leaves.
    last_due: Option<Instant>,
    /// Until when the rate is used up.
    busy_until: Option<Instant>,
}

impl Link {
    /// The link between two nodes of a relay with this seed.
    #[must_use]
    pub fn new(seed: u64, from: usize, to: usize, conditions: Conditions) -> Self {
        // Rng turns neighbouring seeds into unlike numbers only after a few draws.
        let mut rng = Rng::new(seed ^ (((from as u64) << 32) | ((to as u64) << 16)));
        for _ in 0..8 {
            rng.next();
        }
        Self {
            conditions,
            rng,
            counts: Counts::default(),
            waiting: BinaryHeap::new(),
            waiting_bytes: 0,
            numbered: 0,
            last_due: None,
            busy_until: None,
        }
    }

    /// What it does to packets.
    #[must_use]
    pub const fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// Changes what it does to packets that come from here on; closing it loses those under way.
    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
        if !conditions.open {
            self.counts.cut += self.waiting.len() as u64;
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
    }

    /// Takes a packet from the node at this end.
    pub fn push(&mut self, now: Instant, packet: &[u8]) {
        self.counts.received += 1;
        let [lost, twice, held] = [self.conditions.loss, self.conditions.duplicate, self.conditions.reorder]
            .map(|share| self.rng.below(WHOLE) < u64::from(share));
        let jitters = [self.jitter(), self.jitter()];
        if !self.conditions.open {
            self.counts.cut += 1;
            return;
        }
        if lost {
            self.counts.lost += 1;
            return;
        }
        let sent = self.through_the_rate(now, packet.len());
        let due = sent + self.conditions.delay;
        if held {
            self.counts.held += 1;
            self.wait(due + jitters[0] + self.conditions.hold, packet);
        } else {
            // A packet with less jitter does not overtake.
            let due = self.last_due.map_or(due + jitters[0], |last| last.max(due + jitters[0]));
            self.last_due = Some(due);
            self.wait(due, packet);
        }
        if twice {
            self.counts.duplicated += 1;
            self.wait(due + jitters[1], packet);
        }
    }

    fn jitter(&mut self) -> Duration {
        let most = u64::try_from(self.conditions.jitter.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.rng.below(most + 1))
    }

    /// When the last byte of a packet has passed at the link's rate.
    fn through_the_rate(&mut self, now: Instant, bytes: usize) -> Instant {
        if self.conditions.rate == 0 {
            return now;
        }
        let takes = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.conditions.rate);
        let until = self.busy_until.map_or(now, |busy| busy.max(now)) + takes;
        self.busy_until = Some(until);
        until
    }

    fn wait(&mut self, due: Instant, packet: &[u8]) {
        if self.waiting.len() >= QUEUE_PACKETS_MAX || self.waiting_bytes + packet.len() > QUEUE_BYTES_MAX {
            self.counts.overflowed += 1;
            return;
        }
        self.waiting_bytes += packet.len();
        self.numbered += 1;
        self.waiting.push(Reverse(Waiting { due, number: self.numbered, packet: packet.to_vec() }));
    }

    /// The next packet that has to leave by now.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next()? > now {
            return None;
        }
        let Reverse(Waiting { packet, .. }) = self.waiting.pop()?;
        self.waiting_bytes -= packet.len();
        self.counts.forwarded += 1;
        self.counts.forwarded_bytes += packet.len() as u64;
        Some(packet)
    }

    /// When the next packet leaves.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Pushes numbered packets, one a millisecond, and gives when each left, in order of leaving.
    fn run(link: &mut Link, packets: u32) -> Vec<(u32, Duration)> {
        let begun = Instant::now();
        let mut left = Vec::new();
        for tick in 0..packets + 10_000 {
            let now = begun + tick * MS;
            while let Some(packet) = link.pop(now) {
                left.push((u32::from_be_bytes(packet.try_into().expect("four bytes")), now - begun));
            }
            if tick < packets {
                link.push(now, &tick.to_be_bytes());
            } else if link.next().is_none() {
                break;
            }
        }
        left
    }

    fn link(words: &str) -> Link {
        Link::new(7, 0, 1, Conditions::default().with(words).expect("words"))
    }

    #[test]
    fn a_constant_delay_keeps_order_and_loses_nothing() {
        let left = run(&mut link("delay=30"), 500);
        assert_eq!(left.len(), 500);
        for (number, (packet, at)) in (0..).zip(left) {
            assert_eq!((packet, at), (number, (number + 30) * MS));
        }
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_changes_no_order() {
        let left = run(&mut link("delay=30 jitter=9"), 2_000);
        let packets: Vec<u32> = left.iter().map(|(packet, _)| *packet).collect();
        assert!(packets.is_sorted() && packets.len() == 2_000);
        let late: Vec<Duration> = left.iter().map(|(packet, at)| *at - *packet * MS).collect();
        let (least, most) = (late.iter().min().expect("some"), late.iter().max().expect("some"));
        assert!(*least >= 30 * MS && *most <= 40 * MS && *most - *least >= 7 * MS, "{least:?} to {most:?}");
    }

    #[test]
    fn shares_are_kept_and_counted() {
        let mut link = link("loss=100 duplicate=50 reorder=200 hold=15");
        let left = run(&mut link, 20_000);
        let Counts { received, forwarded, lost, duplicated, held, .. } = link.counts;
        assert_eq!((received, forwarded), (20_000, left.len() as u64));
        assert_eq!(forwarded, received - lost + duplicated);
        assert!((1_800..2_200).contains(&lost), "{lost} lost");
        assert!((780..1_020).contains(&duplicated), "{duplicated} twice");
        assert!((3_400..3_800).contains(&held), "{held} held back");
        let overtaken = left.windows(2).filter(|pair| pair[1].0 < pair[0].0).count();
        assert!(overtaken > 2_000, "{overtaken} came after a later one");
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_link_does_not() {
        let words = Conditions::default().with("loss=200 duplicate=100 jitter=8 reorder=50").expect("words");
        let of = |seed, from, to| run(&mut Link::new(seed, from, to, words), 300);
        assert_eq!(of(1, 0, 1), of(1, 0, 1));
        assert_ne!(of(1, 0, 1), of(1, 1, 0));
        assert_ne!(of(1, 0, 1), of(2, 0, 1));
        // What happens to a packet does not hang on how conditions were before.
        let mut changed = Link::new(1, 0, 1, Conditions::default());
        for _ in 0..100 {
            changed.push(Instant::now(), &[0]);
        }
        changed.set(words);
        let mut whole = Link::new(1, 0, 1, Conditions { jitter: Duration::ZERO, ..words });
        let before = (0..100).map(|_| whole.push(Instant::now(), &[0])).count();
        assert_eq!(before, 100);
        assert_eq!(whole.rng.next(), changed.rng.next());
    }

    #[test]
    fn a_closed_link_passes_nothing_and_loses_what_was_under_way() {
        let mut link = link("delay=50");
        let now = Instant::now();
        for _ in 0..3 {
            link.push(now, &[1]);
        }
        link.set(Conditions { open: false, ..link.conditions() });
        link.push(now, &[1]);
        assert_eq!(link.pop(now + 100 * MS), None);
        assert_eq!((link.counts.cut, link.counts.forwarded), (4, 0));
        link.set(Conditions::default());
        link.push(now, &[2]);
        assert_eq!(link.pop(now + 100 * MS), Some(vec![2]));
    }

    #[test]
    fn a_rate_stretches_a_burst_and_a_full_queue_drops() {
        let mut slow = link("rate=100000");
        let now = Instant::now();
        for _ in 0..50 {
            slow.push(now, &[0; 1_000]);
        }
        let passed = (0..).take_while(|_| slow.pop(now + 200 * MS).is_some()).count();
        assert_eq!(passed, 20, "1,000 bytes take 10 ms");
        for _ in 0..=QUEUE_PACKETS_MAX {
            slow.push(now, &[0]);
        }
        assert_eq!(slow.counts.overflowed, 31);
        let mut wide = link("delay=50");
        for _ in 0..QUEUE_BYTES_MAX / 65_000 + 2 {
            wide.push(now, &[0; 65_000]);
        }
        assert_eq!(wide.counts.overflowed, 2);
        assert!(wide.waiting_bytes <= QUEUE_BYTES_MAX);
    }

    #[test]
    fn words_that_say_nothing_are_refused() {
        for words in ["delay", "delay=x", "loss=1001", "loss=-1", "colour=red", "open=maybe", "rate=1 rate"] {
            assert!(Conditions::default().with(words).is_err(), "{words}");
        }
        let said = Conditions::default().with("delay=5 rate=7 open=no").expect("words");
        assert_eq!((said.delay, said.rate, said.open), (5 * MS, 7, false));
    }
}
