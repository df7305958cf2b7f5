//! Settings for who gives data and nothing else: what docs/recipe.md found best, chosen by what the
//! data look like. Four kinds of data were measured, so there are four kinds of recipe.

use slmrec_core::Dataset;

use super::{PipelineError, PipelineSettings};

/// Median length of a training sequence from which histories count as long: MovieLens-100K has 63,
/// Amazon's Office 3.
const LONG: usize = 20;
/// Items of a user's newest window.
const WINDOW: usize = 50;
/// Interactions of the newest windows for each item of the catalog below which older windows are
/// trained on, too: MovieLens-100K has 23, latest-small 3.
const SPARSE: f64 = 10.0;
/// Users from whom on short histories make long epochs: Office has 3,231, Beauty 22,363.
const MANY_USERS: usize = 10_000;
/// Share of items with a title from which titles are read.
const TITLED: f64 = 0.5;

const COMMON: &str = include_str!("recipe/common.toml");
const LONG_HISTORIES: &str = include_str!("recipe/long.toml");
const SHORT_HISTORIES: &str = include_str!("recipe/short.toml");
const SPARSE_CATALOG: &str = include_str!("recipe/sparse.toml");
const MANY_SHORT_HISTORIES: &str = include_str!("recipe/many.toml");
const WITH_TITLES: &str = include_str!("recipe/titles.toml");

/// What was seen of the data, which decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Number of users.
    pub users: usize,
    /// Median length of a training sequence.
    pub median_length: usize,
    /// Training interactions of the users' newest windows for each item.
    pub newest_per_item: f64,
    /// Share of the items that have a title.
    pub titled: f64,
    /// Whether the encoder of titles has been fetched.
    pub encoder: bool,
}

impl Recipe {
    /// The recipe for a dataset; `encoder` says whether the encoder of titles is there.
    #[must_use]
    pub fn of(dataset: &Dataset, encoder: bool) -> Self {
        let mut lengths: Vec<usize> = (0..dataset.num_users())
            .map(|user| dataset.training_sequence(user).len())
            .collect();
        lengths.sort_unstable();
        let newest: usize = lengths.iter().map(|length| *length.min(&WINDOW)).sum();
        let has_title = |title: &Option<String>| {
            title
                .as_deref()
                .is_some_and(|title| !title.trim().is_empty())
        };
        let items = dataset.vocabulary.items();
        let titled = items.iter().filter(|item| has_title(&item.title)).count();
        Self {
            users: lengths.len(),
            median_length: lengths.get(lengths.len() / 2).copied().unwrap_or(0),
            newest_per_item: newest as f64 / items.len().max(1) as f64,
            titled: titled as f64 / items.len().max(1) as f64,
            encoder,
        }
    }

    fn has_long_histories(&self) -> bool {
        self.median_length >= LONG
    }

    /// Histories of one window have nothing older to train on.
    fn wants_old_windows(&self) -> bool {
        self.has_long_histories() && self.newest_per_item < SPARSE
    }

    fn has_many_short_histories(&self) -> bool {
        !self.has_long_histories() && self.users >= MANY_USERS
    }

    /// Beside long histories titles were worth nothing (MovieLens-100K), beside short ones a lot.
    fn wants_titles(&self) -> bool {
        !self.has_long_histories() && self.titled >= TITLED
    }

    /// The settings, changed by what the person asked for.
    ///
    /// # Errors
    /// A change of an unknown setting, or to a value of the wrong kind.
    pub fn settings(
        &self,
        changes: &[(String, toml::Value)],
    ) -> Result<PipelineSettings, PipelineError> {
        let histories = match self.has_long_histories() {
            true => LONG_HISTORIES,
            false => SHORT_HISTORIES,
        };
        let mut layers = vec![COMMON, histories];
        if self.wants_old_windows() {
            layers.push(SPARSE_CATALOG);
        }
        if self.has_many_short_histories() {
            layers.push(MANY_SHORT_HISTORIES);
        }
        if self.wants_titles() && self.encoder {
            layers.push(WITH_TITLES);
        }
        PipelineSettings::of_layers(&layers, changes)
    }

