//! What can go wrong, as few cases as an app can act on.

use slmrec_core::{BundleError, HistoryError};
use slmrec_runtime::RuntimeError;

/// Longest message, in bytes: it may quote what the caller gave.
const MAX_MESSAGE: usize = 2000;

/// Why there is no answer. Cases are never renamed and their C statuses never used again; new ones
/// may be added. The message is for logs, not for the screen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
pub enum SlmrecError {
    /// An argument that is no use: too long, or not what is expected. The caller's mistake.
    #[error("{0}")]
    InvalidArgument(String),
    /// A file cannot be opened or read.
    #[error("{0}")]
    File(String),
    /// The file is not a bundle or pack, or a damaged one. Copy or fetch it again.
    #[error("{0}")]
    DamagedBundle(String),
    /// The bundle or pack wants a newer version of this library, or has no model for it.
    #[error("{0}")]
    UnsupportedBundle(String),
    /// The history is empty, or the catalog has none of its items. Show popular items instead.
    #[error("{0}")]
    NoUsableHistory(String),
    /// ONNX Runtime is not there, is too old, or is another one than this process has loaded.
    #[error("{0}")]
    OnnxRuntime(String),
    /// The execution provider that was asked for is not there or does not start. Use `Auto`.
    #[error("{0}")]
    Provider(String),
    /// The engine fails on the model.
    #[error("{0}")]
    Engine(String),
    /// The written history state is damaged or of another bundle. Start a new one.
    #[error("{0}")]
    HistoryState(String),
    /// The token of the question was cancelled.
    #[error("{0}")]
    Cancelled(String),
    /// A fault of this library. The recommender that it happened in answers no more.
    #[error("{0}")]
    Internal(String),
}

impl From<RuntimeError> for SlmrecError {
    fn from(error: RuntimeError) -> Self {
        let message = message_of(&error);
        match error {
            RuntimeError::Bundle(BundleError::Io { .. }) => Self::File(message),
            RuntimeError::Bundle(
                BundleError::FormatVersion { .. } | BundleError::Feature { .. },
            )
            | RuntimeError::NoGraph { .. } => Self::UnsupportedBundle(message),
            RuntimeError::Bundle(_) | RuntimeError::Samples { .. } => Self::DamagedBundle(message),
            RuntimeError::History(HistoryError::Empty | HistoryError::AllUnknown { .. }) => {
                Self::NoUsableHistory(message)
            }
            RuntimeError::History(_) => Self::InvalidArgument(message),
            RuntimeError::LibraryNotFound { .. }
            | RuntimeError::Library { .. }
            | RuntimeError::LibraryConflict { .. } => Self::OnnxRuntime(message),
            RuntimeError::ProviderAbsent { .. }
            | RuntimeError::ProviderFailed { .. }
            | RuntimeError::ProviderCache { .. } => Self::Provider(message),
            RuntimeError::EngineNotBuilt { .. }
            | RuntimeError::Graph { .. }
            | RuntimeError::GraphShape { .. }
            | RuntimeError::Inference { .. }
            | RuntimeError::UserVector { .. }
            | RuntimeError::Ranking(_) => Self::Engine(message),
            RuntimeError::HistoryState { .. } => Self::HistoryState(message),
            RuntimeError::Cancelled => Self::Cancelled(message),
        }
    }
}

/// Hints speak of command lines, which an app does not have.
fn message_of(error: &RuntimeError) -> String {
    let text = error.to_string();
    let mut message = text.split("; hint: ").next().unwrap_or_default().to_owned();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|&at| message.is_char_boundary(at));
        message.truncate(end.unwrap_or_default());
        message.push_str(" ..");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_hints_and_an_end() {
        let error = RuntimeError::HistoryState {
            expected: "é".repeat(MAX_MESSAGE),
            found: "x".into(),
        };
        let SlmrecError::HistoryState(message) = SlmrecError::from(error) else {
            panic!("another case");
        };
        assert!(message.len() <= MAX_MESSAGE + 3 && message.ends_with("é .."));
        let error = RuntimeError::LibraryNotFound {
            tried: vec!["libonnxruntime.so".into()],
            unusable: vec![],
        };
        let message = SlmrecError::from(error).to_string();
        assert_eq!(
            message,
            "ONNX Runtime was not found; tried libonnxruntime.so"
        );
    }
}
