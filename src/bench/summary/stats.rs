//! The statistics that the summary leans on, each against known answers. Knows nothing of runs.

use fastrand::Rng;

/// The median; of an even number, the mean of the two in the middle. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// How much values vary from one to the next, scaled so that it is the standard deviation of what is
/// normally distributed and independent. A trend isn't noise. `None` of fewer than two values.
pub fn noise(values: &[f64]) -> Option<f64> {
    let steps: Vec<f64> = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    Some(1.4826 / std::f64::consts::SQRT_2 * median(&steps)?)
}

/// The value below which this part of the values lies, by interpolation between neighbours.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, rest) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * rest
}

/// The chance that values as large as `first` against `second` come from the same distribution:
/// Mann and Whitney's rank test, one-sided. Exact for small samples without ties, by the normal
/// approximation with correction for ties and continuity for others.
pub fn chance_of_greater(first: &[f64], second: &[f64]) -> f64 {
    let (n, m) = (first.len(), second.len());
    if n == 0 || m == 0 {
        return 1.0;
    }
    let pairs = |test: fn(&f64, &f64) -> bool| {
        first.iter().flat_map(|a| second.iter().filter(move |b| test(a, b))).count()
    };
    let (greater, equal) = (pairs(|a, b| a > b), pairs(|a, b| a.total_cmp(b).is_eq()));
    if equal == 0 && n.min(m) <= EXACT_MAX && n * m <= EXACT_PRODUCT_MAX {
        return exact_tail(n, m, greater);
    }
    let u = greater as f64 + equal as f64 / 2.0;
    let (nf, mf) = (n as f64, m as f64);
    let all = nf + mf;
    let ties = {
        let mut sorted: Vec<f64> = first.iter().chain(second).copied().collect();
        sorted.sort_by(f64::total_cmp);
        let groups = sorted.chunk_by(|a, b| a.total_cmp(b).is_eq()).map(|group| group.len() as f64);
        groups.map(|size| size.powi(3) - size).sum::<f64>()
    };
    let variance = nf * mf / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0; // all are equal
    }
    normal_tail((u - nf * mf / 2.0 - 0.5) / variance.sqrt())
}

const EXACT_MAX: usize = 8;
const EXACT_PRODUCT_MAX: usize = 5_000;

/// The chance of `least` or more pairs in which the first is greater, of all orders of `n` and `m`
/// values: counted by the recurrence of Mann and Whitney (1947).
fn exact_tail(n: usize, m: usize, least: usize) -> f64 {
    // The chance of u, over the numbers of the first kind up to n, for a growing number of others.
    let most = n * m;
    let mut chances = vec![vec![0.0; most + 1]; n + 1];
    chances.iter_mut().for_each(|of_u| of_u[0] = 1.0); // no others
    for others in 1..=m {
        for own in 1..=n {
            let (own_part, all) = (own as f64, (own + others) as f64);
            // The greatest of all is one of the first kind, and greater than all others; or not.
            let mut next = vec![0.0; most + 1];
            for u in 0..=own * others {
                let is_own = if u >= others { chances[own - 1][u - others] } else { 0.0 };
                next[u] = own_part / all * is_own + (all - own_part) / all * chances[own][u];
            }
            chances[own] = next;
        }
    }
    chances[n][least..].iter().sum()
}

/// The chance that a standard normal value is greater.
pub fn normal_tail(z: f64) -> f64 {
    // Abramowitz and Stegun 7.1.26, which is good to 1.5e-7.
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = series * (-x * x).exp() / 2.0;
    if z >= 0.0 { tail } else { 1.0 - tail }
}