    /// What was chosen and why, for the person; `settings` are those of [`Self::settings`].
    #[must_use]
    pub fn explain(&self, settings: &PipelineSettings) -> String {
        let kind = match self.has_long_histories() {
            true => "long histories",
            false if self.has_many_short_histories() => "short histories of many users",
            false => "short histories",
        };
        let windows = match settings.pretrain.train.newest_windows {
            0 => ", all windows of a user",
            _ => "",
        };
        let (length, percent) = (self.median_length, 100.0 * self.titled);
        let own = self.wants_titles() && self.encoder;
        let titles = match (settings.pretrain.titles.is_some(), self.wants_titles()) {
            (true, _) if own => "titles are used",
            (true, _) => "titles are used, as the settings given by hand ask",
            (false, _) if own => "titles are not used, as the settings given by hand ask",
            (false, true) => {
                "titles are not used\nhint: `slmrec-distill fetch minilm` first, and they are"
            }
            (false, false) if self.titled >= TITLED => {
                "titles are not used, which gained nothing where histories were long"
            }
            (false, false) => "too few for titles to be used",
        };
        format!(
            "recipe for {kind} (half of the training sequences have {length} items or \
             more){windows}, {percent:.0} % of the items have a title: {titles}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::pipeline::settings::{ItemSource, TeacherChoice, Tuning};

    fn recipe(median_length: usize, titled: f64, encoder: bool) -> Recipe {
        Recipe {
            users: 1000,
            median_length,
            newest_per_item: 23.0,
            titled,
            encoder,
        }
    }

    #[test]
    fn old_windows_are_for_long_histories_over_a_catalog_little_seen() {
        for (median_length, newest_per_item, windows) in [(63, 23.0, 1), (63, 3.0, 0), (4, 3.0, 1)]
        {
            let recipe = Recipe {
                newest_per_item,
                ..recipe(median_length, 0.0, false)
            };
            let settings = recipe.settings(&[]).expect("settings");
            let found = [
                settings.pretrain.train.newest_windows,
                settings.baselines.gru4rec.train.newest_windows,
                settings.teach.train.newest_windows,
                settings.distill.train.newest_windows,
            ];
            assert_eq!(found, [windows; 4], "{recipe:?}");
            let said = recipe.explain(&settings);
            assert_eq!(
                said.contains("all windows of a user"),
                windows == 0,
                "{said}"
            );
        }
    }

    #[test]
    fn many_short_histories_take_fewer_epochs_and_whole_students() {
        let epochs = |users, median_length| {
            let recipe = Recipe {
                users,
                ..recipe(median_length, 0.0, false)
            };
            let settings = recipe.settings(&[]).expect("settings");
            let said = recipe.explain(&settings);
            let many = settings.distill.tuning == Tuning::Full;
            assert_eq!(said.contains("many users"), many, "{said}");
            (settings.pretrain.train.epochs, many)
        };
        assert_eq!(epochs(3231, 3), (60, false));
        assert_eq!(epochs(22_363, 4), (16, true));
        assert_eq!(epochs(22_363, 63), (40, false));
    }

    #[test]
    fn the_data_decide_and_the_person_wins() {
        let long = recipe(63, 1.0, false).settings(&[]).expect("settings");
        assert_eq!((long.teach.layers, long.distill.layers), (8, 4));
        assert_eq!(long.distill.teacher, TeacherChoice::Blend);
        assert_eq!(long.pretrain.titles, None);
        assert_eq!((long.model.dropout, long.prior.largest_alpha), (0.0, 6.0));
        let change = ("distill.layers".to_owned(), toml::Value::from(3));
        let short = recipe(4, 0.9, true).settings(&[change]).expect("settings");
        assert_eq!((short.teach.layers, short.distill.layers), (6, 3));
        assert_eq!(
            (short.model.dropout, short.prior.largest_alpha),
            (0.3, 13.0)
        );
        assert_eq!(short.pretrain.titles, Some(PathBuf::from("minilm")));
        assert_eq!(short.teach.item_embeddings, ItemSource::Titles);
        assert_eq!(
            short.pretrain.model.hidden_size, 128,
            "what no recipe names has its default"
        );
    }

    #[test]
    fn what_was_left_out_is_said() {
        let said = |recipe: Recipe| recipe.explain(&recipe.settings(&[]).expect("settings"));
        assert!(said(recipe(4, 1.0, false)).contains("hint: `slmrec-distill fetch minilm`"));
        assert!(said(recipe(4, 1.0, true)).ends_with("a title: titles are used"));
        assert!(said(recipe(4, 0.2, true)).ends_with("too few for titles to be used"));
        assert!(said(recipe(63, 1.0, true)).contains("titles are not used, which gained nothing"));
        let long = recipe(63, 1.0, true);
        let change = ("pretrain.titles".to_owned(), toml::Value::from("minilm"));
        let settings = long.settings(&[change]).expect("settings");
        assert!(
            long.explain(&settings)
                .ends_with("titles are used, as the settings given by hand ask")
        );
    }
}
