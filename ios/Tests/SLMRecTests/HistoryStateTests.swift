import Foundation
import SLMRec
import XCTest

final class HistoryStateTests: XCTestCase {
    func testAStateAnswersLikeTheWholeHistory() async throws {
        let recommender = try await opened()
        let state = try await recommender.historyState(["item-1", "nowhere"])
        XCTAssertEqual(state.unknownItems, ["nowhere"])
        let (known, unknown) = (try await state.append("item-8"), try await state.append("other"))
        XCTAssertEqual([known, unknown], [true, false])
        let used = try await state.usedItems()
        XCTAssertEqual(used, 2)
        let whole = try await recommender.recommend(["item-1", "item-8"], k: 3)
        let grown = try await state.recommend(k: 3)
        XCTAssertEqual(ids(grown), ids(whole))
    }

    func testASequenceFollowsWhatIsAppended() async throws {
        let recommender = try await opened()
        let state = try await recommender.historyState()
        let (lists, sink) = AsyncThrowingStream.makeStream(of: Recommendations.self)
        let listener = Task {
            for try await list in state.recommendations(k: 3) { sink.yield(list) }
            sink.finish()
        }
        var received = lists.makeAsyncIterator()
        var taken: [String] = []
        for id in ["item-1", "item-8", "item-3"] {
            try await state.append(id)
            taken.append(id)
            // Lists that are out of date may be left out; the last one comes.
            var list = try await received.next()
            while let earlier = list, earlier.usedItems < taken.count {
                list = try await received.next()
            }
            let whole = try await recommender.recommend(taken, k: 3)
            XCTAssertEqual(list.map(ids), ids(whole))
        }
        listener.cancel()
        try await listener.value
        let end = try await received.next()
        XCTAssertNil(end)
    }

    func testTheMainActorMayFollow() async throws {
        try await follow(opened().historyState(["item-1"]))
    }

    func testASequenceOfAClosedStateFails() async throws {
        let state = try await opened().historyState(["item-1"])
        await state.close()
        do {
            for try await list in state.recommendations() { XCTFail("\(list)") }
            XCTFail("it ends without an error")
        } catch {
            XCTAssertEqual(error as? SLMRecError, .closed)
        }
    }

    func testAStateOutlivesItsRecommender() async throws {
        let state = try await opened().historyState(["item-1"])
        let found = try await state.recommend(k: 3)
        XCTAssertEqual(found.items.count, 3)
    }

    func testAStateOutlivesItsProcess() async throws {
        #if !os(Linux)
            throw XCTSkip("a test starts no other program here")
        #else
            let written = try temporaryFolder(for: self).appendingPathComponent("state")
            let other = Process()
            other.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            other.arguments = ["SLMRecTests.DyingProcessTests/testWritesItsStateAndIsGone"]
            other.environment = ProcessInfo.processInfo.environment
                .merging([DyingProcessTests.variable: written.path]) { $1 }
            try other.run()
            other.waitUntilExit()
            XCTAssertEqual(other.terminationStatus, 137)

            let recommender = try await opened()
            let data = try Data(contentsOf: written)
            let state = try await recommender.restoreHistoryState(data)
            let used = try await state.usedItems()
            XCTAssertEqual(used, 2)
            let restored = try await state.recommend(k: 4)
            let whole = try await recommender.recommend(["item-1", "item-8"], k: 4)
            XCTAssertEqual(ids(restored), ids(whole))
            let again = try await state.data()
            XCTAssertEqual(again, data)
        #endif
    }
}

/// As a view does it, and two of them at once.
@MainActor
private func follow(_ state: HistoryState) async throws {
    var lists = state.recommendations(k: 3).makeAsyncIterator()
    var others = state.recommendations(k: 2).makeAsyncIterator()
    let (first, other) = (try await lists.next(), try await others.next())
    XCTAssertEqual(first?.items.count, 3)
    XCTAssertEqual(other?.items.count, 2)
    try await state.append("item-2")
    for try await list in state.recommendations(k: 1) {
        XCTAssertEqual(list.usedItems, 2)
        break
    }
    let second = try await lists.next()
    XCTAssertEqual(second?.usedItems, 2)
    await state.close()
    let end = try await lists.next()
    XCTAssertNil(end)
}

/// Writes its state and is gone, without a chance to close anything.
final class DyingProcessTests: XCTestCase {
    static let variable = "SLMREC_TEST_STATE"

    func testWritesItsStateAndIsGone() async throws {
        guard let path = ProcessInfo.processInfo.environment[Self.variable] else {
            throw XCTSkip("another test starts it")
        }
        let state = try await opened().historyState(["item-1"])
        try await state.append("item-8")
        _ = try await state.recommend(k: 3)
        try await state.data().write(to: URL(fileURLWithPath: path))
        _exit(137)
    }
}
