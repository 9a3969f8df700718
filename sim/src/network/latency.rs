//! How long a packet takes and how often it is lost, by where its two ends stand. Integers only.
//!
//! One-way delay is base plus jitter: the base is half the round trip between two cities plus the last mile of each end; the
//! jitter is a draw from an exponential law, kept as a table of its quantiles. Round trips between cities are medians
//! between the AWS regions of these cities as CloudPing publishes them, rounded.

/// A city with a region of the world, or with players.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum City {
    /// ap-southeast-1.
    #[default]
    Singapore = 0,
    /// ap-northeast-1.
    Tokyo = 1,
    /// ap-southeast-2.
    Sydney = 2,
    /// eu-central-1.
    Frankfurt = 3,
    /// us-east-1.
    Virginia = 4,
    /// us-west-2.
    Oregon = 5,
}

impl City {
    /// Every city, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Singapore, Self::Tokyo, Self::Sydney, Self::Frankfurt, Self::Virginia, Self::Oregon];

    /// Its name as a scenario writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Singapore => "singapore",
            Self::Tokyo => "tokyo",
            Self::Sydney => "sydney",
            Self::Frankfurt => "frankfurt",
            Self::Virginia => "virginia",
            Self::Oregon => "oregon",
        }
    }
}

/// How a node hangs on the network of its city.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// In the city's data centre, in this zone of it.
    Zone(u8),
    /// At a player's home or in a pocket.
    Player(LastMile),
}

/// A player's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LastMile {
    /// 2 ms, little jitter.
    Fibre = 0,
    /// 6 ms.
    Cable = 1,
    /// 20 ms, much jitter, half a percent lost.
    Mobile = 2,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// In or near which city.
    pub city: City,
    /// Connected how.
    pub access: Access,
}

impl Default for Place {
    fn default() -> Self {
        Self { city: City::default(), access: Access::Zone(0) }
    }
}

impl Place {
    /// In a city's data centre.
    #[must_use]
    pub const fn zone(city: City, zone: u8) -> Self {
        Self { city, access: Access::Zone(zone) }
    }

    /// A player in or near a city.
    #[must_use]
    pub const fn player(city: City, line: LastMile) -> Self {
        Self { city, access: Access::Player(line) }
    }
}

/// Round trips between cities in milliseconds, in the order of [`City::ALL`]. Zero stands for the LAN.
const ROUND_TRIP_MS: [[u32; 6]; 6] = [
    [0, 70, 92, 160, 220, 164],
    [70, 0, 104, 224, 150, 98],
    [92, 104, 0, 250, 198, 140],
    [160, 224, 250, 0, 90, 144],
    [220, 150, 198, 90, 0, 64],
    [164, 98, 140, 144, 64, 0],
];

/// One way within a zone, between zones of a city, and to oneself, in µs.
const ZONE_US: u32 = 120;
const ZONES_US: u32 = 450;
const SELF_US: u32 = 15;
/// One way over a player's line, in µs, in the order of [`LastMile`].
const LAST_MILE_US: [u32; 3] = [2_000, 6_000, 20_000];
/// The mean of a line's jitter, in µs.
const LAST_MILE_JITTER_US: [u16; 3] = [300, 1_500, 6_000];

/// What links of one class lose and double, in 2^-20.
#[derive(Clone, Copy)]
pub(crate) struct Rates {
    pub loss: u32,
    pub duplicate: u32,
}

const fn per_million(loss: u64, duplicate: u64) -> Rates {
    Rates { loss: ((loss << 20) / 1_000_000) as u32, duplicate: ((duplicate << 20) / 1_000_000) as u32 }
}

/// By [`Link::class`]: LAN, WAN, and the three last miles.
pub(crate) const RATES: [Rates; 5] =
    [per_million(0, 0), per_million(50, 10), per_million(100, 10), per_million(1_000, 100), per_million(5_000, 500)];

