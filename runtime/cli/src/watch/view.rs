//! A state as a screen of at least 80 columns and 24 rows; smaller ones show what fits.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, List, ListItem, ListState, Paragraph, Wrap};

use super::adviser::{Advice, Advised, Choice};
use super::state::{Focus, State};
use crate::output::printable;

const KEYS: [(&str, &str); 7] = [
    ("type", "find"),
    ("↑↓", "choose"),
    ("Enter", "pick"),
    ("Del", "remove"),
    ("Tab", "picks"),
    ("^X", "clear"),
    ("Esc", "quit"),
];

/// Draws a state.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let rows = [
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ];
    let [about, middle, keys] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Line::from(printable(&state.about)).bold(), about);
    frame.render_widget(key_line(), keys);
    let columns = [Constraint::Percentage(40), Constraint::Percentage(60)];
    let [left, right] = Layout::horizontal(columns).areas(middle);
    let rows = [
        Constraint::Length(3),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ];
    let [query, titles, picks] = Layout::vertical(rows).areas(left);
    draw_query(frame, state, query);
    let titles_have_it = state.focus == Focus::Titles;
    let title = format!(" Titles ({}) ", state.choices.len());
    draw_list(
        frame,
        &title,
        &state.choices,
        state.chosen,
        titles_have_it,
        titles,
    );
    let title = format!(" Your picks ({}), oldest first ", state.picks.len());
    draw_list(
        frame,
        &title,
        &state.picks,
        state.picked,
        !titles_have_it,
        picks,
    );
    draw_advice(frame, state, right);
}

fn key_line() -> Line<'static> {
    let keys = KEYS
        .into_iter()
        .flat_map(|(key, does)| [Span::from(key).reversed(), Span::from(format!(" {does}  "))]);
    Line::from_iter(keys)
}

fn draw_query(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let block = Block::bordered().title(" Find a title ");
    let width = usize::from(block.inner(area).width);
    // The end of a long query stays in sight.
    let long = state
        .query
        .chars()
        .count()
        .saturating_sub(width.saturating_sub(1));
    let shown: String = state.query.chars().skip(long).collect();
    let line = Line::from_iter([Span::from(printable(&shown)), Span::from(" ").reversed()]);
    frame.render_widget(Paragraph::new(line).block(block), area);
}

fn draw_list(
    frame: &mut Frame<'_>,
    title: &str,
    choices: &[Choice],
    at: usize,
    focus: bool,
    area: Rect,
) {
    let items = choices
        .iter()
        .map(|choice| ListItem::new(printable(&choice.name)));
    let marked = if focus {
        Style::new().reversed()
    } else {
        Style::new()
    };
    let list = List::new(items)
        .block(block(title, focus))
        .highlight_style(marked)
        .highlight_symbol(if focus { "> " } else { "  " });
    let mut marked = ListState::default().with_selected((!choices.is_empty()).then_some(at));
    frame.render_stateful_widget(list, area, &mut marked);
}

fn block(title: &str, focus: bool) -> Block<'static> {
    let block = Block::bordered().title(title.to_owned());
    match focus {
        true => block.border_style(Style::new().bold()),
        false => block.border_style(Style::new().dim()),
    }
}

fn draw_advice(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let mut block = Block::bordered().title(" Recommended ");
    let inner = block.inner(area);
    let text = match (&state.advice, &state.trouble) {
        (Some(advice), _) => {
            block = block.title_bottom(times(advice));
            advice_text(advice, inner)
        }
        (None, Some(trouble)) => Text::from(format!("error: {}", printable(trouble))),
        (None, None) => Text::from("Pick a title: what fits comes here, and why.").dim(),
    };
    let text = Paragraph::new(text).wrap(Wrap { trim: false });
    frame.render_widget(text.block(block), area);
}

fn times(advice: &Advice) -> String {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    format!(
        " encoder {:.1}, catalog {:.1}, reasons {:.1} ms ",
        ms(advice.encode),
        ms(advice.catalog),
        ms(advice.reasons)
    )
}

/// Two lines an item where there are reasons and room for them, else one.
fn advice_text(advice: &Advice, area: Rect) -> Text<'static> {
    let width = usize::from(area.width);
    let any = advice.items.iter().any(|item| !item.because.is_empty());
    let with_reasons = any && usize::from(area.height) >= 2 * advice.items.len();
    let mut text = Text::default();
    for item in &advice.items {
        text.push_line(headline(item, width));
        if with_reasons {
            text.push_line(Line::from(fit(&because(item), width)).dim());
        }
    }
    text
}

/// Rank, name and, at the right end, the score.
fn headline(item: &Advised, width: usize) -> Line<'static> {
    let rank = format!("{:2}  ", item.rank);
    let score = format!(" {:.3}", item.score);
    let room = width.saturating_sub(rank.len() + score.len());
    let name = fit(&printable(&item.name), room);
    let gap = " ".repeat(room.saturating_sub(Span::raw(name.as_str()).width()));
    Line::from_iter([
        Span::from(rank),
        Span::from(name).bold(),
        Span::from(gap + &score),
    ])
}

fn because(item: &Advised) -> String {
    if item.because.is_empty() {
        return "    no single pick speaks for it".into();
    }
    let reasons = item.because.iter();
    let named = reasons.map(|(name, drop)| format!("{} +{drop:.2}", printable(name)));
    format!("    {}", named.collect::<Vec<_>>().join(", "))
}

/// Text of at most `width` columns; what is cut off leaves a `…`.
fn fit(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut fitted = String::new();
    for letter in text.chars() {
        fitted.push(letter);
        if Span::raw(fitted.as_str()).width() + 1 > width {
            fitted.pop();
            break;
        }
    }
    if width > 0 {
        fitted.push('…');
    }
    fitted
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::tests::after;
    use super::*;

    fn screen(width: u16, height: u16, keys: &str) -> String {
        let state = after(keys);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let drawn = terminal.draw(|frame| draw(frame, &state));
        drawn.expect("draws");
        terminal.backend().to_string()
    }

    #[test]
    fn before_the_first_pick() {
        assert_snapshot!(screen(80, 24, ""));
    }

    #[test]
    fn after_two_picks() {
        assert_snapshot!(screen(80, 24, "al\n~star\n~a"));
    }

    #[test]
    fn a_wide_screen_with_the_focus_on_the_picks() {
        assert_snapshot!(screen(120, 30, "\nv\nv\n\t^"));
    }

    #[test]
    fn trouble() {
        assert_snapshot!(screen(80, 24, "\nv\nv\nv\nv\n"));
    }

    #[test]
    fn screens_of_any_size_are_drawn() {
        for (width, height) in [(1, 1), (3, 2), (20, 5), (79, 12), (300, 100)] {
            let drawn = screen(width, height, "al\n~star\n");
            assert_eq!(drawn.lines().count(), usize::from(height));
        }
    }

    #[test]
    fn what_is_cut_off_leaves_a_mark() {
        assert_eq!(fit("Godfather", 9), "Godfather");
        assert_eq!(fit("Godfather", 4), "God…");
        assert_eq!(fit("映画館", 5), "映画…");
        assert_eq!(fit("Godfather", 0), "");
    }
}
