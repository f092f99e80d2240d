//! How long the cases of the hot path take: `cargo bench --bench hot`, for whoever makes one of them faster.
//!
//! No run is judged by it, because time on a shared machine says little: that is what `count.rs` is for.

mod cases;

use criterion::{Criterion, criterion_group, criterion_main};

/// As in herald.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn hot(criterion: &mut Criterion) {
    for (name, prepare) in cases::CASES {
        criterion.bench_function(name, |bencher| bencher.iter(prepare()));
    }
}

criterion_group!(benches, hot);
criterion_main!(benches);
