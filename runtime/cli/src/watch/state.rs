//! What is picked, typed and answered, and what a key does to it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::adviser::{Advice, Adviser, Choice};

/// Longest query.
const MAX_QUERY: usize = 100;

/// Which list the arrow keys move in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Focus {
    #[default]
    Titles,
    Picks,
}

/// Everything that is on the screen.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// One line about bundle and engine.
    pub(crate) about: String,
    pub(crate) query: String,
    /// Items that fit the query.
    pub(crate) choices: Vec<Choice>,
    pub(crate) chosen: usize,
    /// Oldest first.
    pub(crate) picks: Vec<Choice>,
    pub(crate) picked: usize,
    pub(crate) focus: Focus,
    pub(crate) advice: Option<Advice>,
    /// Why there is no advice.
    pub(crate) trouble: Option<String>,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    /// The query is another one.
    Find,
    /// The picks are others.
    Advise,
    Quit,
}

impl State {
    pub(crate) fn new(about: String, adviser: &mut dyn Adviser) -> Self {
        Self {
            about,
            choices: adviser.find(""),
            ..Self::default()
        }
    }

    /// Does what a key says; `false` when it says to quit.
    pub(crate) fn press(&mut self, key: KeyEvent, adviser: &mut dyn Adviser) -> bool {
        match self.on_key(key) {
            Wish::Nothing => {}
            Wish::Find => {
                self.choices = adviser.find(&self.query);
                self.chosen = 0;
            }
            Wish::Advise => self.advise(adviser),
            Wish::Quit => return false,
        }
        true
    }

    fn advise(&mut self, adviser: &mut dyn Adviser) {
        (self.advice, self.trouble) = (None, None);
        if self.picks.is_empty() {
            return;
        }
        let ids: Vec<String> = self.picks.iter().map(|pick| pick.id.clone()).collect();
        match adviser.advise(&ids) {
            Ok(advice) => self.advice = Some(advice),
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => Wish::Quit,
            KeyCode::Char('c' | 'q') if control => Wish::Quit,
            KeyCode::Char('x') if control => self.clear(),
            KeyCode::Char('u') if control => self.set_query(String::new()),
            KeyCode::Char(_) if control => Wish::Nothing,
            KeyCode::Tab | KeyCode::BackTab => self.other_list(),
            KeyCode::Up => self.step(|at, _| at.saturating_sub(1)),
            KeyCode::Down => self.step(|at, last| last.min(at + 1)),
            KeyCode::Home => self.step(|_, _| 0),
            KeyCode::End => self.step(|_, last| last),
            KeyCode::Delete => self.remove(),
            KeyCode::Backspace if self.focus == Focus::Picks => self.remove(),
            KeyCode::Backspace => self.erase(),
            KeyCode::Enter if self.focus == Focus::Titles => self.pick(),
            KeyCode::Char(letter) => self.type_letter(letter),
            _ => Wish::Nothing,
        }
    }

    fn clear(&mut self) -> Wish {
        self.picks.clear();
        self.picked = 0;
        self.focus = Focus::Titles;
        Wish::Advise
    }

    fn set_query(&mut self, query: String) -> Wish {
        self.query = query;
        Wish::Find
    }

    fn type_letter(&mut self, letter: char) -> Wish {
        self.focus = Focus::Titles;
        if self.query.chars().count() >= MAX_QUERY {
            return Wish::Nothing;
        }
        self.query.push(letter);
        Wish::Find
    }

    fn erase(&mut self) -> Wish {
        match self.query.pop() {
            Some(_) => Wish::Find,
            None => Wish::Nothing,
        }
    }

    fn other_list(&mut self) -> Wish {
        self.focus = match self.focus {
            Focus::Titles if !self.picks.is_empty() => Focus::Picks,
            _ => Focus::Titles,
        };
        Wish::Nothing
    }

    /// Moves in the list that has the focus; `to` gets the place and the last one.
    fn step(&mut self, to: fn(usize, usize) -> usize) -> Wish {
        let (at, length) = match self.focus {
            Focus::Titles => (&mut self.chosen, self.choices.len()),
            Focus::Picks => (&mut self.picked, self.picks.len()),
        };
        *at = to(*at, length.saturating_sub(1));
        Wish::Nothing
    }

    fn pick(&mut self) -> Wish {
        let Some(choice) = self.choices.get(self.chosen) else {
            return Wish::Nothing;
        };
        self.picks.push(choice.clone());
        self.picked = self.picks.len() - 1;
        Wish::Advise
    }

