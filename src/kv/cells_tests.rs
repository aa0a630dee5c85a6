//! The bookkeeping of cells: what it promises, and long random histories against a naive model.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::kv::random::Random;

fn seq(seq: u32, positions: Range<u32>) -> Vec<SeqPos> {
    positions.map(|pos| SeqPos { seq, pos }).collect()
}

fn append(cells: &mut Cells, batch: &[SeqPos]) -> Vec<u32> {
    let mut out = vec![7];
    cells.append(batch, &mut out).unwrap();
    out
}

fn span(start: u32, len: u32, pos: u32) -> Span {
    Span { start, len, pos }
}

#[test]
fn a_sequence_alone_is_one_span_to_the_last_cell() {
    let mut cells = Cells::new(200, 4);
    assert_eq!(append(&mut cells, &seq(0, 0..150)), (0..150).collect::<Vec<_>>());
    for pos in 150..200 {
        assert_eq!(append(&mut cells, &seq(0, pos..pos + 1)), [pos]);
    }
    assert_eq!(cells.spans(0), [span(0, 200, 0)]);
    assert_eq!((cells.used(), cells.free(), cells.next_pos(0), cells.next_pos(1)), (200, 0, 200, 0));
}

#[test]
fn sequences_in_lockstep_keep_to_their_pages() {
    let mut cells = Cells::new(16 * PAGE, 4);
    for pos in 0..3 * PAGE {
        append(&mut cells, &(0..4).map(|seq| SeqPos { seq, pos }).collect::<Vec<_>>());
    }
    for s in 0..4 {
        assert!(cells.spans(s).len() <= 3, "{:?}", cells.spans(s));
        assert!(cells.spans(s).iter().all(|span| span.start % PAGE == 0));
    }
}

#[test]
fn where_pages_are_short_sequences_still_do_not_alternate_cell_by_cell() {
    let mut cells = Cells::new(2 * PAGE, 4);
    for pos in 0..PAGE / 2 {
        append(&mut cells, &(0..4).map(|seq| SeqPos { seq, pos }).collect::<Vec<_>>());
    }
    assert_eq!(cells.free(), 0, "and every cell is of use");
    let spans: usize = (0..4).map(|s| cells.spans(s).len()).sum();
    assert!(spans <= 8, "{spans} spans of 4 sequences");
}

#[test]
fn two_heirs_of_a_prefix_share_it_and_go_on_apart() {
    let mut cells = Cells::new(4 * PAGE, 4);
    append(&mut cells, &seq(0, 0..10));
    cells.copy(0, 1, 0..8).unwrap();
    assert_eq!((cells.used(), cells.next_pos(1)), (10, 8));
    assert_eq!(append(&mut cells, &seq(1, 8..10)), [PAGE, PAGE + 1]);
    assert_eq!(append(&mut cells, &seq(0, 10..12)), [10, 11]);
    cells.truncate(0, 0).unwrap();
    assert_eq!(cells.used(), 10, "the shared cells stay with their heir");
    assert_eq!(cells.spans(1), [span(0, 8, 0), span(PAGE, 2, 8)]);
    cells.truncate(1, 0).unwrap();
    assert_eq!(cells.used(), 0);
}

#[test]
fn what_was_cut_off_is_written_again_in_place() {
    let mut cells = Cells::new(4 * PAGE, 2);
    append(&mut cells, &seq(0, 0..100));
    cells.truncate(0, 70).unwrap();
    assert_eq!(cells.next_pos(0), 70);
    assert_eq!(append(&mut cells, &seq(0, 70..90)), (70..90).collect::<Vec<_>>());
    cells.remove(0, 20..30).unwrap();
    assert_eq!(cells.spans(0), [span(0, 20, 0), span(30, 60, 30)], "a hole leaves positions as they are");
    cells.keep(1).unwrap();
    assert_eq!(cells.used(), 0);
}

#[test]
fn a_full_cache_says_by_how_much() {
    let mut cells = Cells::new(10, 2);
    append(&mut cells, &seq(0, 0..7));
    let mut out = vec![];
    let error = cells.append(&seq(1, 0..4), &mut out).unwrap_err();
    assert_eq!(error, CellsError::Full { needed: 4, free: 3, capacity: 10 });
    assert_eq!(error.to_string(), "the KV cache is full: 4 cells are needed, 3 of 10 are free");
    append(&mut cells, &seq(1, 0..3));
    assert_eq!(cells.free(), 0);
}

