import Foundation

/// Everything that can go wrong, beside the `CancellationError` of a task that was cancelled. The
/// texts are for logs, not for the screen.
public enum SLMRecError: Error, Hashable, Sendable {
    /// An argument that is no use: negative, too long. The caller's mistake.
    case invalidArgument(String)

    /// A file cannot be opened or read.
    case file(String)

    /// The file is not a bundle or pack, or a damaged one. Copy or fetch it again.
    case damagedBundle(String)

    /// The bundle or pack wants a newer version of this library, or has no model for it.
    case unsupportedBundle(String)

    /// The history is empty, or the catalog has none of its items. Show popular items instead.
    case noUsableHistory(String)

    /// ONNX Runtime is not there, is too old, or is another one than this process has loaded.
    case onnxRuntime(String)

    /// The execution provider that was asked for is not there or does not start.
    case unavailableProvider(String)

    /// The engine fails on the model.
    case engine(String)

    /// The written history state is damaged or of another bundle. Start a new one.
    case historyState(String)

    /// The recommender or state was closed before the question.
    case closed

    /// A fault of the library. The recommender that it happened in answers no more.
    case `internal`(String)

    /// What the library says about it.
    public var message: String {
        switch self {
        case .invalidArgument(let text), .file(let text), .damagedBundle(let text),
            .unsupportedBundle(let text), .noUsableHistory(let text), .onnxRuntime(let text),
            .unavailableProvider(let text), .engine(let text), .historyState(let text),
            .internal(let text):
            text
        case .closed: "used after it was closed"
        }
    }
}

extension SLMRecError: LocalizedError {
    public var errorDescription: String? { message }
}