    /// Removes the marked pick; without the focus on them the newest.
    fn remove(&mut self) -> Wish {
        if self.focus == Focus::Titles {
            self.picked = self.picks.len().saturating_sub(1);
        }
        if self.picked >= self.picks.len() {
            return Wish::Nothing;
        }
        self.picks.remove(self.picked);
        self.picked = self.picked.min(self.picks.len().saturating_sub(1));
        if self.picks.is_empty() {
            self.focus = Focus::Titles;
        }
        Wish::Advise
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::adviser::Advised;
    use super::*;

    /// Knows five films; recommends the others, and says that the newest pick is the reason.
    pub(crate) struct Films;

    const TITLES: [&str; 5] = ["Star Wars", "Alien", "Contact", "Amélie", "The Godfather"];

    fn film(at: usize) -> Choice {
        Choice {
            id: at.to_string(),
            name: TITLES[at].to_owned(),
        }
    }

    impl Adviser for Films {
        fn find(&mut self, query: &str) -> Vec<Choice> {
            let fits = |at: &usize| TITLES[*at].to_lowercase().contains(&query.to_lowercase());
            (0..TITLES.len()).filter(fits).map(film).collect()
        }

        fn advise(&mut self, picks: &[String]) -> Result<Advice, String> {
            let films = (0..TITLES.len()).map(film);
            let others: Vec<Choice> = films.filter(|film| !picks.contains(&film.id)).collect();
            if others.is_empty() {
                return Err("nothing is left".into());
            }
            let newest = picks.last().and_then(|id| id.parse().ok()).map(film);
            let items = (1..).zip(others).map(|(rank, film)| Advised {
                rank,
                name: film.name,
                score: 12.5 - rank as f32,
                because: newest
                    .iter()
                    .map(|pick| (pick.name.clone(), 1.25))
                    .collect(),
            });
            Ok(Advice {
                items: items.collect(),
                encode: Duration::from_micros(2345),
                catalog: Duration::from_micros(120),
                reasons: Duration::from_micros(9876),
            })
        }
    }

    /// A state after some keys: letters as they are, `\n` Enter, `\t` Tab, `<` Delete, `^` Up,
    /// `v` Down; `!` clears picks and `~` the query.
    pub(crate) fn after(keys: &str) -> State {
        let mut state = State::new("five films".into(), &mut Films);
        for letter in keys.chars() {
            let (code, modifiers) = match letter {
                '\n' => (KeyCode::Enter, KeyModifiers::NONE),
                '\t' => (KeyCode::Tab, KeyModifiers::NONE),
                '<' => (KeyCode::Delete, KeyModifiers::NONE),
                '^' => (KeyCode::Up, KeyModifiers::NONE),
                'v' => (KeyCode::Down, KeyModifiers::NONE),
                '!' => (KeyCode::Char('x'), KeyModifiers::CONTROL),
                '~' => (KeyCode::Char('u'), KeyModifiers::CONTROL),
                other => (KeyCode::Char(other), KeyModifiers::NONE),
            };
            assert!(state.press(KeyEvent::new(code, modifiers), &mut Films));
        }
        state
    }

    fn names(choices: &[Choice]) -> Vec<&str> {
        choices.iter().map(|choice| choice.name.as_str()).collect()
    }

    #[test]
    fn typing_finds_and_enter_picks() {
        let state = after("al\n~star\n");
        assert_eq!(names(&state.picks), ["Alien", "Star Wars"]);
        let advice = state.advice.expect("advice");
        assert_eq!(advice.items[0].name, "Contact");
        assert_eq!(advice.items[0].because[0].0, "Star Wars");
        assert_eq!(state.query, "star");
    }

    #[test]
    fn arrows_stay_within_their_list() {
        assert_eq!(after("^^").chosen, 0);
        assert_eq!(after("vvvvvvvvv").chosen, 4);
        assert_eq!(names(&after("vv\n").picks), ["Contact"]);
        let state = after("\nv\nv\n\t^^^^");
        assert_eq!((state.focus, state.picked), (Focus::Picks, 0));
    }

    #[test]
    fn picks_go_again() {
        assert_eq!(names(&after("\nv\nv\n<").picks), ["Star Wars", "Alien"]);
        assert_eq!(names(&after("\nv\nv\n\t^^<").picks), ["Alien", "Contact"]);
        let cleared = after("\nv\n!");
        assert!(cleared.picks.is_empty() && cleared.advice.is_none());
        let emptied = after("\n\t<<");
        assert_eq!((emptied.picks.len(), emptied.focus), (0, Focus::Titles));
        assert!(emptied.advice.is_none());
    }

    #[test]
    fn nothing_to_pick_is_no_fault() {
        let state = after("zzz\n");
        assert!(state.choices.is_empty() && state.picks.is_empty());
        assert_eq!(after("\t").focus, Focus::Titles);
    }

    #[test]
    fn trouble_is_shown_and_goes() {
        let all = after("\nv\nv\nv\nv\n");
        assert_eq!(all.trouble.as_deref(), Some("nothing is left"));
        assert!(all.advice.is_none());
        let fewer = after("\nv\nv\nv\nv\n<");
        assert!(fewer.trouble.is_none() && fewer.advice.is_some());
    }

    #[test]
    fn keys_that_quit() {
        for (code, modifiers) in [
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert!(!after("").press(KeyEvent::new(code, modifiers), &mut Films));
        }
    }
}
