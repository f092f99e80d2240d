//! The window of acknowledgements against a model of the broker's side.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What happens on a channel.
#[derive(Debug, Clone)]
enum Step {
    Taken,
    /// One of those in hand, by its place.
    Settle(usize),
    Passes(u64),
    Look,
}

/// The broker's side of a channel and what was settled on ours.
struct Model {
    unacked: BTreeSet<DeliveryTag>,
    in_hand: Vec<DeliveryTag>,
    settled_at: Vec<(DeliveryTag, Instant)>,
}

impl Model {
    /// Takes frames in as the broker does: it closes the channel for a tag it does not know.
    fn acknowledge(&mut self, frames: &[Frame]) {
        for frame in frames {
            assert!(self.unacked.contains(&frame.tag), "{frame:?} names no delivery of {:?}", self.unacked);
            let gone: Vec<DeliveryTag> = match frame.multiple {
                true => self.unacked.range(..=frame.tag).copied().collect(),
                false => vec![frame.tag],
            };
            assert_eq!(gone.len(), frame.count, "{frame:?}");
            for tag in gone {
                assert!(!self.in_hand.contains(&tag), "{frame:?} acknowledges {tag}, which is not settled");
                self.unacked.remove(&tag);
                self.settled_at.retain(|(settled, _)| *settled != tag);
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Taken),
        4 => (0usize..64).prop_map(Step::Settle),
        1 => (0u64..300).prop_map(Step::Passes),
        2 => Just(Step::Look),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn nothing_unsettled_is_ever_acknowledged_and_nothing_settled_waits(prefetch in 1u16..200, steps in steps()) {
        let mut now = Instant::now();
        let mut window = Window::new(prefetch);
        let mut model = Model { unacked: BTreeSet::new(), in_hand: Vec::new(), settled_at: Vec::new() };
        let mut next = 1;
        for step in steps {
            match step {
                Step::Taken => {
                    window.taken(next);
                    model.unacked.insert(next);
                    model.in_hand.push(next);
                    next += 1;
                }
                Step::Settle(place) if place < model.in_hand.len() => {
                    let tag = model.in_hand.remove(place);
                    model.settled_at.push((tag, now));
                    let told = window.settle(tag, now);
                    prop_assert!(told || window.due().is_some(), "somebody will look");
                    prop_assert!(!window.settle(tag, now), "a delivery is settled once");
                }
                Step::Settle(_) => {}
                Step::Passes(ms) => now += Duration::from_millis(ms),
                Step::Look => {
                    model.acknowledge(&window.take_due(now));
                    let late = model.settled_at.iter().find(|(_, at)| *at + WAIT <= now);
                    prop_assert!(late.is_none(), "{late:?} still waits");
                    prop_assert!(window.due().is_none_or(|due| due > now));
                    let pending = model.settled_at.len();
                    prop_assert!(pending < usize::from(prefetch / 4).max(1), "{pending} of {prefetch} wait");
                    prop_assert_eq!(window.since, model.settled_at.iter().map(|(_, at)| *at).min());
                }
            }
            prop_assert_eq!(window.pending, model.settled_at.len());
        }
        model.acknowledge(&window.take(|_| true));
        prop_assert!(model.settled_at.is_empty());
        prop_assert_eq!(model.unacked.into_iter().collect::<Vec<_>>(), { model.in_hand.sort_unstable(); model.in_hand });
    }
}

#[test]
fn a_run_is_one_frame_and_the_rest_goes_one_by_one() {
    let now = Instant::now();
    let mut window = Window::new(1000);
    (1..=200).for_each(|tag| window.taken(tag));
    for tag in (1..=49).chain(61..=70) {
        window.settle(tag, now);
    }
    assert_eq!(window.take_due(now), [], "neither a run nor late");
    window.settle(50, now);
    assert_eq!(window.take_due(now), [Frame { tag: 50, multiple: true, count: 50 }]);
    let singles: Vec<Frame> = (61..=70).map(|tag| Frame { tag, multiple: false, count: 1 }).collect();
    assert_eq!(window.take_due(now + WAIT), singles);
    // Past what was acknowledged by itself, to the last that was not.
    for tag in (51..=60).chain(71..=72) {
        window.settle(tag, now);
    }
    assert_eq!(window.take_due(now), [], "a run, but a short one");
    assert_eq!(window.take_due(now + RUN_WAIT), [Frame { tag: 72, multiple: true, count: 12 }]);
}

#[test]
fn a_small_prefetch_does_not_wait() {
    let now = Instant::now();
    for prefetch in [1, 2, 7] {
        let mut window = Window::new(prefetch);
        (1..=2).for_each(|tag| window.taken(tag));
        assert!(window.settle(2, now));
        assert_eq!(window.take_due(now).len(), 1, "prefetch {prefetch}");
    }
}
