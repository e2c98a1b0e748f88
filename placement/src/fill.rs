//! How full a disk is, without floats.

use std::cmp::Reverse;
use std::fmt;

use proto::DiskId;
use serde::Serialize;

/// How full one disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DiskFill {
    /// The disk.
    pub disk: DiskId,
    /// Bytes on it, in thousandths of its capacity.
    pub permille: u32,
}

/// How unevenly the disks that take slots are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imbalance {
    /// All bytes by all capacity, in thousandths.
    pub mean_permille: u32,
    /// The fullest disk; of several, that with the lowest id.
    pub fullest: Option<DiskFill>,
    /// The emptiest disk; of several, that with the lowest id.
    pub emptiest: Option<DiskFill>,
    /// Disks that are farther from the mean than the goal allows.
    pub outside: usize,
}

impl Imbalance {
    /// From the emptiest to the fullest, in thousandths.
    pub fn spread_permille(&self) -> u32 {
        let permille = |fill: Option<DiskFill>| fill.map_or(0, |fill| fill.permille);
        permille(self.fullest).saturating_sub(permille(self.emptiest))
    }
}

/// `mean 52.0 %, emptiest disk 7 at 0.0 %, fullest disk 3 at 57.8 %, 12 disks outside the goal`.
impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mean {}", percent(self.mean_permille))?;
        for (word, fill) in [("emptiest", self.emptiest), ("fullest", self.fullest)] {
            if let Some(DiskFill { disk, permille }) = fill {
                write!(f, ", {word} disk {disk} at {}", percent(permille))?;
            }
        }
        let plural = if self.outside == 1 { "" } else { "s" };
        write!(f, ", {} disk{plural} outside the goal", self.outside)
    }
}

/// `52.5 %`.
pub(crate) fn percent(permille: u32) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

const ONE: u64 = 1 << 32;

/// A load by its capacity, with 32 binary places: a disk of 16 TB is told apart to 4 KB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fill(u64);

impl Fill {
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// Rounded down; what is beyond all measure is the greatest there is.
    pub(crate) fn of(load: u128, capacity: u128) -> Self {
        Self(u64::try_from(load.saturating_mul(ONE.into()) / capacity.max(1)).unwrap_or(u64::MAX))
    }

    pub(crate) fn from_permille(permille: u32) -> Self {
        Self(u64::from(permille) * ONE / 1000)
    }

    /// Rounded to the nearest.
    pub(crate) fn permille(self) -> u32 {
        let permille = (u128::from(self.0) * 1000 + u128::from(ONE / 2)) / u128::from(ONE);
        u32::try_from(permille).unwrap_or(u32::MAX)
    }

    /// The load that fills `capacity` so; rounded down.
    pub(crate) fn load(self, capacity: u64) -> u64 {
        let load = u128::from(self.0) * u128::from(capacity) / u128::from(ONE);
        u64::try_from(load).unwrap_or(u64::MAX)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub(crate) fn divided(self, by: u64) -> Self {
        Self(self.0 / by.max(1))
    }

    /// Half way from `low` to `high`; `None` when nothing lies between.
    pub(crate) fn between(low: Self, high: Self) -> Option<Self> {
        (high.0.saturating_sub(low.0) > 1).then(|| Self(low.0 + (high.0 - low.0) / 2))
    }

    /// True when `self` is at most `n / d` of `other`.
    pub(crate) fn is_within(self, n: u64, d: u64, other: Self) -> bool {
        u128::from(self.0) * u128::from(d) <= u128::from(other.0) * u128::from(n)
    }

    /// Farther from `mean` than `points`, above it or below.
    pub(crate) fn is_beyond(self, mean: Self, points: Self) -> bool {
        self > mean.plus(points) || self.plus(points) < mean
    }
}

/// The imbalance of `fills`, with a goal of `points` from `mean`.
pub(crate) fn imbalance(fills: impl Iterator<Item = (DiskId, Fill)>, mean: Fill, points: Fill) -> Imbalance {
    let mut imbalance = Imbalance { mean_permille: mean.permille(), ..Imbalance::default() };
    let (mut fullest, mut emptiest) = (None, None);
    for (disk, fill) in fills {
        if fill.is_beyond(mean, points) {
            imbalance.outside += 1;
        }
        fullest = fullest.max(Some((fill, Reverse(disk))));
        emptiest = Some((fill, disk)).min(emptiest.or(Some((fill, disk))));
    }
    imbalance.fullest = fullest.map(|(fill, Reverse(disk))| DiskFill { disk, permille: fill.permille() });
    imbalance.emptiest = emptiest.map(|(fill, disk)| DiskFill { disk, permille: fill.permille() });
    imbalance
}
