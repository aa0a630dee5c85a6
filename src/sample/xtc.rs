//! XTC: now and then, excludes the top choices.

use super::Params;
use super::candidates::{Candidates, more_than};
use super::rng::Rng;

/// With probability `xtc_probability`: where two or more tokens have p >= xtc_threshold, removes all of those but
/// the least probable. From text-generation-webui, pull request 6335 (p-e-w, 2024); llama.cpp pull request 9742.
pub(super) fn xtc(params: &Params, candidates: &mut Candidates, rng: &mut Rng) {
    // Above one half no two tokens can reach the threshold.
    if params.xtc_probability <= 0.0 || params.xtc_threshold > 0.5 || candidates.len() < 2 {
        return;
    }
    if rng.uniform() > f64::from(params.xtc_probability) || candidates.softmax().is_none() {
        return;
    }
    let (mut top, mut sorted) = (0, 0);
    for i in 0..candidates.len() {
        if i >= sorted {
            sorted = more_than(sorted);
            candidates.sort_to(sorted);
        }
        let p = candidates.as_slice()[i].p;
        // A threshold of zero must not leave the last of the tokens that cannot be chosen at all.
        if p < params.xtc_threshold || p == 0.0 {
            break;
        }
        top = i;
    }
    if candidates.len() - top >= params.min_keep {
        candidates.drop_first(top);
    }
}

#[cfg(test)]
mod tests {
    use super::super::candidates::test_support::{from_probs, ids};
    use super::*;

    fn left(params: &Params, given: &[f32]) -> Vec<u32> {
        let mut c = from_probs(given);
        xtc(params, &mut c, &mut Rng::new(0, 1));
        ids(&c)
    }

    fn always(xtc_threshold: f32) -> Params {
        Params { xtc_probability: 1.0, xtc_threshold, ..Params::default() }
    }

    #[test]
    fn all_top_choices_but_the_last_go() {
        let given = [0.4, 0.3, 0.2, 0.1];
        assert_eq!(left(&always(0.09), &given), [3]);
        assert_eq!(left(&always(0.19), &given), [2, 3]);
        assert_eq!(left(&always(0.29), &given), [1, 2, 3]);
        // A single top choice stays, and so does everything where there is none.
        assert_eq!(left(&always(0.39), &given), [0, 1, 2, 3]);
        assert_eq!(left(&always(0.45), &given), [0, 1, 2, 3]);
        assert_eq!(left(&always(0.6), &given), [0, 1, 2, 3]);
        // The order of the input does not matter.
        assert_eq!(left(&always(0.19), &[0.1, 0.3, 0.2, 0.4]), [2, 0]);
    }

    #[test]
    fn what_cannot_be_chosen_never_becomes_the_only_choice() {
        assert_eq!(left(&always(0.0), &[0.5, 0.0, 0.3, 0.2]), [3, 1]);
    }

    #[test]
    fn min_keep_is_kept() {
        let p = Params { min_keep: 3, ..always(0.19) };
        assert_eq!(left(&p, &[0.4, 0.3, 0.2, 0.1]), [0, 1, 2, 3]);
        assert_eq!(left(&Params { min_keep: 2, ..p }, &[0.4, 0.3, 0.2, 0.1]), [2, 3]);
    }

    #[test]
    fn it_acts_as_often_as_asked() {
        let p = Params { xtc_probability: 0.3, ..always(0.1) };
        let mut rng = Rng::new(5, 1);
        let acted = (0..2000)
            .filter(|_| {
                let mut c = from_probs(&[0.6, 0.4]);
                xtc(&p, &mut c, &mut rng);
                c.len() == 1
            })
            .count();
        assert!((500..700).contains(&acted), "{acted} of 2000");
        assert_eq!(left(&Params { xtc_probability: 0.0, ..p }, &[0.6, 0.4]), [0, 1]);
    }
}
