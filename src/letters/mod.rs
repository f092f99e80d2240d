//! Acting on dead letters: chosen from the index, found again in the queue by rotation, replayed, dropped or put back.
//!
//! Called by the `dead` commands and the page; `run` takes its turn here when it reads the queue into the index. One process at a
//! time walks the queue (`turn`); whatever is cut off in the middle is dealt with by the next (`leftovers`). Never loses a
//! letter: what replaces it is confirmed first, then the index hears of it, then it is acknowledged.

mod act;
mod leftovers;
mod pick;
mod restore;
mod turn;

pub use act::{Action, Done, carry_out};
pub(crate) use leftovers::Leftovers;
pub use pick::Picked;
pub use restore::{Restored, read_letter, restore, unknown};
pub use turn::{LettersError, alone, this_host, this_process};
