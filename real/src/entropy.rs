//! The entropy door: a stream seeded by the operating system, one for each life of a node.

use worldline_system::doors::entropy::Entropy;

/// A stream that nobody can foretell.
///
/// # Errors
/// What the kernel says: it has no entropy to give.
pub fn fresh() -> std::io::Result<Entropy> {
    let mut seed = [0; 32];
    fill(&mut seed)?;
    Ok(Entropy::from_seed(seed))
}

#[cfg(not(madsim))]
fn fill(seed: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < seed.len() {
        filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// A run is repeated from its seed.
#[cfg(madsim)]
fn fill(seed: &mut [u8]) -> std::io::Result<()> {
    madsim::rand::RngCore::fill_bytes(&mut madsim::rand::thread_rng(), seed);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_lives_never_draw_alike() {
        let draw = || super::fresh().expect("the kernel has entropy").bits();
        assert_ne!(draw(), draw());
    }
}
