//! `slmrec-run watch`: pick items by their titles and see what is recommended after each pick.
//!
//! The order in which to read: [`state`] (what is picked, typed and answered, and what a key does)
//! → [`search`] (titles that fit what is typed) → [`adviser`] (who answers) → [`view`] (a state as
//! a screen) → [`terminal`] (the loop between a person and these).

pub(crate) mod adviser;
pub(crate) mod search;
pub(crate) mod state;
pub(crate) mod terminal;
mod view;