/// Quantiles 0/64 to 64/64 of the exponential law with mean 1, in 2^-10; the last one is cut at 7.
const JITTER: [u32; 65] = [
    0, 16, 33, 49, 66, 83, 101, 119, 137, 155, 174, 193, 213, 233, 253, 273, 295, 316, 338, 361, 384, 407, 431, 456,
    481, 507, 534, 561, 589, 618, 648, 678, 710, 742, 776, 811, 847, 884, 922, 963, 1_004, 1_048, 1_093, 1_141, 1_191,
    1_244, 1_299, 1_357, 1_420, 1_486, 1_556, 1_632, 1_714, 1_803, 1_901, 2_009, 2_129, 2_266, 2_424, 2_611, 2_839,
    3_134, 3_549, 4_259, 7_168,
];

/// The delay of one direction between two nodes in nanoseconds: its least, and how much more it is on average.
#[must_use]
pub fn one_way_ns(from: Place, to: Place) -> (u64, u64) {
    let link = Link::between(from, to);
    (u64::from(link.base_us) * 1_000, u64::from(link.jitter_us) * 1_000)
}

/// The law of one direction between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub base_us: u32,
    pub jitter_us: u16,
    /// Index into [`RATES`].
    pub class: u8,
}

impl Link {
    pub(crate) fn between(from: Place, to: Place) -> Self {
        let round_trip_ms = ROUND_TRIP_MS[from.city as usize][to.city as usize];
        let mut link = match (round_trip_ms, from.access, to.access) {
            (0, Access::Zone(a), Access::Zone(b)) if a == b => Self { base_us: ZONE_US, jitter_us: 25, class: 0 },
            (0, _, _) => Self { base_us: ZONES_US, jitter_us: 60, class: 0 },
            (ms, _, _) => Self { base_us: ms * 500, jitter_us: 100 + ms as u16 * 4, class: 1 },
        };
        for access in [from.access, to.access] {
            if let Access::Player(line) = access {
                link.base_us += LAST_MILE_US[line as usize];
                link.jitter_us += LAST_MILE_JITTER_US[line as usize];
                link.class = link.class.max(2 + line as u8);
            }
        }
        link
    }

    /// The link of a node to itself.
    pub(crate) const fn loopback() -> Self {
        Self { base_us: SELF_US, jitter_us: 3, class: 0 }
    }

    /// The delay, in ns, that these 24 bits draw.
    #[inline]
    pub(crate) fn delay_ns(self, bits: u32) -> u64 {
        let (step, within) = ((bits >> 18) as usize & 63, bits & 0x3_FFFF);
        let (low, high) = (JITTER[step], JITTER[step + 1]);
        let quantile = u64::from(low) + ((u64::from(high - low) * u64::from(within)) >> 18);
        u64::from(self.base_us) * 1_000 + ((u64::from(self.jitter_us) * 1_000 * quantile) >> 10)
    }

    /// A round trip with its usual jitter, in ns: what a sender has measured.
    pub(crate) fn round_trip_ns(self) -> u64 {
        2 * (u64::from(self.base_us) + u64::from(self.jitter_us)) * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_the_same_both_ways_and_no_shortcut_beats_light() {
        for (i, row) in ROUND_TRIP_MS.iter().enumerate() {
            assert_eq!(row[i], 0);
            for (j, &ms) in row.iter().enumerate() {
                assert_eq!(ms, ROUND_TRIP_MS[j][i]);
            }
        }
        assert!(ROUND_TRIP_MS[City::Tokyo as usize][City::Sydney as usize] >= 100, "light does not bargain");
    }

    #[test]
    fn delays_are_never_below_the_base_and_their_mean_is_base_plus_jitter() {
        let link = Link::between(Place::player(City::Singapore, LastMile::Cable), Place::zone(City::Frankfurt, 1));
        assert_eq!((link.base_us, link.class), (86_000, 3));
        let draws = 1 << 14;
        let mut sum = 0;
        for n in 0..draws {
            let delay = link.delay_ns(n << 10);
            assert!(delay >= 86_000_000);
            sum += delay;
        }
        let mean = sum / u64::from(draws);
        let expected = 86_000_000 + u64::from(link.jitter_us) * 1_000;
        assert!(mean.abs_diff(expected) < expected / 50, "mean {mean}, expected {expected}");
    }
}
