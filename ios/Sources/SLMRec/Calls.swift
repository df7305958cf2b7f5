import Dispatch
import Foundation
internal import SLMRecFFI

/// Blocking calls as asynchronous ones, on a queue of their own: a blocked thread of Swift's
/// cooperative pool would be missing everywhere else in the app. One runs at a time, since the
/// native side would let the others wait, each on a thread.
final class Calls: Sendable {
    // Without a quality of service of its own: work has that of the task that asks.
    private let queue = DispatchQueue(label: "io.slmrec.calls")

    /// Runs `body` on the queue. A caller that is cancelled goes on at once; the native call ends
    /// at its next look at the token, and its answer is dropped.
    func call<Answer: Sendable>(
        _ body: @escaping @Sendable (CancelToken) throws -> Answer
    ) async throws -> Answer {
        // The work item holds the token until the native call has ended.
        let token = CancelToken()
        let pending = Pending<Answer>()
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                pending.wait(with: continuation)
                self.queue.async {
                    guard !token.isCancelled() else { return }
                    pending.finish(with: translated { try body(token) })
                }
            }
        } onCancel: {
            token.cancel()
            pending.finish(with: .failure(CancellationError()))
        }
        return try result.get()
    }

    /// Lets go of a native object where freeing it disturbs nobody: after the question that is
    /// being answered, and not on the main thread.
    func release(_ native: AnyObject & Sendable) {
        queue.async { withExtendedLifetime(native) {} }
    }
}

/// Where the answer and the cancellation of one call meet: the first of them counts.
private final class Pending<Answer: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var continuation: CheckedContinuation<Result<Answer, any Error>, Never>?
    private var result: Result<Answer, any Error>?

    func wait(with continuation: CheckedContinuation<Result<Answer, any Error>, Never>) {
        let early = lock.withLock {
            if result == nil {
                self.continuation = continuation
            }
            return result
        }
        if let early {
            continuation.resume(returning: early)
        }
    }

    func finish(with result: Result<Answer, any Error>) {
        let waiting = lock.withLock {
            guard self.result == nil else {
                return nil as CheckedContinuation<Result<Answer, any Error>, Never>?
            }
            self.result = result
            defer { continuation = nil }
            return continuation
        }
        waiting?.resume(returning: result)
    }
}

/// Runs native code; what it throws becomes an ``SLMRecError``.
func translated<Answer>(_ body: () throws -> Answer) -> Result<Answer, any Error> {
    do {
        return .success(try body())
    } catch let error as SlmrecError {
        return .failure(SLMRecError(error))
    } catch let error as SLMRecError {
        return .failure(error)
    } catch {
        // Generated code makes errors of its own of panics.
        return .failure(SLMRecError.internal(error.localizedDescription))
    }
}