#[test]
fn a_refused_batch_changes_nothing() {
    let mut cells = Cells::new(100, 2);
    append(&mut cells, &seq(0, 0..5));
    let before = format!("{cells:?}");
    let mut refused = |batch: &[SeqPos]| {
        let mut out = vec![1];
        let error = cells.append(batch, &mut out).unwrap_err();
        assert_eq!((format!("{cells:?}"), out), (before.clone(), vec![]));
        error
    };
    let tail = |at| [seq(0, 5..9), seq(1, 0..3), vec![at]].concat();
    assert_eq!(
        refused(&tail(SeqPos { seq: 0, pos: 8 })),
        CellsError::Order { seq: 0, pos: 8, last: 8 },
        "a position twice"
    );
    assert_eq!(refused(&tail(SeqPos { seq: 1, pos: 1 })), CellsError::Order { seq: 1, pos: 1, last: 2 });
    assert_eq!(
        refused(&tail(SeqPos { seq: 2, pos: 0 })),
        CellsError::UnknownSequence { seq: 2, sequences: 2 }
    );
    let far = SeqPos { seq: 1, pos: u32::MAX };
    assert_eq!(refused(&tail(far)), CellsError::Position { seq: 1, pos: u32::MAX });
    assert!(cells.remove(9, 0..1).is_err() && cells.copy(0, 9, 0..1).is_err() && cells.keep(9).is_err());
    assert_eq!(cells.next_pos(9), 0);
}

#[test]
fn a_copy_onto_other_cells_is_refused_and_a_second_copy_is_none() {
    let mut cells = Cells::new(100, 3);
    append(&mut cells, &seq(0, 0..20));
    append(&mut cells, &seq(1, 5..8));
    let before = format!("{cells:?}");
    assert_eq!(cells.copy(0, 1, 0..20), Err(CellsError::Occupied { seq: 1, pos: 5 }));
    assert_eq!(format!("{cells:?}"), before);
    cells.copy(0, 1, 0..5).unwrap();
    cells.copy(0, 1, 8..20).unwrap();
    let once = format!("{cells:?}");
    cells.copy(0, 1, 0..3).unwrap();
    cells.copy(1, 1, 0..20).unwrap();
    assert_eq!(format!("{cells:?}"), once);
    cells.truncate(0, 0).unwrap();
    assert_eq!((cells.used(), cells.next_pos(1)), (20, 20));
}

#[test]
fn a_window_brings_only_the_spans_it_needs() {
    let mut cells = Cells::new(16 * PAGE, 2);
    for pos in 0..4 * PAGE {
        append(&mut cells, &[SeqPos { seq: 0, pos }, SeqPos { seq: 1, pos }]);
    }
    let mut visible = Visible::default();
    let last = 4 * PAGE - 1;
    cells.visible(&[SeqPos { seq: 1, pos: last }], Some(10), true, &mut visible);
    assert_eq!(visible.spans.len(), 1);
    assert_eq!(visible.tokens, [View { list: 0, from: last - 9, to: last + 1 }]);
    assert_eq!(visible.cells(0).count(), 10);
    let mut out = visible.clone();
    cells.visible(&[], None, true, &mut out);
    assert_eq!((out.tokens.len(), out.spans.len(), out.cells_end()), (0, 0, 0));
}

/// Which cell each position of each sequence holds: all there is to know.
#[derive(Default, Clone, PartialEq, Debug)]
struct Model(BTreeMap<(u32, u32), u32>);

impl Model {
    fn of(&self, seq: u32) -> Vec<(u32, u32)> {
        self.0.range((seq, 0)..=(seq, u32::MAX)).map(|((_, pos), cell)| (*pos, *cell)).collect()
    }
    fn used(&self) -> BTreeSet<u32> {
        self.0.values().copied().collect()
    }
    fn agrees(&self, cells: &Cells) {
        assert_eq!(cells.used(), self.used().len());
        for s in 0..cells.sequences() as u32 {
            let spans = cells.spans(s);
            let held: Vec<_> = spans.iter().flat_map(|x| (x.pos..x.end()).map(|p| (p, x.cell(p)))).collect();
            assert_eq!(held, self.of(s));
            assert_eq!(cells.next_pos(s), self.of(s).last().map_or(0, |(pos, _)| pos + 1));
            for pair in spans.windows(2) {
                let [a, b] = [pair[0], pair[1]];
                assert!(a.end() != b.pos || a.start + a.len != b.start, "spans {a:?} and {b:?} are one");
            }
        }
        for cell in 0..cells.capacity() as u32 {
            let owners = self.0.values().filter(|c| **c == cell).count();
            assert_eq!(cells.owners[cell as usize] as usize, owners);
        }
        for (page, owners) in cells.owners.chunks(PAGE as usize).enumerate() {
            assert_eq!(cells.pages[page] as usize, owners.iter().filter(|n| **n > 0).count());
        }
    }
}

