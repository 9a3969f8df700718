//! What changed between two series of the same seeds, and whether it is more than noise.
//!
//! Seeds are paired: the same seed is the same world, players and fault moments in both. The test is the exact two-sided sign
//! test of the pairs (Conover, *Practical Nonparametric Statistics*, 3rd ed. 1999, §3.4): it asks only in how many seeds the
//! one was larger, so neither the shape of the distribution nor a few extreme seeds can fool it. The interval is that of the
//! median difference by order statistics (ibid. §3.2), the same test turned round. Of many comparisons some fall out at one in
//! twenty by chance alone: p-values are corrected after Holm (*Scand. J. Statist.* 6, 1979).
//!
//! Deliberately absent: randomness. The same two series always give the same verdict.

/// What a p-value must be below, after correction.
pub const LEVEL: f64 = 0.05;

/// What became of one figure, seed by seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    /// Seeds in which it is there on both sides.
    pub seeds: usize,
    /// In how many of them the second is larger.
    pub more: usize,
    /// In how many it is smaller.
    pub less: usize,
    /// The median difference.
    pub median: i64,
    /// Where the median difference lies, with at least 95 of 100; `None` of fewer than six seeds.
    pub interval: Option<(i64, i64)>,
    /// How probable so uneven a split is where nothing changed.
    pub p: f64,
}

impl Pairs {
    /// Of these pairs. `None` of none.
    #[must_use]
    pub fn of(pairs: &[(u64, u64)]) -> Option<Self> {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut differences: Vec<i64> = pairs.iter().map(|&(a, b)| signed(b) - signed(a)).collect();
        differences.sort_unstable();
        let (more, less) =
            (differences.iter().filter(|d| **d > 0).count(), differences.iter().filter(|d| **d < 0).count());
        let seeds = differences.len();
        let median = *differences.get(seeds.checked_sub(1)? / 2)?;
        // The largest rank below which the median lies with at most 2.5 of 100.
        let rank =
            (1..=seeds / 2).zip(tails(seeds)).take_while(|&(_, tail)| tail <= 0.025).last().map(|(rank, _)| rank);
        let interval = rank.map(|rank| (differences[rank - 1], differences[seeds - rank]));
        let p = (2.0 * tail(more + less, more.min(less))).min(1.0);
        Some(Self { seeds, more, less, median, interval, p })
    }

    /// Whether nothing differs at all.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.more == 0 && self.less == 0
    }
}

/// The probabilities that of `n` fair coins at most 0, 1, 2 .. show heads.
fn tails(n: usize) -> impl Iterator<Item = f64> {
    // In logarithms: 2^-n is no number a `f64` holds from 1,075 coins on.
    let mut log = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    (0..=n).map(move |k| {
        if k > 0 {
            log += ((n + 1 - k) as f64 / k as f64).ln();
        }
        sum += log.exp();
        f64::min(sum, 1.0)
    })
}

/// The probability that of `n` fair coins at most `k` show heads.
fn tail(n: usize, k: usize) -> f64 {
    tails(n).nth(k).unwrap_or(1.0)
}

/// Which of these p-values are below [`LEVEL`] after Holm's correction.
#[must_use]
pub fn beyond_noise(p: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut beyond = vec![false; p.len()];
    for (at, &index) in order.iter().enumerate() {
        if p[index] * (p.len() - at) as f64 > LEVEL {
            break;
        }
        beyond[index] = true;
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_of_every_seed_is_seen_and_noise_is_not() {
        let shifted: Vec<(u64, u64)> = (0..20).map(|n| (100 + n, 60 + n)).collect();
        let pairs = Pairs::of(&shifted).expect("some");
        assert_eq!((pairs.less, pairs.median, pairs.interval), (20, -40, Some((-40, -40))));
        assert!((pairs.p - 2.0 / f64::from(1 << 20)).abs() < 1e-12, "{}", pairs.p);
        let noise: Vec<(u64, u64)> = (0..20).map(|n| (100, if n % 2 == 0 { 99 } else { 101 })).collect();
        let pairs = Pairs::of(&noise).expect("some");
        assert!((pairs.p - 1.0).abs() < 1e-9 && pairs.interval == Some((-1, 1)), "{pairs:?}");
    }

    #[test]
    fn few_seeds_say_little_and_none_say_nothing() {
        let five = Pairs::of(&[(9, 1); 5]).expect("some");
        assert!(five.p > LEVEL && five.interval.is_none(), "five of five happen once in sixteen");
        assert!(Pairs::of(&[(9, 1); 6]).expect("some").p < LEVEL);
        assert!(Pairs::of(&[]).is_none());
        let many = Pairs::of(&vec![(9, 1); 100_000]).expect("some");
        assert_eq!(many.p, 0.0, "no number is too large for it");
        assert!(Pairs::of(&[(7, 7); 9]).expect("some").is_same());
    }

    #[test]
    fn of_many_comparisons_each_must_be_clearer() {
        assert_eq!(beyond_noise(&[0.04]), [true]);
        assert_eq!(beyond_noise(&[0.04, 0.5, 0.9]), [false, false, false]);
        assert_eq!(beyond_noise(&[0.024, 0.9, 0.001]), [true, false, true]);
    }
}
