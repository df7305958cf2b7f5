import SLMRec
import XCTest

final class ConcurrencyTests: XCTestCase {
    func test16TasksWith1000CallsEachGetWhatSerialCallsGet() async throws {
        let recommender = try await opened()
        var answers: [[Recommendation]] = []
        for n in 0..<1000 {
            answers.append(try await recommender.recommend(history(n), k: 5).items)
        }
        let serial = answers
        let equal = try await withThrowingTaskGroup(of: Int.self) { group in
            for worker in 0..<16 {
                group.addTask {
                    var equal = 0
                    // Each in an order of its own.
                    for i in 0..<1000 {
                        let n = (i * 7 + worker * 61) % 1000
                        let found = try await recommender.recommend(history(n), k: 5).items
                        equal += found == serial[n] ? 1 : 0
                    }
                    return equal
                }
            }
            return try await group.reduce(0, +)
        }
        XCTAssertEqual(equal, 16_000)
    }
}
