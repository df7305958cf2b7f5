//! What can be asked about the student.

use serde::Serialize;

use crate::train::BlockMap;

/// The question.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Study {
    /// How deep must the student be? Each depth with the teacher and without.
    Depth(Vec<usize>),
    /// What do the layers of one deep model know? The teacher, read after each of them; nothing is
    /// trained.
    Readout,
    /// What does each term of the objective add?
    Losses,
    /// How many blocks should be aligned, or which layers?
    Blocks(Vec<usize>, Vec<BlockMap>),
    /// Who should teach by logits: nobody, the decoder, or the blend?
    Teacher,
    /// Should the teacher be finished, or learn beside the student?
    Online,
    /// How many users does the student need? Each share with the teacher and without.
    DataSize(Vec<f64>),
    /// What should the student begin as? Without a teacher.
    Start,
    /// What item embeddings should it begin with? Without a teacher.
    Items,
}

/// What a study asks, for who reads about it.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Where the record lies, within `studies`.
    pub folder: &'static str,
    /// What is typed after the program.
    pub command: &'static str,
    /// The question.
    pub words: &'static str,
}

impl Study {
    /// Every question that can be asked.
    pub const QUESTIONS: [Question; 9] = [
        Question {
            folder: "depth",
            command: "study depth",
            words: "How deep must the student be?",
        },
        Question {
            folder: "depth-readout",
            command: "study depth --readout",
            words: "What do the layers of the teacher know?",
        },
        Question {
            folder: "losses",
            command: "study losses",
            words: "What does each term of the objective add?",
        },
        Question {
            folder: "blocks",
            command: "study blocks",
            words: "Which layers should be aligned?",
        },
        Question {
            folder: "teacher",
            command: "study teacher",
            words: "Who should teach by logits?",
        },
        Question {
            folder: "online",
            command: "study online",
            words: "Should the teacher be finished, or learn beside the student?",
        },
        Question {
            folder: "data-size",
            command: "study data-size",
            words: "How many users does the student need?",
        },
        Question {
            folder: "start",
            command: "study start",
            words: "What should the student begin as?",
        },
        Question {
            folder: "items",
            command: "study items",
            words: "What should its items begin as?",
        },
    ];

    /// As typed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Depth(_) | Self::Readout => "depth",
            Self::Losses => "losses",
            Self::Blocks(..) => "blocks",
            Self::Teacher => "teacher",
            Self::Online => "online",
            Self::DataSize(_) => "data-size",
            Self::Start => "start",
            Self::Items => "items",
        }
    }

    /// Where its record lies.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match self {
            Self::Readout => "depth-readout",
            other => other.name(),
        }
    }

    /// What is typed after the program.
    pub(super) fn command(&self) -> &'static str {
        let own = |question: &&Question| question.folder == self.folder();
        let found = Self::QUESTIONS.iter().find(own);
        found.map_or("study", |question| question.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_study_is_listed_once() {
        let studies = [
            Study::Depth(vec![1]),
            Study::Readout,
            Study::Losses,
            Study::Blocks(vec![1], Vec::new()),
            Study::Teacher,
            Study::Online,
            Study::DataSize(vec![1.0]),
            Study::Start,
            Study::Items,
        ];
        let folders: Vec<&str> = studies.iter().map(Study::folder).collect();
        assert_eq!(folders, Study::QUESTIONS.map(|question| question.folder));
        for study in &studies {
            let typed = format!("study {}", study.name());
            assert!(study.command().starts_with(&typed), "{study:?}");
        }
    }
}