#[test]
fn random_histories_agree_with_a_naive_model() {
    const SEQS: u32 = 4;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let capacity = [5, 64, 100, 300][seed as usize % 4];
        let (mut cells, mut model) = (Cells::new(capacity, SEQS), Model::default());
        let mut visible = Visible::default();
        let mut refused = 0;
        for _ in 0..150 {
            let (a, b) = (random.below(SEQS), random.below(SEQS));
            let end = model.of(a).last().map_or(0, |(pos, _)| pos + 1);
            let from = random.below(end + 2);
            let range = from..from + random.below(end + 2 - from.min(end + 1));
            match random.below(8) {
                0..4 => {
                    // Some tokens of some sequences, mixed, now and then with a gap.
                    let mut next: Vec<u32> = (0..SEQS).map(|s| cells.next_pos(s)).collect();
                    let batch: Vec<SeqPos> = (0..random.below(3 + capacity / 5))
                        .map(|_| {
                            let seq = if random.below(3) == 0 { b } else { a };
                            let pos = next[seq as usize] + u32::from(random.below(12) == 0);
                            next[seq as usize] = pos + 1;
                            SeqPos { seq, pos }
                        })
                        .collect();
                    let mut out = vec![];
                    let fits = batch.len() <= capacity as usize - model.used().len();
                    assert_eq!(cells.append(&batch, &mut out).is_ok(), fits);
                    refused += u32::from(!fits);
                    for (at, cell) in batch.iter().zip(out) {
                        assert!(cell < capacity && !model.used().contains(&cell), "cell {cell} was free");
                        model.0.insert((at.seq, at.pos), cell);
                    }
                    let (window, causal) =
                        ([None, Some(1), Some(7), Some(70)][random.below(4) as usize], a > 0);
                    cells.visible(&batch, window, causal, &mut visible);
                    for (t, at) in batch.iter().enumerate() {
                        let sees = |pos: u32| {
                            (!causal || pos <= at.pos)
                                && window.is_none_or(|w| i64::from(pos) > i64::from(at.pos) - i64::from(w))
                        };
                        let want: Vec<u32> =
                            model.of(at.seq).into_iter().filter(|x| sees(x.0)).map(|x| x.1).collect();
                        assert_eq!(visible.cells(t).collect::<Vec<_>>(), want);
                        assert!(want.iter().all(|cell| *cell < visible.cells_end()));
                    }
                }
                4 => {
                    cells.truncate(a, from).unwrap();
                    model.0.retain(|(seq, pos), _| *seq != a || *pos < from);
                }
                5 => {
                    cells.remove(a, range.clone()).unwrap();
                    model.0.retain(|(seq, pos), _| *seq != a || !range.contains(pos));
                }
                6 => {
                    let before = model.clone();
                    let mut clash = None;
                    for (pos, cell) in model.of(a).into_iter().filter(|x| a != b && range.contains(&x.0)) {
                        if *model.0.entry((b, pos)).or_insert(cell) != cell {
                            clash = clash.or(Some(CellsError::Occupied { seq: b, pos }));
                        }
                    }
                    match clash {
                        Some(error) => {
                            assert_eq!(cells.copy(a, b, range), Err(error));
                            model = before;
                            refused += 1;
                        }
                        None => cells.copy(a, b, range).unwrap(),
                    }
                }
                _ if random.below(6) == 0 => {
                    cells.keep(a).unwrap();
                    model.0.retain(|(seq, _), _| *seq == a);
                }
                _ => {}
            }
            model.agrees(&cells);
        }
        assert!(refused > 0, "the history of seed {seed} is too tame");
        cells.clear();
        Model::default().agrees(&cells);
    }
}