/// How evenly a thing is shared: Jain's index, 1 for equal shares, 1/n when one has it all. `None`
/// of nothing.
pub fn fairness(shares: &[f64]) -> Option<f64> {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(s, q), it| (s + it, q + it * it));
    (squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

/// Indices for one resample of `count` values in time order: blocks of neighbours, which keep
/// what each has of the one before (circular block bootstrap, blocks of the cube root of the count).
pub fn resample(count: usize, random: &mut Rng) -> Vec<usize> {
    let block = ((count as f64).cbrt().round() as usize).max(1);
    let mut indices = Vec::with_capacity(count + block);
    while indices.len() < count {
        let begin = random.usize(..count);
        indices.extend((begin..begin + block).map(|at| at % count));
    }
    indices.truncate(count);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64, error: f64) {
        assert!((value - expected).abs() <= error, "{value} instead of {expected}");
    }

    #[test]
    fn medians_and_quantiles_are_right() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        near(noise(&[1.0, 3.0, 5.0, 7.0, 100.0]).unwrap(), 2.0 * 1.048_36, 1e-4);
        assert_eq!(noise(&[1.0]), None);
        near(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.95), 4.8, 1e-9);
        near(quantile(&[7.0], 0.3), 7.0, 0.0);
    }

    /// From R: wilcox.test(first, second, alternative = "greater").
    #[test]
    fn the_rank_test_agrees_with_known_answers() {
        // All of three above all of four: one order of 35.
        near(chance_of_greater(&[8.0, 9.0, 10.0], &[1.0, 2.0, 3.0, 4.0]), 1.0 / 35.0, 1e-12);
        near(chance_of_greater(&[1.0, 2.0, 3.0], &[8.0, 9.0, 10.0, 11.0]), 1.0, 1e-12);
        // R's own example of depression scale factors: W = 35 of 1..9 pairs differs by pairing; here
        // the permeability example of its manual page: W = 35, p = 0.1272.
        let x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let y = [1.15, 0.88, 0.90, 0.74, 1.21];
        near(chance_of_greater(&x, &y), 0.1272, 5e-5);
        // Large and without difference.
        let even: Vec<f64> = (0..200).map(f64::from).map(|it| it * 2.0).collect();
        let odd: Vec<f64> = even.iter().map(|it| it + 1.0).collect();
        near(chance_of_greater(&even, &odd), 0.5, 0.04);
        near(chance_of_greater(&[1.0; 50], &[1.0; 50]), 1.0, 0.0);
        near(chance_of_greater(&[], &[1.0]), 1.0, 0.0);
    }

    /// The exact tail and the approximation are two ways to the same number.
    #[test]
    fn exact_and_approximate_ranks_agree() {
        for least in [120, 150, 180, 200] {
            let (n, m) = (8.0_f64, 30.0_f64);
            let deviation = (n * m * (n + m + 1.0) / 12.0).sqrt();
            let approximate = normal_tail((f64::from(least) - n * m / 2.0 - 0.5) / deviation);
            near(exact_tail(8, 30, least as usize), approximate, 0.004);
        }
        near(exact_tail(5, 7, 0), 1.0, 1e-12);
    }

    #[test]
    fn the_normal_tail_is_that_of_the_tables() {
        for (z, tail) in
            [(0.0, 0.5), (1.0, 0.158_655), (1.96, 0.025), (-1.96, 0.975), (3.0, 0.001_35)]
        {
            near(normal_tail(z), tail, 1e-5);
        }
    }

    #[test]
    fn fairness_goes_from_one_to_one_part() {
        near(fairness(&[5.0; 10]).unwrap(), 1.0, 1e-12);
        near(fairness(&[1.0, 0.0, 0.0, 0.0]).unwrap(), 0.25, 1e-12);
        near(fairness(&[1.0, 2.0, 3.0]).unwrap(), 36.0 / 42.0, 1e-12);
        assert_eq!(fairness(&[0.0, 0.0]), None);
    }

    #[test]
    fn resamples_are_as_large_and_even() {
        let mut random = Rng::with_seed(1);
        let mut hits = vec![0_u32; 100];
        for _ in 0..2_000 {
            let indices = resample(100, &mut random);
            assert_eq!(indices.len(), 100);
            indices.into_iter().for_each(|index| hits[index] += 1);
        }
        assert!(hits.iter().all(|count| (1_700..2_300).contains(count)), "{hits:?}");
        assert_eq!(resample(1, &mut random), [0]);
    }
}
