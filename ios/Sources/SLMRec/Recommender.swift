import Foundation
internal import SLMRecFFI

/// An opened bundle: histories in, recommendations out.
///
/// ```swift
/// let recommender = try await Recommender.open(resource: "student")
/// let found = try await recommender.recommend(["50", "181"], k: 10)
/// for item in found.items { print(item.rank, item.title ?? item.id) }
/// ```
///
/// Functions may be called from any task, those of the main actor too. Questions to one recommender
/// are answered one after the other, on a thread of its own. Everything that goes wrong is an
/// ``SLMRecError``; a question of a cancelled task throws `CancellationError` at once.
///
/// It holds native memory, which is freed when the last reference to it goes, or by ``close()``.
public actor Recommender {
    private var native: SLMRecFFI.Recommender?
    private let calls: Calls

    private init(native: SLMRecFFI.Recommender, calls: Calls) {
        self.native = native
        self.calls = calls
    }

    deinit {
        if let native {
            calls.release(native)
        }
    }

    /// Opens the bundle in a file: some tenths of a second.
    ///
    /// - Throws: ``SLMRecError/file(_:)`` where there is none, ``SLMRecError/damagedBundle(_:)``
    ///   where it is another file or a damaged one.
    public static func open(
        _ bundle: URL, options: OpenOptions = OpenOptions()
    ) async throws -> Recommender {
        guard bundle.isFileURL else {
            throw SLMRecError.invalidArgument("\(bundle): expected the URL of a file")
        }
        switchTelemetryOff()
        let native = try SLMRecFFI.OpenOptions(options)
        let calls = Calls()
        return try await calls.call { _ in
            if options.onnxRuntime == nil {
                try useLinkedRuntime()
            }
            let opened = try SLMRecFFI.Recommender.open(path: bundle.path, options: native)
            return Recommender(native: opened, calls: calls)
        }
    }

    /// Opens a bundle that is a resource of the app, or of another bundle of code and resources.
    ///
    /// - Throws: ``SLMRecError/file(_:)`` where there is no such resource.
    public static func open(
        resource name: String,
        withExtension fileExtension: String = "slmrec",
        in bundle: Foundation.Bundle = .main,
        options: OpenOptions = OpenOptions()
    ) async throws -> Recommender {
        guard let url = bundle.url(forResource: name, withExtension: fileExtension) else {
            throw SLMRecError.file(
                "\(name).\(fileExtension): not among the resources of \(bundle.bundlePath)")
        }
        return try await open(url, options: options)
    }

    /// The `k` best items for a history of ids, oldest first.
    ///
    /// - Throws: ``SLMRecError/noUsableHistory(_:)`` for a history without an item that the catalog
    ///   has; ``popular(_:filter:)`` is an answer then.
    public func recommend(
        _ history: [String], k: Int = 10, filter: Filter = Filter()
    ) async throws -> Recommendations {
        let count = try unsigned(k, "k")
        return try await call { native, cancel in
            let filter = SLMRecFFI.Filter(filter)
            return Recommendations(
                try native.recommend(history: history, k: count, filter: filter, cancel: cancel))
        }
    }

    /// Ranks candidates for a history, with the scores that ``recommend(_:k:filter:)`` gives them.
    public func score(
        _ history: [String], candidates: [String]
    ) async throws -> RankedCandidates {
        try await call { native, cancel in
            RankedCandidates(
                try native.score(history: history, candidates: candidates, cancel: cancel))
        }
    }

    /// Why items are recommended: for each, up to `maxReasons` items of the history without which
    /// its score would be lower. The newest `maxItems` of the history are tried, so it takes a few
    /// times as long as ``recommend(_:k:filter:)``.
    public func explain(
        _ history: [String], items: [String], maxItems: Int = 16, maxReasons: Int = 3
    ) async throws -> [Explanation] {
        let most = try unsigned(maxItems, "maxItems")
        let longest = try unsigned(maxReasons, "maxReasons")
        return try await call { native, cancel in
            let found = try native.explain(
                history: history, items: items, maxItems: most, maxReasons: longest, cancel: cancel)
            return found.items.map { Explanation($0) }
        }
    }

    /// The `k` most popular items, for a person without a usable history.
    public func popular(
        _ k: Int = 10, filter: Filter = Filter()
    ) async throws -> [PopularItem] {
        let count = try unsigned(k, "k")
        return try await call { native, _ in
            let found = try native.popular(k: count, filter: SLMRecFFI.Filter(filter))
            return found.items.map { PopularItem($0) }
        }
    }

    /// A state that begins with a history, which may be empty, and grows by single items.
    public func historyState(_ history: [String] = []) async throws -> HistoryState {
        let calls = calls
        return try await call { native, _ in
            HistoryState(native: try native.historyState(history: history), calls: calls)
        }
    }

    /// A state from what ``HistoryState/data()`` gave, for example before the system ended the app.
    ///
    /// - Throws: ``SLMRecError/historyState(_:)`` for damaged data and those of another bundle.
    public func restoreHistoryState(_ data: Data) async throws -> HistoryState {
        let calls = calls
        return try await call { native, _ in
            HistoryState(native: try native.restoreHistoryState(bytes: data), calls: calls)
        }
    }

    /// Lets a pack change the answers. After a failure the recommender is as it was.
    public func applyPack(_ pack: URL) async throws {
        try await call { native, _ in try native.applyPack(path: pack.path) }
    }

    /// What is in the bundle and what runs it.
    public func info() async throws -> BundleInfo {
        try await call { native, _ in BundleInfo(try native.info()) }
    }

    /// Replays the bundle's own samples: does this device give what was expected at export?
    public func selfTest() async throws -> SelfTest {
        try await call { native, cancel in SelfTest(try native.selfTest(cancel: cancel)) }
    }

    /// Frees the native memory when the questions that were asked have their answers. Those after
    /// it throw ``SLMRecError/closed``; history states stay usable. May be called again.
    public func close() {
        if let native {
            calls.release(native)
        }
        native = nil
    }

    private func call<Answer: Sendable>(
        _ body: @escaping @Sendable (SLMRecFFI.Recommender, CancelToken) throws -> Answer
    ) async throws -> Answer {
        guard let native else { throw SLMRecError.closed }
        return try await calls.call { cancel in try body(native, cancel) }
    }
}
