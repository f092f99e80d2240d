//! The last hour of every queue, so that a chart has a past when the page opens.
//!
//! Written by the board every few seconds, read by the page. A ring: it never grows beyond an hour. What was not known then is
//! `null` now, never 0.

use std::collections::VecDeque;

use serde::Serialize;

/// Points kept: an hour of one every five seconds.
const POINTS: usize = 720;

/// One moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Messages ready in each queue, in the topology's order.
    pub ready: Vec<Option<u64>>,
    /// Messages taken and not settled.
    pub unacked: Vec<Option<u64>>,
    /// Deliveries this worker took and settled, each second since the point before.
    pub taken: Option<f64>,
    pub settled: Option<f64>,
}

/// The points of the last hour.
#[derive(Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
}

/// Points by column, as charts want them: `ready[queue][point]`.
#[derive(Debug, PartialEq, Serialize)]
pub struct Columns {
    pub queues: Vec<String>,
    pub at: Vec<i64>,
    pub ready: Vec<Vec<Option<u64>>>,
    pub unacked: Vec<Vec<Option<u64>>>,
    pub taken: Vec<Option<f64>>,
    pub settled: Vec<Option<f64>>,
}

impl History {
    /// Adds a point; the oldest goes when there are too many.
    pub fn add(&mut self, point: Point) {
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// Returns the points later than `after`, of the queues named so.
    pub fn after(&self, after: i64, queues: Vec<String>) -> Columns {
        let points: Vec<&Point> = self.points.iter().filter(|point| point.at > after).collect();
        let columns = |of: fn(&Point) -> &Vec<Option<u64>>| -> Vec<Vec<Option<u64>>> {
            let column = |queue| points.iter().map(|point| of(point).get(queue).copied().flatten()).collect();
            (0..queues.len()).map(column).collect()
        };
        Columns {
            ready: columns(|point| &point.ready),
            unacked: columns(|point| &point.unacked),
            at: points.iter().map(|point| point.at).collect(),
            taken: points.iter().map(|point| point.taken).collect(),
            settled: points.iter().map(|point| point.settled).collect(),
            queues,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: i64, ready: Option<u64>) -> Point {
        Point { at, ready: vec![Some(0), ready], unacked: vec![None, None], taken: Some(1.0), settled: None }
    }

    #[test]
    fn columns_are_what_came_after_and_the_unknown_stays_unknown() {
        let mut history = History::default();
        for (at, ready) in [(1, Some(4)), (2, None), (3, Some(6))] {
            history.add(point(at, ready));
        }
        let told = history.after(1, vec!["a".into(), "b".into()]);
        assert_eq!(told.at, [2, 3]);
        assert_eq!(told.ready, [vec![Some(0), Some(0)], vec![None, Some(6)]]);
        assert_eq!(told.unacked, [vec![None, None], vec![None, None]]);
        assert_eq!((told.taken, told.settled), (vec![Some(1.0); 2], vec![None; 2]));
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = History::default();
        (0..2_000).for_each(|at| history.add(point(at, None)));
        let told = history.after(-1, vec!["a".into()]);
        assert_eq!((told.at.len(), told.at[0]), (POINTS, 2_000 - POINTS as i64));
    }
}
