//! Randomness for tests that its seed makes again.
//!
//! `SEED=n` replays one seed. `SEEDS=n` sets how many seeds a random test runs. `SEED_BASE=n` is what
//! these, and the seeds of directed tests, are derived from; random tests make one up where it is not
//! given. Each seed is printed before it is used.

/// Splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// What `seed` makes.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// For one run of a random test.
    pub(crate) fn fresh() -> Self {
        Self::new(seeds(1)[0])
    }

    /// For a test that does the same each time, unless `SEED` or `SEED_BASE` say otherwise.
    pub(crate) fn directed() -> Self {
        let seed = given("SEED").or_else(|| given("SEED_BASE").map(|base| derived(base, 0)));
        Self::new(announced(seed.unwrap_or_default()))
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From zero until before `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `all`; `None` where there is none.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let count = u64::try_from(all.len()).unwrap();
        (count > 0).then(|| all[usize::try_from(self.below(count)).unwrap()])
    }
}

/// The seeds of a random test that runs `count` of them unless told otherwise.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    if let Some(seed) = given("SEED") {
        return vec![announced(seed)];
    }
    let base = given("SEED_BASE").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let count = given("SEEDS").unwrap_or(count);
    (0..count).map(|number| announced(derived(base, number))).collect()
}

fn derived(base: u64, number: u64) -> u64 {
    Rng::new(base.wrapping_add(number)).next()
}

fn announced(seed: u64) -> u64 {
    println!("SEED={seed}");
    seed
}

fn given(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}
