import Dispatch
import SLMRecFFI
import XCTest

@testable import SLMRec

final class CancellationTests: XCTestCase {
    func testACancelledCallerDoesNotWaitForTheCall() async throws {
        let calls = Calls()
        let (running, mayEnd) = (expectation(description: "runs"), DispatchSemaphore(value: 0))
        let ended = expectation(description: "ended")
        let caller = Task {
            try await calls.call { _ in
                running.fulfill()
                mayEnd.wait()
                ended.fulfill()
            }
        }
        await fulfillment(of: [running], timeout: 60)
        // Returns although the call cannot end before the next line but two.
        caller.cancel()
        let result = await caller.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError) }
        mayEnd.signal()
        await fulfillment(of: [ended], timeout: 60)
        // And the next call gets its turn.
        let next = try await calls.call { _ in 7 }
        XCTAssertEqual(next, 7)
    }

    func testTheTokenIsCancelledWithTheCaller() async throws {
        let calls = Calls()
        let (running, seen) = (expectation(description: "runs"), expectation(description: "seen"))
        let caller = Task {
            try await calls.call { cancel in
                running.fulfill()
                // The test ends only if the token is cancelled.
                while !cancel.isCancelled() {}
                seen.fulfill()
            }
        }
        await fulfillment(of: [running], timeout: 60)
        caller.cancel()
        await fulfillment(of: [seen], timeout: 60)
    }

    func testATaskThatWasCancelledBeforeAsksNothing() async throws {
        let calls = Calls()
        let caller = Task {
            while !Task.isCancelled { await Task.yield() }
            try await calls.call { _ in XCTFail("it was asked") }
        }
        caller.cancel()
        let result = await caller.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError) }
        try await calls.call { _ in }
    }

    func testACancelledQuestionLeavesTheRecommenderUsable() async throws {
        let recommender = try await opened()
        let expected = try await recommender.recommend(history(1), k: 5).items
        for n in 0..<200 {
            let asked = Task {
                try await recommender.explain(history(n), items: ["item-5", "item-6"])
            }
            await Task.yield()
            asked.cancel()
            if case .failure(let error) = await asked.result {
                XCTAssertTrue(error is CancellationError, "\(error)")
            }
        }
        let again = try await recommender.recommend(history(1), k: 5).items
        XCTAssertEqual(again, expected)
    }

    func testTheNativeSideEndsAQuestionWhoseTokenIsCancelled() throws {
        let native = try SLMRecFFI.Recommender.open(
            path: bundle.path, options: SLMRecFFI.OpenOptions(options))
        let token = CancelToken()
        token.cancel()
        let filter = SLMRecFFI.Filter(SLMRec.Filter())
        XCTAssertThrowsError(
            try native.recommend(history: history(1), k: 3, filter: filter, cancel: token)
        ) {
            guard case SlmrecError.Cancelled = $0 else { return XCTFail("\($0)") }
        }
    }

    /// Blocked calls of many recommenders leave Swift's own threads to the rest of the app.
    func testBlockedCallsDoNotBlockOtherTasks() async throws {
        let mayEnd = DispatchSemaphore(value: 0)
        let running = expectation(description: "all run")
        running.expectedFulfillmentCount = 32
        let blocked = (0..<32).map { _ in
            Task {
                try await Calls().call { _ in
                    running.fulfill()
                    mayEnd.wait()
                }
            }
        }
        await fulfillment(of: [running], timeout: 60)
        let other = await Task.detached { 7 }.value
        XCTAssertEqual(other, 7)
        for _ in blocked { mayEnd.signal() }
        for task in blocked { try await task.value }
    }
}
