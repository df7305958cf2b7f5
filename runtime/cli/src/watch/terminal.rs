//! The loop between a person and a state. However it ends, the terminal is as it was.

use anyhow::Context;
use ratatui::crossterm::event::{self, Event};

use super::adviser::Adviser;
use super::state::State;
use super::view;

/// Shows a state and does what keys say, until one says to quit.
///
/// # Errors
/// A terminal that cannot be read or written.
pub(crate) fn run(about: String, adviser: &mut dyn Adviser) -> anyhow::Result<()> {
    let mut state = State::new(about, adviser);
    // Ctrl-C is a key here; this is for signals from elsewhere.
    ctrlc::set_handler(|| {
        // Nothing better can be done when the terminal has gone.
        let _ = ratatui::try_restore();
        std::process::exit(1);
    })
    .context("cannot listen for signals")?;
    // A panic restores the terminal, too: this sets a hook for it.
    let mut terminal = ratatui::try_init().context("the terminal cannot be prepared")?;
    let result = (|| {
        loop {
            terminal.draw(|frame| view::draw(frame, &state))?;
            // A change of the size draws anew, like everything that is no key.
            if let Event::Key(key) = event::read()?
                && !state.press(key, adviser)
            {
                return Ok(());
            }
        }
    })();
    let restored = ratatui::try_restore();
    result.and(restored).context("the terminal")
}
