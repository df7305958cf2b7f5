import Foundation
internal import SLMRecFFI

/// One person's history with what the model has made of it, so that an appended item costs little.
/// Made by ``Recommender/historyState(_:)``; it stays usable when its recommender is closed.
public actor HistoryState {
    private var native: SLMRecFFI.HistoryState?
    private let calls: Calls
    private let appended = Appended()

    /// Ids of the history that it began with that the catalog does not have, each once.
    public nonisolated let unknownItems: [String]

    init(native: SLMRecFFI.HistoryState, calls: Calls) {
        self.native = native
        self.calls = calls
        unknownItems = native.unknownItems()
    }

    deinit {
        appended.end()
        if let native {
            calls.release(native)
        }
    }

    /// Appends an item that the person has just taken; `false`, and nothing is changed, for an id
    /// that the catalog does not have.
    @discardableResult
    public func append(_ id: String) async throws -> Bool {
        let appended = appended
        return try await call { native, _ in
            let known = try native.append(id: id)
            // Here and not after the wait: a caller who is cancelled has appended all the same.
            if known {
                appended.tell()
            }
            return known
        }
    }

    /// The `k` best items after all that was appended.
    public func recommend(
        k: Int = 10, filter: Filter = Filter()
    ) async throws -> Recommendations {
        let count = try unsigned(k, "k")
        return try await call { native, cancel in
            let filter = SLMRecFFI.Filter(filter)
            return Recommendations(try native.recommend(k: count, filter: filter, cancel: cancel))
        }
    }

    /// Recommendations now and after each ``append(_:)``.
    ///
    /// Nothing comes while the state is empty; a list that is out of date before it is ready is
    /// left out. The sequence ends when its task is cancelled or the state is closed. Several tasks may follow one state.
    public nonisolated func recommendations(
        k: Int = 10, filter: Filter = Filter()
    ) -> RecommendationUpdates {
        RecommendationUpdates(state: self, k: k, filter: filter)
    }

    /// Number of items that the model reads: the newest known ones.
    public func usedItems() async throws -> Int {
        try await call { native, _ in Int(try native.usedItems()) }
    }

    /// The state for ``Recommender/restoreHistoryState(_:)``; some bytes for each item.
    public func data() async throws -> Data {
        try await call { native, _ in try native.toBytes() }
    }

    /// Frees the native memory when the questions that were asked have their answers. Those after
    /// it throw ``SLMRecError/closed``. May be called again.
    public func close() {
        appended.end()
        if let native {
            calls.release(native)
        }
        native = nil
    }

    private func call<Answer: Sendable>(
        _ body: @escaping @Sendable (SLMRecFFI.HistoryState, CancelToken) throws -> Answer
    ) async throws -> Answer {
        guard let native else { throw SLMRecError.closed }
        return try await calls.call { cancel in try body(native, cancel) }
    }
}

extension HistoryState {
    /// A signal now and after each appended item.
    nonisolated func signals() -> AsyncStream<Void> { appended.signals() }

    /// The best items, unless there is no history yet or items were appended meanwhile.
    func current(k: Int, filter: Filter) async throws -> Recommendations? {
        let before = appended.count
        guard try await usedItems() > 0 else { return nil }
        let found = try await recommend(k: k, filter: filter)
        return appended.count == before ? found : nil
    }
}
