//! The students of `study items`.

use super::super::super::PipelineSettings;
use super::super::super::settings::{ItemSource, StudentStart};
use super::Variant;
use super::variants::alone;

/// Item embeddings that a student may begin with, each without a teacher: as they are, and trained on
/// with the rest. Random ones say nothing as they are. What reads titles is left out where titles are
/// not used. The settings' own choice comes first, for the others to be compared with.
pub(super) fn items(settings: &PipelineSettings) -> Vec<Variant> {
    let chosen = settings.distill.item_embeddings;
    let chosen = chosen.unwrap_or(settings.teach.item_embeddings);
    let mut sources = vec![
        (ItemSource::SasRec, "of SASRec"),
        (ItemSource::Titles, "of SASRec with titles"),
        (ItemSource::Encoder, "vectors of titles"),
        (ItemSource::Words, "words of titles"),
        (ItemSource::Random, "random"),
    ];
    let reads_titles = |source| !matches!(source, ItemSource::SasRec | ItemSource::Random);
    let has_titles = settings.pretrain.titles.is_some();
    sources.retain(|(source, _)| has_titles || *source == chosen || !reads_titles(*source));
    let forms = sources.into_iter().flat_map(|(source, name)| {
        [
            (source, false, name.to_owned()),
            (source, true, format!("{name}, trained on")),
        ]
    });
    let own = (chosen, settings.model.train_item_embeddings);
    let mut forms: Vec<(ItemSource, bool, String)> = forms
        .filter(|(source, trained, _)| *trained || *source != ItemSource::Random)
        .collect();
    forms.sort_by_key(|(source, trained, _)| (*source, *trained) != own);
    (forms.into_iter())
        .map(|(source, trained, name)| {
            let mut own = settings.clone();
            // Layers of the teacher come with the teacher's items.
            own.distill.start = match own.distill.start {
                StudentStart::Teacher => StudentStart::Base,
                other => other,
            };
            own.distill.item_embeddings = Some(source);
            own.model.train_item_embeddings = trained;
            alone(name, &own)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(settings: &PipelineSettings) -> Vec<String> {
        items(settings).into_iter().map(|v| v.name).collect()
    }

    #[test]
    fn each_source_stands_as_it_is_and_trained_on() {
        let mut settings = PipelineSettings::default();
        let expected = ["of SASRec", "of SASRec, trained on", "random, trained on"];
        assert_eq!(names(&settings), expected, "without titles");
        settings.teach.item_embeddings = ItemSource::Words;
        assert_eq!(names(&settings)[0], "words of titles", "what was asked for");
        settings.pretrain.titles = Some("minilm".into());
        settings.teach.item_embeddings = ItemSource::Titles;
        let found = items(&settings);
        assert_eq!(found.len(), 9);
        assert_eq!(found[0].name, "of SASRec with titles");
        assert!(found.iter().all(|v| !v.taught));
        let trained = found
            .iter()
            .filter(|v| v.settings.model.train_item_embeddings);
        assert_eq!(trained.count(), 5);
        settings.distill.item_embeddings = Some(ItemSource::Words);
        settings.model.train_item_embeddings = true;
        assert_eq!(names(&settings)[0], "words of titles, trained on");
    }
}
