import Foundation

/// Recommendations for a history state, now and after each appended item:
/// ``HistoryState/recommendations(k:filter:)``.
public struct RecommendationUpdates: AsyncSequence, Sendable {
    public typealias Element = Recommendations

    let state: HistoryState
    let k: Int
    let filter: Filter

    /// Follows the state from now on.
    public func makeAsyncIterator() -> Iterator {
        Iterator(updates: self, signals: state.signals().makeAsyncIterator())
    }

    /// What `for try await` asks for the next list.
    public struct Iterator: AsyncIteratorProtocol {
        let updates: RecommendationUpdates
        var signals: AsyncStream<Void>.Iterator
        private var began = false

        init(updates: RecommendationUpdates, signals: AsyncStream<Void>.Iterator) {
            self.updates = updates
            self.signals = signals
        }

        /// The next list; `nil` when the task is cancelled or the state is closed meanwhile.
        ///
        /// - Throws: ``SLMRecError/closed`` for a state that was closed before, and what
        ///   ``HistoryState/recommend(k:filter:)`` throws.
        public mutating func next() async throws -> Recommendations? {
            while await signals.next() != nil {
                do {
                    let found = try await updates.state.current(
                        k: updates.k, filter: updates.filter)
                    began = true
                    if let found {
                        return found
                    }
                } catch is CancellationError {
                    return nil
                } catch SLMRecError.closed where began {
                    return nil
                }
            }
            return nil
        }
    }
}

/// Tells whoever listens of appended items.
final class Appended: @unchecked Sendable {
    private let lock = NSLock()
    private var number = 0
    private var ended = false
    private var listeners: [UUID: AsyncStream<Void>.Continuation] = [:]

    /// Number of items that were told of.
    var count: Int { lock.withLock { number } }

    func tell() {
        let all = lock.withLock {
            number += 1
            return Array(listeners.values)
        }
        for listener in all {
            listener.yield()
        }
    }

    /// A signal now and for items to come; a listener who is late gets one for all that it missed.
    func signals() -> AsyncStream<Void> {
        let (stream, listener) = AsyncStream.makeStream(
            of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let id = UUID()
        listener.onTermination = { [weak self] _ in self?.forget(id) }
        listener.yield()
        let late = lock.withLock {
            if !ended {
                listeners[id] = listener
            }
            return ended
        }
        if late {
            listener.finish()
        }
        return stream
    }

    /// Ends all signals.
    func end() {
        let all = lock.withLock {
            ended = true
            return Array(listeners.values)
        }
        for listener in all {
            listener.finish()
        }
    }

    private func forget(_ id: UUID) {
        lock.withLock { listeners[id] = nil }
    }
}
